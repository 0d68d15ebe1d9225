"""Blocking calls in worker threads, with a fallback if no thread can be created.

If a limit allows no further thread (a cgroup's `pids.max`, `ulimit -u`, `ulimit -v`), the call is
made in the event loop. This delays other work, where an error would abort an operation.
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

_WARNING_PERIOD_S = 60.0
_THREAD_BYTES = 24 << 20  # a stack of 8 MiB and what the interpreter needs for a thread
_POLL_S = 0.01
_log = logging.getLogger(__name__)
_warned_at = -_WARNING_PERIOD_S


class Limit:
    """Maximum number of calls of one kind at once in each event loop.

    Calls that may block for long have a limit of their own, so that they do not take all threads of
    the common limit.

    Args:
        name: Name of the kind.
        total: Maximum number; ``math.inf`` means unlimited.
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
    """No thread can be created for a call that must not block the event loop."""


async def run(
    function: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = False,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call *function* in a worker thread, or in the event loop if no thread can be created.

    Args:
        function: Function to call; it must not wait for a task of this event loop.
        args: Arguments of the call.
        abandon_on_cancel: Do not wait for the thread if the caller is cancelled.
        limiter: Limit of calls at once; None means the common limit.
    """
    try:
        return await run_or_fail(
            function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter
        )
    except NoThreadError as error:
        warn_no_thread(error)
    return function(*args)


async def run_or_fail(
    function: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = True,
    limiter: anyio.CapacityLimiter | None = None,
) -> T:
    """Call *function*, which may block for long, in a worker thread; arguments as for `run`.

    A thread whose caller was cancelled counts toward the limit until it ends. anyio alone stops
    counting it, so that cancelled calls could accumulate any number of threads.

    Raises:
        NoThreadError: No thread can be created.
    """
    if not _has_room():
        raise NoThreadError("no memory for a thread")
    slot = _Slot(limiter or anyio.to_thread.current_default_thread_limiter())
    await slot.take()

    def work() -> T:
        slot.begin()
        try:
            return function(*args)
        finally:
            slot.end()

    try:
        return await anyio.to_thread.run_sync(
            work, abandon_on_cancel=abandon_on_cancel, limiter=_UNLIMITED.limiter()
        )
    except (RuntimeError, MemoryError) as error:
        if slot.has_begun:  # raised by the function
            raise
        raise NoThreadError(str(error) or "no memory for a thread") from error
    finally:
        slot.leave()


class _AbandonedError(Exception):
    """The caller was cancelled before the thread began; anyio discards it."""


class _Slot:
    """Slot of a limiter, held by a call and then by the thread that executes it.

    Attributes:
        has_begun: The thread holds the slot.
    """

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._call_soon = _call_soon_threadsafe()
        self._claims = [self]  # popped by the thread when it begins or by the caller when it leaves
        self.has_begun = False

    async def take(self) -> None:
        """Wait for the slot."""
        await self._limiter.acquire_on_behalf_of(self)

    def begin(self) -> None:
        """Take the slot over; called in the thread.

        Raises:
            _AbandonedError: The caller has left.
        """
        try:
            self._claims.pop()
        except IndexError:
            raise _AbandonedError from None
        self.has_begun = True

    def end(self) -> None:
        """Free the slot; called in the thread."""
        with suppress(RuntimeError):  # the event loop is closed
            self._call_soon(self._limiter.release_on_behalf_of, self)

    def leave(self) -> None:
        """Free the slot unless the thread holds it; called in the event loop."""
        if self._claims:
            with suppress(IndexError):  # the thread has begun meanwhile
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
    """Wait until *future*, which another thread completes, is done; its result stays in it."""
    while not future.done():
        try:
            await run_or_fail(future.exception, limiter=_SETTLED.limiter())
        except NoThreadError:
            await anyio.sleep(_POLL_S)


def _has_room() -> bool:
    """Return False if a memory limit (`ulimit -v`) leaves no room for a thread.

    A thread that starts and then lacks memory would never respond, and its caller would hang.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return True
    try:
        mmap.mmap(-1, _THREAD_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def warn_no_thread(error: BaseException) -> None:
    """Log that no thread can be created, at most once a minute."""
    global _warned_at  # one per process, like the limit of threads
    now = time.monotonic()
    if now - _warned_at >= _WARNING_PERIOD_S:
        _warned_at = now
        _log.warning("no thread can be created (%s): blocking calls run in the event loop", error)
