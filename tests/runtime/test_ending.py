"""Shutdown: its limit is shared between drains, hooks and grace periods."""

from __future__ import annotations

import math

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Timings
from swapchart.runtime.memory import MemoryNeed
from swapchart.runtime.testing import CommandScript, ServerScript, service

SLOW_EXIT = ServerScript(terminate_s=2.0)
SLOW_SAVE = {"save": CommandScript(takes_s=3.0)}


@pytest.mark.parametrize(("limit_s", "cut_s"), [(100.0, 30.0), (40.0, 23.0), (20.0, 10.0)])
def test_drain_leaves_time_for_hooks_and_grace(limit_s: float, cut_s: float) -> None:
    """An endless response is aborted in time for beforeStop, but not before half the limit."""
    held = service(
        "a", hooks={"beforeStop": (hook("save", timeout_s=12.0),)},
        timings=Timings(drain_limit=30.0, grace=5.0),
    )  # fmt: skip
    saved = []

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "ready")
        began = world.now
        world.spawn(world.supervisor.shutdown, limit_s)
        saved.append(await world.until("a", "before_stop") - began)
        await world.until("a", "shut_down")

    launcher = run_scenario(scenario, held, servers={"a": SLOW_EXIT}, commands=SLOW_SAVE)

    assert saved == [pytest.approx(cut_s)]
    assert [record.what for record in launcher.records][-5:-2] == ["ran", "terminate", "exit"]


def test_longest_stop_includes_every_retry() -> None:
    """Retries, pauses, grace period and settling are included."""
    hooks = {
        "beforeStop": (hook("save", timeout_s=10.0, retries=2, delay_s=1.0),),
        "afterStop": (hook("tidy", timeout_s=4.0),),
        "afterHealthy": (hook("load", timeout_s=99.0),),
    }

    assert service("a", hooks=hooks, timings=Timings(grace=5.0)).longest_stop_s() == 41.0
    assert service("a", timings=Timings(grace=None)).longest_stop_s() == math.inf


def test_longest_stop_with_memory_is_no_longer_than_without() -> None:
    """A shutdown does not wait for memory to come back, so drains get that time."""
    need = MemoryNeed(options=({"GPU0": 1},))
    spec = service("a", memory=need, timings=Timings(grace=5.0, settle=10.0))

    assert spec.longest_stop_s() == 5.0


def test_longest_stop_includes_hooks_at_custom_points() -> None:
    """They may be part of a stop, so the estimate is rather too long than too short."""
    hooks = {"beforeDrain": (hook("tell", timeout_s=7.0),), "wake": (hook("w", timeout_s=99.0),)}

    assert service("a", hooks=hooks, timings=Timings(grace=5.0)).longest_stop_s() == 12.0
