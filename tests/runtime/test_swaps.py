"""Swaps have one id from the first eviction to the last hook, which requests know too."""

from __future__ import annotations

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Exit, RequestWait, Timings, Transition
from swapchart.runtime.request_wait import SWAP_CAUSES, Swap
from swapchart.runtime.swaps import SwapLedger
from swapchart.runtime.testing import CommandScript, ServerScript, service


def swaps_of(trace: list[Transition]) -> list[tuple[str, str, list[str]]]:
    """Return (cause, id of the request, services) of each swap, in order."""
    assert all(record.swap is not None for record in trace), "each of them starts or stops"
    found: dict[Swap | None, list[str]] = {}
    for record in trace:
        services = found.setdefault(record.swap, [])
        if record.service not in services:
            services.append(record.service)
    return [(swap.cause, swap.request_id, names) for swap, names in found.items() if swap]


def test_swap_is_one_chain_from_the_request_over_the_eviction_to_the_start() -> None:
    """The eviction of a and the start of b have one id, that of the request for b."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.at(20.0)
        world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.supervisor.unload("b")
        assert swaps_of(world.trace) == [
            ("request", "for-a", ["a"]),
            ("request", "for-b", ["a", "b"]),
            ("unload", "", ["b"]),
        ]

    run_scenario(scenario, service("a"), service("b"))


def test_wait_is_divided_into_queue_eviction_start_and_hooks() -> None:
    """The parts are those of the scripts, and their sum is the whole wait."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=10.0)
        await world.until("a", "ready")
        began = world.now
        client = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        wait = client.wait
        assert wait.queue_s == pytest.approx(10.0, abs=0.1)
        assert wait.evict_s == pytest.approx(2.0 + 0.5, abs=0.1)
        assert wait.start_s == pytest.approx(5.0, abs=0.1)
        assert wait.start_hooks_s == pytest.approx(3.0, abs=0.1)
        total = wait.queue_s + wait.evict_s + wait.start_s + wait.start_hooks_s
        assert total == pytest.approx(world.now - began, abs=0.1)
        assert wait.resident == ("a",)
        assert wait.evicted == ["a"]
        assert [why for _, why in wait.reasons] == ["a has 1 requests in flight", "evicting a"]
        assert wait.swap is world.trace[-1].swap

    run_scenario(
        scenario,
        service("a", hooks={"beforeStop": (hook("save"),)}),
        service("b", hooks={"beforeStart": (hook("prepare"),)}),
        servers={"a": ServerScript(terminate_s=2.0), "b": ServerScript(healthy_s=5.0)},
        commands={"save": CommandScript(takes_s=0.5), "prepare": CommandScript(takes_s=3.0)},
    )


def test_wait_of_a_start_that_failed_is_recorded() -> None:
    """The request knows how long the start took until it failed, and for which swap it was."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        while client.ended_at is None:
            await world.at(world.now + 1.0)
        assert client.error is not None
        assert client.wait.start_s == pytest.approx(4.0, abs=0.1)
        assert client.wait.swap is world.trace[0].swap
        assert client.wait.ended_at == pytest.approx(client.ended_at, abs=0.1)

    run_scenario(
        scenario, service("a"),
        servers={"a": ServerScript(healthy_s=None, exit_s=4.0, exit=Exit(code=7))},
    )  # fmt: skip


def test_requests_that_come_later_wait_for_the_same_swap() -> None:
    """Whether they come during the eviction or during the start."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.at(20.0)
        first = world.client("b", hold_s=1.0)
        await world.at(21.0)
        second = world.client("b", hold_s=1.0)
        await world.at(23.5)
        third = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        swap = first.wait.swap
        assert swap is not None
        assert second.wait.swap is third.wait.swap is swap
        assert second.wait.evicted == ["a"]
        assert second.wait.queue_s == 0.0
        assert (third.wait.evicted, third.wait.evict_s) == ([], 0.0)
        assert third.wait.start_s == pytest.approx(3.5, abs=0.1)

    run_scenario(
        scenario, service("a"), service("b"),
        servers={"a": ServerScript(terminate_s=2.0), "b": ServerScript(healthy_s=5.0)},
    )  # fmt: skip


def test_swap_whose_client_left_gives_its_id_to_no_later_start() -> None:
    """The eviction goes on, and a request that comes after it begins a swap of its own."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.at(20.0)
        left = world.client("b")
        await world.at(21.0)
        left.leave()
        await world.until("a", "stopped")
        later = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        assert left.wait.swap is not None
        assert left.wait.evict_s == pytest.approx(1.0, abs=0.1)
        assert later.wait.swap is not left.wait.swap
        assert later.wait.evicted == []

    run_scenario(scenario, service("a"), service("b"), servers={"a": ServerScript(terminate_s=5.0)})


def test_swaps_name_the_command_or_the_limit_that_began_them() -> None:
    """A load, an idle limit and the shutdown are no requests."""
    traces: list[list[Transition]] = []

    async def scenario(world: World) -> None:
        traces.append(world.trace)
        await world.supervisor.load("a")
        await world.until("a", "stopped")
        await world.supervisor.load("a", cause="preload")

    run_scenario(scenario, service("a", timings=Timings(idle_limit=30.0)))

    causes = [cause for cause, _, _ in swaps_of(traces[0])]
    assert causes[:4] == ["load", "idle", "preload", "shutdown"]


def test_crash_and_the_restart_after_it_are_one_swap() -> None:
    """It has failed by itself, so no request is named."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        await world.at(world.now + 11.0)
        client.finish()
        await world.until("a", "ready")
        assert [cause for cause, _, _ in swaps_of(world.trace)] == ["request", "failure"]

    run_scenario(
        scenario, service("a", restart="permanent"),
        servers={"a": ServerScript(exit_s=10.0, exit=Exit(code=7))},
    )  # fmt: skip


def test_reasons_of_a_wait_are_bounded_and_leave_changing_numbers_out() -> None:
    """A wait of hours has eight reasons at most, of which the last is the latest."""
    wait = RequestWait()
    for left in range(30, 0, -1):
        wait.note_reason(30.0 - left, f"a stays for another {left}.0 s")
    assert len(wait.reasons) == 1
    for number in range(20):
        wait.note_reason(50.0 + number, f"the swap to {'x' * number} is under way")
    wait.note_reason(80.0, "")

    assert len(wait.reasons) == 8
    assert wait.reasons[-1] == (69.0, f"the swap to {'x' * 19} is under way")


def test_wait_that_never_came_to_the_scheduler_has_no_durations() -> None:
    wait = RequestWait()
    assert (wait.queue_s, wait.evict_s, wait.start_s) == (0.0, 0.0, 0.0)


def test_ids_of_two_ledgers_differ() -> None:
    """Both may be in one journal."""
    ids = {SwapLedger().begin(cause).id for cause in SWAP_CAUSES}
    assert len(ids) == len(SWAP_CAUSES)
