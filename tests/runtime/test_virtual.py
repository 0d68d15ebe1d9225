"""The loop on virtual time, which every other test here stands on."""

from __future__ import annotations

import asyncio
import math

import anyio
import anyio.lowlevel
import pytest

from swapchart.runtime.testing import DeadlockError, LeftoverError, LivelockError, run_virtual


def test_virtual_time_jumps_to_the_next_timer() -> None:
    """A day of sleep is over at once, and the clock says that it was a day."""

    async def main() -> float:
        began = anyio.current_time()
        await anyio.sleep(86_400)
        return anyio.current_time() - began

    assert run_virtual(main) == 86_400


def test_virtual_timers_fire_in_order() -> None:
    """Whoever sleeps shorter wakes first, whatever the order in which they lay down."""
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
    """What became ready first runs first."""
    assert order(None) == list(range(8))


def test_virtual_loop_seed_repeats_its_order_and_seeds_differ() -> None:
    """The same seed shuffles the same way; ten seeds do not all agree."""
    assert [order(seed) for seed in range(10)] == [order(seed) for seed in range(10)]
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("seconds", [None, math.inf])
def test_virtual_loop_deadlock_raises_with_the_place(seconds: float | None) -> None:
    """A main function that waits for what cannot come ends with the place where it waits."""

    async def stuck() -> None:
        if seconds is None:
            await anyio.Event().wait()
        else:
            await anyio.sleep(seconds)

    with pytest.raises(DeadlockError, match=r"all tasks wait forever\n.*stuck"):
        run_virtual(stuck)


def test_virtual_loop_deadlock_runs_the_cleanup() -> None:
    """Before the error comes out, every task was cancelled and could clean up."""
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
    """Tasks that wake each other for ever are told from ones that wait."""

    async def main() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(LivelockError, match="time does not advance"):
        run_virtual(main)


def test_virtual_loop_task_left_behind_raises() -> None:
    """A main function that returns has to have ended what it started."""
    kept = []

    async def main() -> None:
        kept.append(asyncio.create_task(anyio.sleep(1.0)))

    with pytest.raises(LeftoverError, match="sleep"):
        run_virtual(main)

    assert kept[0].cancelled()


def test_virtual_loop_error_in_a_callback_raises() -> None:
    """A callback that raises fails the run, though nobody awaits it."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await anyio.sleep(1.0)

    with pytest.raises(LeftoverError, match="ZeroDivisionError"):
        run_virtual(main)


def test_virtual_loop_error_of_main_is_raised_unchanged() -> None:
    """Whatever main raises, run_virtual raises."""

    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main)
