"""Overlap of a start with a stop: only as far as the sum of memory allows it."""

from __future__ import annotations

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import MemoryLedger
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.testing import CommandScript, ServerScript, service

GIB = 1 << 30
SAVE_S, START_S = 20.0, 5.0
#: Size of the pool in GiB -> whether two services of 4 GiB fit.
SIZES = {8: True, 7: False}


@pytest.mark.parametrize(("size_gib", "fits"), SIZES.items())
@pytest.mark.parametrize("seed", range(5))
def test_start_overlaps_a_stop_only_where_both_fit(size_gib: int, fits: bool, seed: int) -> None:
    """With room for both the start waits for nothing, else for all of the stop."""
    ledger = MemoryLedger([Pool(name="GPU0", capacity=size_gib * GIB)])

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "before_stop")
        began = world.now
        client = world.client("b")
        await world.until("b", "ready")
        waited_s = world.now - began
        if fits:
            assert world["a"].state == "before_stop"
            assert waited_s == pytest.approx(START_S, abs=0.6)
        else:
            assert world["a"].state == "stopped"
            assert waited_s == pytest.approx(SAVE_S + START_S, abs=1.6)
        assert ledger.free("GPU0") >= 0
        client.finish()

    need = MemoryNeed(options=({"GPU0": 4 * GIB},))
    run_scenario(
        scenario,
        service("a", memory=need, hooks={"beforeStop": (hook("save"),)}),
        service("b", memory=need, endpoint="http://127.0.0.1:5801"),
        servers={"a": ServerScript(healthy_s=1.0), "b": ServerScript(healthy_s=START_S)},
        commands={"save": CommandScript(takes_s=SAVE_S)},
        policy=no_evictions, memory=ledger, seed=seed,
    )  # fmt: skip


def test_start_overlaps_no_stop_of_a_service_that_it_evicts() -> None:
    """What is evicted for a start is gone before the start begins."""
    ledger = MemoryLedger([Pool(name="GPU0", capacity=9 * GIB)])

    async def scenario(world: World) -> None:
        for name in ("a", "b"):
            await world.supervisor.load(name)
        await world.supervisor.load("c")
        (stopped,) = [r.at for r in world.trace if r.service != "c" and r.target == "stopped"]
        (started,) = [r.at for r in world.trace if r.service == "c" and r.target == "before_start"]
        assert started >= stopped
        assert sorted(world[name].state for name in "abc") == ["ready", "ready", "stopped"]

    need = MemoryNeed(options=({"GPU0": 4 * GIB},))
    specs = [
        service(name, memory=need, endpoint=f"http://127.0.0.1:{5800 + number}")
        for number, name in enumerate("abc")
    ]
    run_scenario(
        scenario, *specs, policy=no_evictions, memory=ledger,
        servers=dict.fromkeys("abc", ServerScript(healthy_s=1.0, terminate_s=3.0)),
    )  # fmt: skip
