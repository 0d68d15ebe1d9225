"""Long work in the event loop, by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from swapchart.adapters.proxy.body.turns import Turns


def counted(name: str, steps: int, done: list[str]) -> Generator[None, None, str]:
    try:
        for _ in range(steps):
            done.append(name)
            until = asyncio.get_running_loop().time() + 0.005  # longer than a turn
            while asyncio.get_running_loop().time() < until:
                pass
            yield
    finally:
        done.append(f"{name} ended")
    return name


def test_turns_go_round() -> None:
    """Of two that have much to do each does one step, then the other."""

    async def main() -> None:
        turns, done = Turns(), list[str]()
        names = await asyncio.gather(*(turns.run(counted(name, 3, done)) for name in "ab"))

        assert names == ["a", "b"]
        assert [name for name in done if len(name) == 1] == ["a", "b"] * 3

    asyncio.run(main())


def test_turns_leave_room_for_others() -> None:
    """Between two steps everything else that is ready runs."""

    async def main() -> None:
        turns, done = Turns(), list[str]()
        work = asyncio.ensure_future(turns.run(counted("a", 5, done)))
        between = []
        while not work.done():
            between.append(len(done))
            await asyncio.sleep(0)

        assert {1, 2, 3, 4, 5} <= set(between)

    asyncio.run(main())


def test_turns_of_a_cancelled_task_go_to_the_others() -> None:
    """Work that is given up ends at its next step, and does not hold up who comes behind it."""

    async def main() -> None:
        turns, done = Turns(), list[str]()
        first = asyncio.ensure_future(turns.run(counted("a", 10**6, done)))
        second = asyncio.ensure_future(turns.run(counted("b", 2, done)))
        await asyncio.sleep(0.02)
        first.cancel()

        assert await second == "b"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert done.index("a ended") < 10

    asyncio.run(main())


def test_turns_of_a_failed_task_go_to_the_others() -> None:
    """An error comes out of the work, and the next one has its turn."""

    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError("no")

    async def main() -> None:
        turns, done = Turns(), list[str]()
        with pytest.raises(ValueError, match="no"):
            await turns.run(failing())
        assert await turns.run(counted("a", 1, done)) == "a"

    asyncio.run(main())
