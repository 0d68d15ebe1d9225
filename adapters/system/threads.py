"""Work in another thread, also on a machine that has none to spare.

Where no thread can be made (a cgroup's `pids.max`, `ulimit -u`, `ulimit -v`) the work is done in
the event loop. That delays others while it lasts; an error would end what was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import mmap
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_QUIET_S = 60.0
_ROOM_BYTES = 24 << 20  # a stack of 8 MiB, and what the interpreter needs for a thread
_LOOK_AGAIN_S = 0.01
_log = logging.getLogger(__name__)
_told_at = -_QUIET_S


class Limit:
    """How many calls of one kind may run at once in each event loop.

    Calls that may wait for long have a limit of their own, since they would take all threads of the
    common one.

    Args:
        name: Of the kind.
        total: Largest number; ``math.inf`` means unlimited.
    """

    def __init__(self, name: str, total: float) -> None:
        self._total = total
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar(name)

    def limiter(self) -> anyio.CapacityLimiter:
        """Return the limiter of the running event loop."""
        found = self._limiter.get(None)
        if found is None:
            found = anyio.CapacityLimiter(self._total)
            self._limiter.set(found)
        return found


class NoThreadError(Exception):
    """No thread could be made for what must not be done in the event loop."""


async def run(
    function: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call *function* in a worker thread, or here where no thread can be made.

    Args:
        function: What to call; it must not wait for another task of this event loop.
        args: Its arguments.
        abandon_on_cancel: Do not wait for it when the caller is cancelled.
        limiter: How many may run at once; None is the common limit.
    """
    try:
        return await run_or_fail(
            function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter
        )
    except NoThreadError as error:
        complain(error)
    return function(*args)


async def run_or_fail(
    function: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = True,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call *function*, which may wait for long, in a worker thread; arguments as for `run`.

    A thread that a cancelled caller left behind counts toward the limit until it ends. anyio itself
    counts it no longer, so that cancelled calls would make any number of threads.

    Raises:
        NoThreadError: None could be made.
    """
    if not _has_room():
        raise NoThreadError("no memory for a thread")
    place = _Place(limiter or anyio.to_thread.current_default_thread_limiter())
    await place.take()

    def work() -> T:
        place.begin()
        try:
            return function(*args)
        finally:
            place.end()

    try:
        return await anyio.to_thread.run_sync(
            work, abandon_on_cancel=abandon_on_cancel, limiter=_UNLIMITED.limiter()
        )
    except (RuntimeError, MemoryError) as error:
        if place.has_begun:  # it is the function's own
            raise
        raise NoThreadError(str(error) or "no memory for a thread") from error
    finally:
        place.leave()


class _AbandonedError(Exception):
    """The caller was cancelled before the thread began; raised where nothing catches it."""


class _Place:
    """One place of a limiter, held by a call and then by the thread that executes it.

    Attributes:
        has_begun: The thread has taken the place over.
    """

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._call_soon = _call_soon_threadsafe()
        self._claims = [self]  # popped by the thread that begins or by its caller that leaves
        self.has_begun = False

    async def take(self) -> None:
        """Wait for the place."""
        await self._limiter.acquire_on_behalf_of(self)

    def begin(self) -> None:
        """Take the place over; called in the thread.

        Raises:
            _AbandonedError: The caller has left.
        """
        try:
            self._claims.pop()
        except IndexError:
            raise _AbandonedError from None
        self.has_begun = True

    def end(self) -> None:
        """Free the place; called in the thread."""
        with suppress(RuntimeError):  # the event loop is closed
            self._call_soon(self._limiter.release_on_behalf_of, self)

    def leave(self) -> None:
        """Free the place if no thread has begun; called in the event loop."""
        if self._claims:
            with suppress(IndexError):  # the thread was quicker
                self._claims.pop()
                self._limiter.release_on_behalf_of(self)


def _call_soon_threadsafe() -> Callable[..., object]:
    """Return the function by which other threads call something in the running event loop.

    It raises RuntimeError once the loop is closed.
    """
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:  # it is trio's
        from trio.lowlevel import current_trio_token

        return current_trio_token().run_sync_soon


_UNLIMITED = Limit("swapchart_unlimited", math.inf)
_SETTLED = Limit("swapchart_settled", 32)


async def settled(future: Future[T]) -> None:
    """Wait until *future*, which a thread of ours completes, is done; its outcome stays in it."""
    while not future.done():
        try:
            await run_or_fail(future.exception, limiter=_SETTLED.limiter())
        except NoThreadError:
            await anyio.sleep(_LOOK_AGAIN_S)


def _has_room() -> bool:
    """Return False if a limit of memory (`ulimit -v`) leaves no room for a thread.

    A thread that begins and then finds no memory is worse than none: its starter waits for it for
    ever.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return True
    try:
        mmap.mmap(-1, _ROOM_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def complain(error: BaseException) -> None:
    """Log that no thread can be made, at most once a minute."""
    global _told_at  # like the lack of threads itself: one per process
    now = time.monotonic()
    if now - _told_at >= _QUIET_S:
        _told_at = now
        _log.warning("no thread can be made (%s): work is done in the event loop", error)
