"""Virtual time: the event loop of these tests."""

from __future__ import annotations

import asyncio
import math

import anyio
import anyio.lowlevel
import pytest

from swapchart.runtime.testing import DeadlockError, LeftoverError, LivelockError, run_virtual


def test_virtual_time_jumps_to_the_next_timer() -> None:
    """A day of sleep takes no real time, and the clock shows a day."""

    async def main() -> float:
        began = anyio.current_time()
        await anyio.sleep(86_400)
        return anyio.current_time() - began

    assert run_virtual(main) == 86_400


def test_virtual_timers_fire_in_order() -> None:
    """Shorter sleeps end first, in any order of their beginning."""
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for seconds in (3.0, 1.0, 2.0):
                tasks.start_soon(sleep, seconds)

    run_virtual(main, seed=1)

    assert woken == [1.0, 2.0, 3.0]


def order(seed: int | None) -> list[int]:
    seen: list[int] = []

    async def note(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(note, number)

    run_virtual(main, seed=seed)
    return seen


def test_virtual_loop_without_a_seed_keeps_the_order_of_asyncio() -> None:
    """Tasks run in the order in which they became ready."""
    assert order(None) == list(range(8))


def test_virtual_loop_seed_repeats_its_order_and_seeds_differ() -> None:
    """The same seed gives the same order; ten seeds do not all agree."""
    assert [order(seed) for seed in range(10)] == [order(seed) for seed in range(10)]
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("seconds", [None, math.inf])
def test_virtual_loop_deadlock_raises_with_the_place(seconds: float | None) -> None:
    """The error says where the main function waits."""

    async def stuck() -> None:
        if seconds is None:
            await anyio.Event().wait()
        else:
            await anyio.sleep(seconds)

    with pytest.raises(DeadlockError, match=r"all tasks wait forever\n.*stuck"):
        run_virtual(stuck)


def test_virtual_loop_deadlock_runs_the_cleanup() -> None:
    """Every task was cancelled and could clean up before the error is raised."""
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            cleaned.append("main")

    with pytest.raises(DeadlockError):
        run_virtual(main)

    assert cleaned == ["main"]


def test_virtual_loop_busy_loop_raises() -> None:
    """Tasks that wake each other forever are told apart from waiting ones."""

    async def main() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(LivelockError, match="time does not advance"):
        run_virtual(main)


def test_virtual_loop_task_left_behind_raises() -> None:
    """A main function must end the tasks that it started."""
    kept = []

    async def main() -> None:
        kept.append(asyncio.create_task(anyio.sleep(1.0)))

    with pytest.raises(LeftoverError, match="sleep"):
        run_virtual(main)

    assert kept[0].cancelled()


def test_virtual_loop_error_in_a_callback_raises() -> None:
    """A callback that raises fails the run."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await anyio.sleep(1.0)

    with pytest.raises(LeftoverError, match="ZeroDivisionError"):
        run_virtual(main)


def test_virtual_loop_error_of_main_is_raised_unchanged() -> None:
    """run_virtual raises the exceptions of main."""

    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main)
