"""Memory of the machine decides which models run together, on real processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Edited, Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

MIB = 1 << 20
NEEDS = {"a": 250, "b": 120, "c": 150, "huge": 450}


def _model(name: str, allocated: int | None = None, **keys: Any) -> dict[str, Any]:
    mib = NEEDS[name]
    options = ("--allocate-mib", str(allocated or mib - 60), "--quiet")
    return demo_model(name, *options, memory=f"{mib}MiB", **keys)


def _serve(serve: Serve, models: dict[str, Any]) -> SwapchartProcess:
    memory = {"pools": {"RAM": {"limit": "400MiB"}}}
    return serve(models, config={"memory": memory})


def _memory(proxy: SwapchartProcess) -> dict[str, Any]:
    state: dict[str, Any] = proxy.get("/api/memory")
    return state


def test_memory_models_that_fit_run_together_and_the_cheapest_goes(serve: Serve) -> None:
    proxy = _serve(serve, {name: _model(name) for name in NEEDS})

    for name in ("a", "b"):
        assert proxy.chat(name).status == 200
    assert {*proxy.running()} == {"a", "b"}
    explained = proxy.get("/api/models/c/explain")
    assert explained["outcome"] == "swap"
    assert explained["memory"][0].startswith("c on RAM: ")
    assert proxy.chat("c").status == 200
    gone = {"a", "b"} - {*proxy.running()}
    assert gone == {*explained["evict"]}
    assert len(gone) == 1

    refused = proxy.chat("huge")
    assert refused.status == 503
    assert refused.json()["error"]["code"] == "memory_infeasible"
    assert "at most 400 MiB of RAM can ever be free" in refused.json()["error"]["message"]


def test_memory_of_a_model_is_measured_and_counts_if_it_is_more(serve: Serve) -> None:
    """A model that takes more than it declares counts with what it takes."""
    proxy = _serve(serve, {"b": _model("b", 260), "c": _model("c")})
    assert proxy.chat("b").status == 200

    def is_measured() -> bool:
        rows = _memory(proxy)["models"]
        return bool(rows) and rows[0]["seen"].get("RAM", 0) >= 260 * MIB

    wait_until(is_measured)
    state = _memory(proxy)
    assert state["models"][0]["claim"] == {"RAM": 120 * MIB}
    assert 260 * MIB <= state["models"][0]["seen"]["RAM"] < 320 * MIB
    (pool,) = [pool for pool in state["pools"] if pool["name"] == "RAM"]
    assert (pool["limit"], pool["stale"], pool["source"]) == (400 * MIB, False, "meminfo")
    assert pool["held"] == state["models"][0]["seen"]["RAM"]
    assert proxy.chat("c").status == 200
    assert [*proxy.running()] == ["c"]
    metrics = proxy.call("GET", "/metrics").body.decode()
    assert 'swapchart_memory_held_bytes{device="",kind="ram",node="",pool="RAM"}' in metrics
    assert 'swapchart_memory_plans_total{kind="evict"} 1.0' in metrics


def test_memory_need_changes_by_a_reload_without_a_restart(serve: Serve) -> None:
    memory = {"pools": {"RAM": {"limit": "400MiB"}}}
    live = Edited(serve, {"a": _model("a"), "c": _model("c")}, memory=memory)
    assert live.proxy.chat("a").status == 200
    pid = live.pid("a")
    live.value["models"]["a"]["memory"] = "200MiB"
    live.reload()

    assert _memory(live.proxy)["models"][0]["claim"] == {"RAM": 200 * MIB}
    assert live.pid("a") == pid


def _command(proxy: SwapchartProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "swapchart", *arguments, "--url"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{proxy.port}"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_memory_commands_print_pools_and_the_sum_of_a_plan(serve: Serve) -> None:
    proxy = _serve(serve, {name: _model(name) for name in ("a", "b", "c")})
    for name in ("a", "b"):
        assert proxy.chat(name).status == 200

    pools = _command(proxy, "memory")
    assert re.search(r"^RAM: .* limit 400 MiB, .* \d+ MiB free$", pools, re.M)
    assert re.search(r"^ +\d+ MiB  a \(ready, declared, .*idle for \d+ s\)$", pools, re.M)
    planned = _command(proxy, "plan", "c")
    assert re.match(r"c \(stopped\): swap, which evicts [ab]\n  c on RAM: ", planned)
    assert "  goes: " in planned
    (pool,) = json.loads(_command(proxy, "memory", "--json"))["pools"]
    assert pool["name"] == "RAM"


def test_config_check_with_a_url_prints_the_notices_of_the_proxy(serve: Serve) -> None:
    """They are warnings, as is a proxy that does not respond; the configuration can be used."""
    model = demo_model("a", "--allocate-mib", "80", "--quiet", memory="10MiB")
    proxy = _serve(serve, {"a": model})
    assert proxy.chat("a").status == 200
    wait_until(lambda: _memory(proxy)["notices"], what="a notice")
    path = str(proxy.folder / "config.yaml")

    said = _command(proxy, "config", "check", path).splitlines()
    assert re.fullmatch(
        r"warning: memory: a has held \d+ MiB of RAM and declares 10 MiB: raise its `memory`",
        said[0],
    )
    assert said[1:] == [f"{path}: ok, with 1 warning"]
    assert proxy.stop() == 0
    said = _command(proxy, "config", "check", path).splitlines()
    assert said[0].startswith("warning: memory: no response from http://127.0.0.1:")
    assert said[1:] == [f"{path}: ok, with 1 warning"]


def test_memory_commands_say_that_memory_is_off(serve: Serve) -> None:
    proxy = serve({"a": _model("a")})
    assert _command(proxy, "memory").startswith("memory is no condition")
    assert _command(proxy, "plan", "a") == "a (stopped): start\n"


def test_memory_can_be_turned_on_and_off_by_a_reload(serve: Serve) -> None:
    live = Edited(serve, {"a": _model("a"), "b": _model("b")})
    assert live.proxy.chat("a").status == 200
    pid = live.pid("a")
    live.value["memory"] = {"pools": {"RAM": {"limit": "400MiB"}}}
    live.reload()

    state = _memory(live.proxy)
    assert [pool["name"] for pool in state["pools"]] == ["RAM"]
    assert state["models"][0]["claim"] == {"RAM": 250 * MIB}
    assert live.proxy.chat("b").status == 200
    assert live.pid("a") == pid
    del live.value["memory"]
    live.reload()
    assert _memory(live.proxy)["mode"] == "off"
    assert {*live.proxy.running()} == {"a", "b"}


def test_memory_off_gives_no_pools(serve: Serve) -> None:
    proxy = serve({"a": _model("a")})
    assert proxy.chat("a").status == 200
    state = _memory(proxy)
    assert (state["mode"], state["pools"], state["models"]) == ("off", [], [])
    assert "swapchart_memory" not in proxy.call("GET", "/metrics").body.decode()


def test_memory_preloads_in_order_what_fits_and_evicts_nothing_for_the_rest(serve: Serve) -> None:
    memory = {"pools": {"RAM": {"limit": "400MiB"}}}
    preload = {"on_startup": {"preload": ["a", "b", "c"]}}
    models = {name: _model(name) for name in ("a", "b", "c")}
    proxy = serve(models, config={"memory": memory, "hooks": preload})
    proxy.wait_said("c is not preloaded: RAM: 400 MiB limit - 370 MiB held = 30 MiB free")
    assert {*proxy.running()} == {"a", "b"}
    assert proxy.chat("c").status == 200, "a request may evict"
