"""Cooperative scheduling of long computations on the event loop.

A long computation in a thread would hold the interpreter lock, delay the event loop just as much,
and could not be cancelled. So long work is a generator that yields every few milliseconds. One
request computes at a time, and the event loop runs between its turns; a cancelled request stops at
its next step.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TypeVar

from .json_scan import Steps

_T = TypeVar("_T")
_TURN_S = 0.002


class Turns:
    """Interleaves the computations of requests with everything else on the event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, steps: Steps[_T], *, is_short: bool = False) -> _T:
        """Run *steps* to their end and return their result.

        Args:
            steps: The computation.
            is_short: The first step runs without waiting for a turn, since it is nearly always
                the only one.
        """
        try:
            if is_short:
                next(steps)
            while True:
                async with self._lock:
                    until = perf_counter() + _TURN_S
                    while perf_counter() < until:
                        next(steps)
                    await asyncio.sleep(0)
        except StopIteration as end:
            result: _T = end.value
            return result
        finally:
            steps.close()
