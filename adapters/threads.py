"""Work in another thread, also on a machine that has none to spare.

Where no thread can be made (a cgroup's `pids.max`, `ulimit -u`, `ulimit -v`) the work is done in
the event loop. That delays others while it lasts; an error would end what was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_QUIET_S = 60.0
_log = logging.getLogger(__name__)
_told_at = -_QUIET_S


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
    has_begun = False

    def work() -> T:
        nonlocal has_begun
        has_begun = True
        return function(*args)

    try:
        return await anyio.to_thread.run_sync(
            work, abandon_on_cancel=abandon_on_cancel, limiter=limiter
        )
    except (RuntimeError, MemoryError) as error:
        if has_begun or not is_out_of_threads(error):
            raise
        complain(error)
        return function(*args)


def is_out_of_threads(error: BaseException) -> bool:
    """Return True if *error* says that no thread could be made."""
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


def complain(error: BaseException) -> None:
    """Log that no thread can be made, at most once a minute."""
    global _told_at  # like the lack of threads itself: one per process
    now = time.monotonic()
    if now - _told_at >= _QUIET_S:
        _told_at = now
        _log.warning("no thread can be made (%s): work is done in the event loop", error)
