"""Virtual clock: an asyncio loop whose time advances only when no task is ready.

The loop has no selector, hence no threads, sockets or signals.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_EPOCH_S = 1000.0
_MOST_TURNS = 200_000


class DeadlockError(RuntimeError):
    """Every task waits for an event that cannot happen."""


class LivelockError(RuntimeError):
    """Tasks wake each other repeatedly and time does not advance."""


class LeftoverError(RuntimeError):
    """The main function has ended, but its tasks or unhandled errors are left."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time advances only when no task is ready; see `run_virtual`.

    Args:
        seed: Shuffles tasks that are ready at the same instant; None keeps asyncio's order.

    Attributes:
        turns: Number of iterations of the loop.
    """

    # Attributes of every asyncio loop, 3.11 to 3.14.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._now = _EPOCH_S
        self._rng = None if seed is None else random.Random(seed)
        self._selector = self  # of a selector, only select() is used
        self._turns_at_once = 0
        self.turns = 0

    def time(self) -> float:
        """Return virtual seconds; the first instant is 1000."""
        return self._now

    def skip(self, seconds: float) -> None:
        """Advance the time while nothing runs, as when the process is stopped by SIGSTOP."""
        self._now += seconds

    def select(self, timeout: float | None) -> tuple[()]:
        """Advance to the next timer if no task is ready, and run due timers."""
        self.turns += 1
        if timeout == 0:
            self._turns_at_once += 1
            if self._turns_at_once > _MOST_TURNS:
                raise LivelockError(f"time does not advance at {self._now:g} s\n{self.describe()}")
        else:
            self._turns_at_once = 0
            if timeout is None or self._scheduled[0].when() == math.inf:
                raise DeadlockError(f"all tasks wait forever\n{self.describe()}")
            self._now = max(self._now, self._scheduled[0].when())
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            ready.append(handle)
        if self._rng is not None and len(ready) > 1:
            shuffled = list(ready)
            self._rng.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        return ()

    def forget_turns(self) -> None:
        """Reset the number of iterations without an advance of time."""
        self._turns_at_once = 0

    def describe(self) -> str:
        """Return where every task waits, one line each."""
        lines = [f"  {task.get_name()}: {_where(task.get_coro())}" for task in self._tasks()]
        return "\n".join(sorted(lines))

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks(self) if not task.done()]

    def _process_events(self, events: tuple[()]) -> None:
        """Do nothing: there are no sources of events."""

    def _write_to_self(self) -> None:
        """Do nothing: this loop never sleeps."""


def _where(coroutine: Any) -> str:
    places = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            file = frame.f_code.co_filename.rpartition("/")[2]
            places.append(f"{frame.f_code.co_qualname} ({file}:{frame.f_lineno})")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return " > ".join(places) or "?"


def run_virtual(main: Callable[[], Awaitable[T]], *, seed: int | None = None) -> T:
    """Run *main* on a new event loop with virtual time, and return its result.

    Args:
        main: Async function without arguments.
        seed: Shuffles tasks and timers that are ready at the same instant; the same seed gives
            the same order. None keeps the order in which they became ready.

    Raises:
        DeadlockError: All tasks wait forever; the text says where.
        LivelockError: Tasks wake each other repeatedly and time does not advance.
        LeftoverError: *main* left tasks or unhandled errors of callbacks behind.
    """
    loop = VirtualLoop(seed)
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(_say(context)))

    async def run() -> T:
        return await main()

    try:
        result = loop.run_until_complete(run())
        left = loop.describe()
        if left:
            raise LeftoverError(f"tasks are left\n{left}")
        loop.run_until_complete(loop.shutdown_asyncgens())
        if unhandled:
            raise LeftoverError("\n".join(unhandled))
        return result
    finally:
        _end_tasks(loop)
        loop.close()


def _say(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context['message']}: {error!r}"


def _end_tasks(loop: VirtualLoop) -> None:
    for _ in range(10):  # a task may need several cancellations before it ends
        tasks = loop._tasks()
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.forget_turns()
        try:
            loop.run_until_complete(_wait(tasks))
        except (DeadlockError, LivelockError):
            continue


async def _wait(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=3600.0)
