"""Timers and pending requests."""

from __future__ import annotations

from itertools import accumulate

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, none, tuples
from tools.rows import row
from tools.virtual import suspend

from swapchart.runtime import RequestError
from swapchart.runtime.testing import run_virtual
from swapchart.runtime.timers import Timer, TimerService
from swapchart.runtime.waiter import PendingRequest

#: (whole seconds before the call, timer, delay in whole seconds and a fraction; None disarms)
Order = tuple[int, int, int | None]
ORDERS = lists(tuples(integers(0, 3), integers(0, 2), integers(0, 6) | none()), max_size=25)
A_BIT = 0.125  # so that no timer is due at the instant of a call


def naive(orders: list[Order]) -> list[tuple[float, int]]:
    """Return what must fire and when: each arming, unless the timer gets another one before."""
    times = list(accumulate(pause for pause, _, _ in orders))
    fired = []
    for number, (_, timer, delay) in enumerate(orders):
        if delay is not None:
            at = times[number] + delay + A_BIT
            later = [times[n] for n in range(number + 1, len(orders)) if orders[n][1] == timer]
            if not later or later[0] > at:
                fired.append((at, timer))
    return sorted(fired)


@given(ORDERS)
def test_timers_fire_as_a_naive_model_does_for_any_sequence(orders: list[Order]) -> None:
    """Each timer fires as its last arming or disarming says."""
    fired: list[tuple[float, int]] = []

    async def main() -> None:
        service = TimerService()
        began = service.now()
        timers = [service.timer(lambda i=i: fired.append((service.now() - began, i)))  # type: ignore[misc]
                  for i in range(3)]  # fmt: skip
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            for pause, which, delay in orders:
                if pause:
                    await anyio.sleep(pause)
                if delay is None:
                    timers[which].disarm()
                else:
                    timers[which].arm(delay + A_BIT)
            await anyio.sleep(10.0)
            tasks.cancel_scope.cancel()

    run_virtual(main)

    assert sorted(fired) == naive(orders)


def test_timer_moved_later_adds_no_heap_entry() -> None:
    """An idle limit that is armed after each of 1,000 requests has one entry."""

    async def main() -> None:
        service = TimerService()
        timer = service.timer(lambda: None)
        for _ in range(1000):
            timer.arm(60.0)

        assert len(service._heap) == 1

    run_virtual(main)


def test_timer_that_rearms_at_once_lets_others_run() -> None:
    """An action that is due again immediately does not block the loop."""
    fired: list[str] = []

    async def main() -> None:
        service = TimerService()

        def again() -> None:
            fired.append("busy")
            busy.arm(0.0)

        busy: Timer = service.timer(again)
        busy.arm(0.0)
        service.timer(lambda: fired.append("other")).arm(0.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            while fired.count("busy") < 3:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    run_virtual(main)

    assert "other" in fired[:3]


def test_timer_with_a_past_deadline_fires_at_once() -> None:
    """arm_at accepts any time."""
    fired: list[float] = []

    async def main() -> None:
        service = TimerService()
        service.timer(lambda: fired.append(service.now())).arm_at(service.now() - 5.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            await anyio.sleep(1.0)
            tasks.cancel_scope.cancel()

    run_virtual(main)

    assert fired == [1000.0]


@pytest.mark.parametrize("call", range(12))
@row("A36")
def test_timer_after_a_pause_of_the_process_is_extended(call: int) -> None:
    """After SIGSTOP at any reading of the clock, the timer still has its five seconds.

    The process may be suspended between the arming and the first check of the service, or during a
    check: a response that it has just written may cause the SIGSTOP.
    """
    fired: list[float] = []
    calls = 0

    async def main() -> None:
        service = TimerService()
        clock = service.now

        def now() -> float:
            nonlocal calls
            calls += 1
            read = clock()
            if calls == call:
                suspend(60.0)
            return read

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            await anyio.sleep(1.0)
            armed_at = clock()
            service.now = now
            service.suspend_tolerant_timer(lambda: fired.append(clock() - armed_at)).arm(5.0)
            await anyio.sleep(100.0)
            tasks.cancel_scope.cancel()

    run_virtual(main)

    (waited_s,) = fired
    suspended_s = 60.0 if call and calls >= call else 0.0
    assert 5.0 + suspended_s <= waited_s
    if call != 1:  # else it was suspended before the five seconds began, which also counts
        assert waited_s <= 6.0 + suspended_s


def test_timer_after_a_long_time_without_timers_is_not_extended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody looked at the clock meanwhile, but the process was not suspended."""
    fired: list[float] = []

    async def main() -> None:
        service = TimerService()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            for begins in (3600.0, 9000.0):
                await anyio.sleep(begins - service.now())
                service.suspend_tolerant_timer(lambda: fired.append(service.now())).arm(5.0)
            await anyio.sleep(100.0)
            tasks.cancel_scope.cancel()

    run_virtual(main)
    assert fired == [3605.0, 9005.0]
    assert "suspended" not in caplog.text


@pytest.mark.parametrize("early", [True, False])
def test_pending_request_is_notified_of_its_admission(early: bool) -> None:
    """The decision may come before or after the wait begins."""

    async def main() -> None:
        waiter = PendingRequest()
        if early:
            waiter.admit()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter.wait)
            await anyio.sleep(1.0)
            if not early:
                waiter.admit()

        assert waiter.admitted is True

    run_virtual(main)


@pytest.mark.parametrize("early", [True, False])
def test_pending_request_is_notified_of_its_refusal(early: bool) -> None:
    """wait() raises the error of the refusal."""

    async def main() -> None:
        waiter = PendingRequest()
        error = RequestError("because", "of that")

        async def wait() -> None:
            with pytest.raises(RequestError, match="of that"):
                await waiter.wait()

        if early:
            waiter.refuse(error)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1.0)
            if not early:
                waiter.refuse(error)

        assert waiter.admitted is False

    run_virtual(main)


@pytest.mark.parametrize("second", ["admit", "refuse"])
@pytest.mark.parametrize("first", ["admit", "refuse"])
def test_pending_request_decided_twice_raises(first: str, second: str) -> None:
    """A request has exactly one decision."""
    error = RequestError("because", "of that")
    waiter = PendingRequest()

    def decide(how: str) -> None:
        waiter.admit() if how == "admit" else waiter.refuse(error)

    decide(first)

    with pytest.raises(AssertionError, match="decided twice"):
        decide(second)
