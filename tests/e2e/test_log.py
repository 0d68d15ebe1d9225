"""Log of a running proxy: what an operator reads on stderr at the level info."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow

WEBSOCKET = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


def test_log_at_info_tells_what_models_did_and_why_requests_failed(serve: Serve) -> None:
    """Starts, swaps, crashes, failed hooks and rejected requests are a line each."""
    models = {
        "a": demo_model("a") | {"beforeStop": "false"},
        "b": demo_model("b"),
        "crashing": {"cmd": "sh -c 'echo no memory; exit 3' ${PORT}"},
        "fixed": demo_model("fixed") | {"pinned": True},
    }
    proxy = serve(models)
    for model, name in (("a", "first"), ("b", "second")):
        proxy.headers = {"X-Request-ID": name}
        assert proxy.chat(model).status == 200
    proxy.headers = {}
    assert proxy.chat("crashing").status == 502
    assert proxy.chat("fixed").status == 200
    assert proxy.chat("b").status == 503
    wanted = [
        r"INFO swapchart\.models: loading a: requested \(model=a event=loading request=first\)",
        r"INFO swapchart\.models: a is ready \(model=a event=ready after=\d+\.\ds request=first "
        r"pid=\d+\)",
        r"INFO swapchart\.models: stopping a: evicted for b \(model=a event=stopping "
        r"request=second pid=\d+\)",
        r"WARNING swapchart\.models: a hook of a failed: run false: exit code 1 \(model=a "
        r"event=hook_failed point=beforeStop after=\d+\.\ds pid=\d+\)",
        r"INFO swapchart\.models: a has stopped \(model=a event=stopped after=\d+\.\ds "
        r"request=second\)",
        r"WARNING swapchart\.models: crashing failed: exit code 3 \(model=crashing event=failed "
        r"state=health_checking request=\S+ pid=\d+ code=3\)",
        r"WARNING swapchart\.proxy: request refused: exited: crashing: .* exit code 3 "
        r"\(request=\S+\)",
        r"WARNING swapchart\.proxy: request refused: pinned: b: b cannot run beside fixed, .* "
        r"\(request=\S+\)",
    ]

    def missing() -> list[str]:
        lines = proxy.output().splitlines()
        return [line for line in wanted if not any(re.search(line + "$", each) for each in lines)]

    wait_until(lambda: not missing(), what=lambda: f"these lines:\n{missing()}\n{proxy.output()}")


def test_log_refused_requests_are_lines_once_for_each_kind_and_client(serve: Serve) -> None:
    """On stderr, as JSON with the id of the request, and in /logs; never with the key."""
    keys = [{"key": "sk-all"}, {"key": "sk-infer", "scopes": ["infer"]}]
    proxy = serve(
        {"a": demo_model("a")}, config={"apiKeys": keys}, options=["--log-format", "json"]
    )
    key = {"Authorization": "Bearer sk-infer"}
    refused: list[tuple[int, str, dict[str, str]]] = [
        (401, "/v1/models", {"Authorization": "Bearer secret-1"}),
        (401, "/api/queue", {"X-Api-Key": "secret-2"}),
        (403, "/api/queue", key),
        (403, "/api/queue", {**key, "A": "b"}),
        (421, "/api/queue", {"Host": "evil.example"}),
        (421, "/v1/models", {"Host": "evil.example"}),
    ]  # fmt: skip
    for number, (status, target, headers) in enumerate(refused):
        named = {"X-Request-ID": f"id-{number}", **headers}
        assert proxy.call("GET", target, headers=named).status == status
    answer = proxy.call("GET", "/upstream/a/x", headers={**WEBSOCKET, "X-Api-Key": "secret-3"})
    assert answer.status == 401
    proxy.headers = {"X-Api-Key": "sk-all", "X-Request-ID": "last"}
    assert proxy.chat("a").status == 200
    wait_until(lambda: '"ready"' in proxy.output(), what=proxy.output)
    found = [json.loads(line) for line in proxy.output().splitlines() if line.startswith("{")]
    lines = [row for row in found if row.get("event") == "refused"]
    logs = proxy.call("GET", "/logs").body.decode()

    assert [(row["reason"], row["client"], row["request"]) for row in lines] == [
        ("unauthorized", "127.0.0.1", "id-0"), ("forbidden", "127.0.0.1", "id-2"),
        ("host_not_allowed", "127.0.0.1", "id-4"),
    ]  # fmt: skip
    assert all(row["message"].startswith("request refused: ") for row in lines)
    assert all(f"request={row['request']})" in logs for row in lines)
    assert "secret-" not in proxy.output() + logs
    started = [(row["event"], row["request"], row["swap"]) for row in found if "swap" in row][:2]
    (swap,) = {swap for _, _, swap in started}
    assert started == [("loading", "last", swap), ("ready", "last", swap)]


def test_log_history_names_the_requests_that_models_start_and_stop_for(serve: Serve) -> None:
    """The journal has the id of the request behind a start and an eviction."""
    proxy = serve({"a": demo_model("a"), "b": demo_model("b")})
    for model in ("a", "b"):
        proxy.headers = {"X-Request-ID": f"for-{model}"}
        assert proxy.chat(model).status == 200
    proxy.unload("b")
    rows = {model: proxy.get(f"/api/models/{model}/history")["data"] for model in ("a", "b")}
    found = {
        model: [(row["event"], row["request_id"]) for row in reversed(history)]
        for model, history in rows.items()
    }

    assert found["a"][0] == ("request", "for-a")
    assert ("stop", "for-b") in found["a"]
    assert found["b"][0] == ("request", "for-b")
    assert ("stop", "") in found["b"]
    run = subprocess.run(
        [sys.executable, "-m", "swapchart", "history", "a", "--url", f"http://127.0.0.1:{proxy.port}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "request (requested) request=for-a" in run.stdout


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
    """Each line of standard error is an object; the lines of one swap have the same id."""
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
    seen = [(row["model"], row["event"], row["swap"]) for row in rows if "swap" in row]
    ids = list(dict.fromkeys(swap for _, _, swap in seen))
    assert [(model, event, ids.index(swap)) for model, event, swap in seen[:6]] == [
        ("a", "loading", 0), ("a", "ready", 0), ("a", "stopping", 1), ("a", "stopped", 1),
        ("b", "loading", 1), ("b", "ready", 1),
    ]  # fmt: skip
