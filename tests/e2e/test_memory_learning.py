"""A model of which nothing is known runs alone once, is measured, and is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

MIB = 1 << 20


def _models() -> dict[str, Any]:
    needs: dict[str, dict[str, Any]] = {"known": {"memory": "180MiB"}, "new": {}}
    return {
        name: demo_model(name, "--allocate-mib", "100", "--quiet", **keys)
        for name, keys in needs.items()
    }


def _learned(proxy: SwapchartProcess) -> dict[str, dict[str, Any]]:
    rows = proxy.get("/api/memory")["learned"]
    return {row["model"]: row for row in rows if row["pool"] == "RAM"}


def test_memory_of_an_unknown_model_is_learned_and_survives_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    memory = {"memory": {"pools": {"RAM": {"limit": "400MiB"}}}}
    state = ("--state-dir", str(tmp_path / "state"))
    proxy = serve(_models(), config=memory, options=state)
    for name in ("known", "new"):
        assert proxy.chat(name).status == 200
    assert {*proxy.running()} == {"new"}
    assert proxy.get("/api/memory")["models"][0]["source"] == "unknown"
    wait_until(lambda: "new" in _learned(proxy), what="a reading of it")
    assert proxy.call("POST", "/api/models/unload/new").status == 200
    for name in ("known", "new"):
        assert proxy.chat(name).status == 200
    assert {*proxy.running()} == {"known", "new"}
    row = _learned(proxy)["new"]
    assert 100 * MIB <= row["highest"] <= 180 * MIB
    assert proxy.stop() == 0

    again = serve(_models(), config=memory, options=state)
    assert _learned(again)["new"]["claim"] >= row["claim"]
    for name in ("known", "new"):
        assert again.chat(name).status == 200
    assert {*again.running()} == {"known", "new"}
    assert again.call("DELETE", "/api/memory/learned/none").status == 404
    forgotten = again.call("DELETE", "/api/memory/learned/new")
    assert forgotten.json() == {"model": "new", "launches": 1}


def test_memory_that_is_only_observed_is_learned_and_decides_nothing(serve: Serve) -> None:
    memory = {"mode": "observe", "pools": {"RAM": {"limit": "200MiB"}}}
    groups = {"all": {"swap": False, "members": ["known", "new"]}}
    proxy = serve(_models(), config={"memory": memory, "groups": groups})
    for name in ("known", "new"):
        assert proxy.chat(name).status == 200
    assert {*proxy.running()} == {"known", "new"}
    wait_until(lambda: {*_learned(proxy)} == {"known", "new"}, what="readings of both")
    assert proxy.get("/api/memory")["mode"] == "observe"
