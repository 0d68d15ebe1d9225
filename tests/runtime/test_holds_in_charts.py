"""Holds in charts of one's own: guards read the true number of requests in flight."""

from __future__ import annotations

from typing import Any

import pytest
from tools.virtual import World, run_scenario

from swapchart.machine import Document, lifecycle, merge
from swapchart.machine.digest import proof_digest_of
from swapchart.runtime import chart_check
from swapchart.runtime.testing import service


def changed(overlay: dict[str, Any]) -> Document:
    """Return the shipped chart with *overlay*, noted as one that the checker has explored."""
    chart = merge(lifecycle(), overlay)
    chart_check._passed.add(proof_digest_of(chart))
    return chart


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_check, "_passed", set())


def crowded() -> Document:
    """Return a chart that notes whether three requests or more are in flight."""
    return changed({
        "data": {"crowded": {"initial": False, "values": [False, True]}},
        "actions": {
            "admit_waiter": {
                "do": {"effect": "waiter.admit"},
                "set": {"in_flight": "in_flight + 1", "crowded": "in_flight >= 2"},
            },
            "release": {"set": {"in_flight": "max(in_flight - 1, 0)", "crowded": "in_flight > 3"}},
        },
    })  # fmt: skip


@pytest.mark.parametrize("leases", [0, 2])
@pytest.mark.parametrize(
    "counts", [(1, 0), (2, 3, 2), (5, 4, 3, 2, 0), (9, 1, 9), (3, 3, 10**9, 0)]
)
def test_hold_gives_guards_the_true_number(counts: tuple[int, ...], leases: int) -> None:
    """Whatever it was before, and beside leases."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        clients = [world.client("a") for _ in range(leases)]
        await world.moment()
        for count in counts:
            assert supervisor.hold("a", count) == count
            total = count + leases
            assert world["a"].in_flight == world["a"].variable("in_flight") == total
            assert world["a"].variable("crowded") is (total >= 3)
            assert supervisor.scheduler.services["a"].granted == total
        for client in clients:
            client.finish()

    run_scenario(scenario, service("a", chart=crowded()))


def test_hold_that_falls_is_seen_by_a_drain() -> None:
    """A guard of a drain that goes on with one request left waits for that number."""
    chart = changed({"guards": {"idle": "in_flight <= 1"}})

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        supervisor.hold("a", 5)
        world["a"].stop_nowait()
        await world.moment()
        assert world["a"].state == "draining"
        assert (supervisor.hold("a", 2), world["a"].state) == (2, "draining")
        supervisor.hold("a", 1)
        await world.until("a", "stopped")
        assert (world["a"].in_flight, supervisor.scheduler.services["a"].granted) == (0, 0)

    run_scenario(scenario, service("a", chart=chart))


def test_hold_beyond_the_limit_of_a_chart_counts_and_leases_do_not() -> None:
    """The uses exist, so the service stays; a further request is refused by the guard."""
    chart = changed({
        "guards": {"is_full": "in_flight >= 3"},
        "states": {"ready": {"transitions_before": [
            {"event": "request", "cond": "is_full", "on": "reject_waiter"},
        ]}},
    })  # fmt: skip

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        assert supervisor.hold("a", 5) == 5
        assert world["a"].in_flight == 5
        client = world.client("a")
        await world.moment()
        assert client.outcome not in ("waiting", "served")
        assert supervisor.hold("a", 6) == 5
        assert supervisor.hold("a", 2) == 2
        client = world.client("a")
        await world.moment()
        assert client.outcome == "served"
        client.finish()
        await world.moment()
        assert supervisor.hold("a", 0) == 0
        assert supervisor.scheduler.services["a"].granted == 0

    run_scenario(scenario, service("a", chart=chart))


def test_hold_of_a_process_that_crashes_leaves_no_count() -> None:
    """The next process begins with none."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        client = world.client("a")
        await world.moment()
        supervisor.hold("a", 7)
        world.launcher.crash("a")
        client.finish()
        await world.until("a", "backoff", "stopped")
        await world.moment()
        assert world["a"].variable("in_flight") == 0
        assert supervisor.scheduler.services["a"].granted == 0
        await supervisor.load("a")
        assert supervisor.hold("a", 2) == 2

    run_scenario(scenario, service("a", chart=crowded()))
