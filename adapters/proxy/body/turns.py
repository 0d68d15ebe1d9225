"""Long work of requests, done in the event loop by turns.

Python runs one thing at a time, also in threads: what takes long in a thread holds up the event
loop just as well, and cannot be ended. So long work is a generator that yields after a few
milliseconds. Of all requests only one works at a time, then everything else has its turn; a
request that is cancelled ends at its next step.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TypeVar

from .json_scan import Steps

_T = TypeVar("_T")
_TURN_S = 0.002


class Turns:
    """Shares the event loop between the requests that have much to do, and everything else."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, steps: Steps[_T], *, is_short: bool = False) -> _T:
        """Run *steps* to their end and return their outcome; others run meanwhile.

        Args:
            steps: The work.
            is_short: The first step is done without waiting for a turn: nearly always it is all.
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
            outcome: _T = end.value
            return outcome
        finally:
            steps.close()
