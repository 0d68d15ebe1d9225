"""Log of a running proxy: what an operator reads on stderr at the level info."""

from __future__ import annotations

import json
import re

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow


def test_log_at_info_tells_what_models_did_and_why_requests_failed(serve: Serve) -> None:
    """Starts, swaps, crashes, failed hooks and rejected requests are a line each."""
    models = {
        "a": demo_model("a") | {"beforeStop": "false"},
        "b": demo_model("b"),
        "crashing": {"cmd": "sh -c 'echo no memory; exit 3' ${PORT}"},
        "fixed": demo_model("fixed") | {"pinned": True},
    }
    proxy = serve(models)
    assert proxy.chat("a").status == 200
    assert proxy.chat("b").status == 200
    assert proxy.chat("crashing").status == 502
    assert proxy.chat("fixed").status == 200
    assert proxy.chat("b").status == 503
    wanted = [
        r"INFO swapchart\.models: loading a: requested \(model=a event=loading\)",
        r"INFO swapchart\.models: a is ready \(model=a event=ready after=\d+\.\ds pid=\d+\)",
        r"INFO swapchart\.models: stopping a: evicted for b \(model=a event=stopping pid=\d+\)",
        r"WARNING swapchart\.models: a hook of a failed: run false: exit code 1 \(model=a "
        r"event=hook_failed point=beforeStop after=\d+\.\ds pid=\d+\)",
        r"INFO swapchart\.models: a has stopped \(model=a event=stopped after=\d+\.\ds\)",
        r"WARNING swapchart\.models: crashing failed: exit code 3 \(model=crashing event=failed "
        r"state=health_checking pid=\d+ code=3\)",
        r"WARNING swapchart\.proxy: request refused: exited: crashing: .* exit code 3",
        r"WARNING swapchart\.proxy: request refused: pinned: b: b cannot run beside fixed, .*",
    ]

    def missing() -> list[str]:
        lines = proxy.output().splitlines()
        return [line for line in wanted if not any(re.search(line + "$", each) for each in lines)]

    wait_until(lambda: not missing(), what=lambda: f"these lines:\n{missing()}\n{proxy.output()}")


@pytest.mark.parametrize("target", ["proxy", "upstream", "both"])
def test_log_to_stdout_prints_the_output_of_models(serve: Serve, target: str) -> None:
    """`logToStdout: upstream` or `both` prints it; the proxy's own log stays on stderr."""
    model = demo_model("a")
    command = ["sh", "-c", 'echo "loading \u00fc"; exec "$@"', "sh", *model["cmd"]]
    proxy = serve({"a": model | {"cmd": command}}, config={"logToStdout": target})
    assert proxy.chat("a").status == 200
    wait_until(lambda: "a is ready" in proxy.output(), what=proxy.output)

    if target == "proxy":
        assert "loading \u00fc" not in proxy.output()
    else:
        wait_until(lambda: "\nloading \u00fc\n" in proxy.output(), what=proxy.output)


def test_log_as_json_has_the_models_and_their_swap(serve: Serve) -> None:
    """Each line of standard error is an object; the lines of one swap have the same number."""
    proxy = serve(
        {"a": demo_model("a"), "b": demo_model("b")}, options=["--log-format", "json"]
    )  # fmt: skip
    for name in ("a", "b"):
        assert proxy.chat(name).status == 200
    assert proxy.stop() == 0
    rows = [json.loads(line) for line in proxy.output().splitlines()]
    assert all({"time", "level", "logger", "message"} <= {*row} for row in rows)
    (first,) = [row["message"] for row in rows if "swapchart listens on" in row["message"]]
    assert first.endswith("models: a, b")
    seen = [(row["model"], row["event"], row.get("swap")) for row in rows if "model" in row]
    assert seen[:6] == [
        ("a", "loading", 1), ("a", "ready", 1), ("a", "stopping", 2), ("a", "stopped", 2),
        ("b", "loading", 2), ("b", "ready", 2),
    ]  # fmt: skip
