"""Models whose allocations really fail, by a limit of their address space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

LIMIT_KIB = 400 << 10  # a demo server takes less, until it allocates
MEMORY = {"pools": {"RAM": {"limit": "1GiB"}}}


def limited(name: str, condition: str, **keys: Any) -> dict[str, Any]:
    """Return a model that cannot allocate its 500 MiB while the shell *condition* holds."""
    model = demo_model(name, "--allocate-mib", "500", "--quiet", **keys)
    script = f'if {condition}; then ulimit -v {LIMIT_KIB}; fi; exec "$@"'
    return {**model, "cmd": ["sh", "-c", script, "sh", *model["cmd"]], "restart": {"backoff": 0.1}}


def beside(flag: Path) -> dict[str, Any]:
    """Return a model that removes *flag* when it is stopped."""
    stop = f"rm -f {flag}; kill ${{PID}}"
    return demo_model("beside", "--quiet", memory="200MiB", cmdStop=["sh", "-c", stop])


def count(proxy: SwapchartProcess, model: str) -> str:
    text = proxy.call("GET", "/metrics").body.decode()
    found = re.search(rf'^swapchart_out_of_memory_total{{model="{model}"}} (.*)$', text, re.M)
    return found[1] if found else ""


def test_model_that_runs_out_of_memory_is_started_again_once_the_other_has_gone(
    serve: Serve, tmp_path: Path
) -> None:
    """Cases 17 and 18, with MemoryError of a real process."""
    flag = tmp_path / "beside-runs"
    flag.touch()
    models = {
        "beside": beside(flag),
        "large": limited("large", f"[ -e {flag} ]", memory="560MiB"),
        "never": limited("never", "true", memory="560MiB"),
    }
    state = ("--state-dir", str(tmp_path / "state"))
    proxy = serve(models, config={"memory": MEMORY}, options=state)
    assert proxy.chat("beside").status == 200
    assert proxy.chat("large").status == 200
    assert {*proxy.running()} == {"large"}
    assert count(proxy, "large") == "1.0"
    found = proxy.get("/api/memory")
    (failure,) = found["failures"]
    assert (failure["model"], failure["count"], failure["retried"]) == ("large", 1, True)
    assert "held by beside (200 MiB)" in failure["why"]
    assert any("large ran out of memory with 560 MiB of RAM" in n["text"] for n in found["notices"])
    assert proxy.output().count("ran out of memory") == 1
    row = proxy.get("/api/models/large/explain")["memory"]
    assert row[-1] == "learned: it ran out of memory with 560 MiB of RAM"

    refused = proxy.chat("never")
    assert refused.status == 502
    error = refused.json()["error"]
    assert error["code"] == "out_of_memory"
    assert "RAM: 1.0 GiB limit" in error["message"]
    assert ", or raise its `memory`" in error["message"]
    assert "MemoryError" in error["message"], "for an administrator"
    assert count(proxy, "never") == "1.0", "it was alone, so it was not started again"
    assert proxy.stop() == 0

    again = serve(models, config={"memory": MEMORY}, options=state)
    kept = again.get("/api/memory")["notices"]
    assert any("large ran out of memory" in notice["text"] for notice in kept)
    assert again.call("DELETE", "/api/memory/learned/large").status == 200
    wait_until(
        lambda: not any("large" in n["text"] for n in again.get("/api/memory")["notices"]),
        what="the notice to go",
    )


def test_model_that_runs_out_of_memory_without_memory_settings_says_so(serve: Serve) -> None:
    proxy = serve({"never": limited("never", "true")})
    refused = proxy.chat("never")
    assert (refused.status, refused.json()["error"]["code"]) == (502, "out_of_memory")
    assert "set `memory: auto`" in refused.json()["error"]["message"]
