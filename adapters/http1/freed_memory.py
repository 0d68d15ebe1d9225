"""Return freed memory to the operating system.

glibc keeps what was freed in pieces of up to some megabytes, and gives it back only where nothing
above is in use: after 128 MiB had waited in sixteen websockets, up to 128 MiB stayed resident for
good. ``malloc_trim`` returns all of it, in 1 to 47 ms on a busy machine. After a start it returns
0.8 MB.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from functools import cache

_ARENA_MAX = -8  # of malloc.h: M_ARENA_MAX
_DELAY_S = 1.0  # one call for all that ends at about the same time

_timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}


def return_freed_soon() -> None:
    """Return freed memory in a second, once for all calls until then; in the event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _timers:
        _timers[loop] = loop.call_later(_DELAY_S, _return_freed, loop)


def use_one_arena() -> None:
    """Let the threads that are started from now on allocate from the memory of the main thread.

    glibc gives each of them an arena of its own, which takes some 0.1 MB for next to nothing: the
    interpreter runs one thread at a time.
    """
    mallopt = _c_function("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def _return_freed(loop: asyncio.AbstractEventLoop) -> None:
    del _timers[loop]
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _c_function(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
    return found
