"""Idle limits that requests set: `Lifecycle.keep_for`."""

from __future__ import annotations

import math
from dataclasses import replace

import anyio
import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Command, ServiceSpec, Timings
from swapchart.runtime.testing import service

ASLEEP = {"suspend": (hook("doze"),), "wake": (hook("wake"),)}


async def ready(world: World, name: str = "a") -> None:
    await world.supervisor.load(name)


def kept(seconds: float, spec: ServiceSpec, stops_after_s: float | None) -> None:
    """Check when a service stops after a request that sets *seconds*; None means never."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        world["a"].keep_for(seconds)
        await anyio.sleep(20_000.0)
        assert world["a"].state == "ready"  # a request is in flight
        client.finish()
        await world.moment()
        if stops_after_s is None:
            await anyio.sleep(80_000.0)
            assert world["a"].state == "ready"
        else:
            assert await world.until("a", "stopped") >= stops_after_s - 0.001
            stopping = next(record for record in world.trace if record.event == "idle_expired")
            ready_s = stopping.at - (client.ended_at or 0.0)
            assert ready_s == pytest.approx(stops_after_s, abs=0.001)

    run_scenario(scenario, spec)


@pytest.mark.parametrize(
    ("seconds", "timings", "stops_after_s"),
    [
        (300.0, Timings(), 300.0),
        (300.0, Timings(idle_limit=60.0), 300.0),
        (5.0, Timings(idle_limit=60.0), 5.0),
        (0.0, Timings(idle_limit=60.0), 0.0),
        (math.inf, Timings(idle_limit=60.0), None),
        (300.0, Timings(idle_limit=60.0, keep_limit=100.0), 100.0),
        (math.inf, Timings(keep_limit=100.0), 100.0),
        (5.0, Timings(keep_limit=100.0), 5.0),
        (300.0, Timings(doze_limit=30.0), 300.0),
        (math.inf, Timings(doze_limit=30.0, idle_limit=60.0), None),
    ],
)
def test_keep_for_replaces_the_idle_limit(
    seconds: float, timings: Timings, stops_after_s: float | None
) -> None:
    """The time counts from the end of the last request, up to the longest that is allowed."""
    kept(seconds, service("a", timings=timings, hooks=ASLEEP), stops_after_s)


def test_keep_for_has_no_effect_on_pinned_and_unstoppable_services() -> None:
    """A pinned service stays, and so does a server that no command stops."""
    kept(0.0, service("a", pinned=True, timings=Timings(idle_limit=60.0)), None)
    command = Command(argv=("serve",), is_external=True)
    kept(0.0, replace(service("a"), command=command, check_url=None), None)


def test_keep_for_lasts_until_another_value_or_the_next_start() -> None:
    """Requests that set nothing change nothing; a new run has the limit of the specification."""

    async def scenario(world: World) -> None:
        await ready(world)
        world["a"].keep_for(500.0)
        await anyio.sleep(400.0)
        await ready(world)
        await anyio.sleep(499.0)
        assert world["a"].state == "ready"
        world["a"].keep_for(10.0)  # while it is idle: since 499 s
        await world.moment()
        assert world["a"].state == "stopped"
        await ready(world)
        assert (world["a"].deadline("idle_limit") or 0) - anyio.current_time() == 60.0

    run_scenario(scenario, service("a", timings=Timings(idle_limit=60.0)))


def test_keep_for_while_idle_moves_the_limits() -> None:
    """An armed limit is moved, removed and set again; a limit of sleep is set again with a run."""

    async def scenario(world: World) -> None:
        await ready(world)
        began = anyio.current_time()
        await anyio.sleep(10.0)
        world["a"].keep_for(100.0)
        assert world["a"].deadline("idle_limit") == pytest.approx(began + 100.0)
        assert world["a"].deadline("doze_limit") is None
        world["a"].keep_for(math.inf)
        assert world["a"].deadline("idle_limit") is None
        world["a"].keep_for(100.0)
        assert world["a"].deadline("idle_limit") == pytest.approx(anyio.current_time() + 100.0)
        world.supervisor.update(service("a", timings=Timings(idle_limit=60.0, keep_limit=50.0)))
        assert world["a"].deadline("idle_limit") == pytest.approx(anyio.current_time() + 50.0)

    run_scenario(
        scenario, service("a", timings=Timings(idle_limit=60.0, doze_limit=30.0), hooks=ASLEEP)
    )


def test_keep_for_none_restores_the_limits_of_the_specification() -> None:
    """The idle limit and the limit until sleep count anew; the next run is not kept either."""

    async def scenario(world: World) -> None:
        await ready(world)
        world["a"].keep_for(math.inf)
        assert world["a"].is_kept
        await anyio.sleep(500.0)
        world["a"].keep_for(None)
        assert not world["a"].is_kept
        assert world["a"].deadline("idle_limit") == pytest.approx(anyio.current_time() + 60.0)
        assert world["a"].deadline("doze_limit") == pytest.approx(anyio.current_time() + 30.0)
        world["a"].keep_for(math.inf)
        await world["a"].stop()
        assert not world["a"].is_kept

    run_scenario(
        scenario, service("a", timings=Timings(idle_limit=60.0, doze_limit=30.0), hooks=ASLEEP)
    )


def test_keep_for_never_pins() -> None:
    """A service without idle limit is evicted for another one, as any idle service."""

    async def scenario(world: World) -> None:
        await ready(world)
        world["a"].keep_for(math.inf)
        await ready(world, "b")
        assert (world["a"].state, world["b"].state) == ("stopped", "ready")

    run_scenario(scenario, service("a"), service("b"))
