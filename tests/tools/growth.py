"""Measures how much longer work takes on an input of four times the size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_TRIES = 5


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU time of *work* in seconds.

    The garbage collector is off meanwhile: its time depends on all objects of the test process.
    """
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


def growth(
    small: Callable[[], object], large: Callable[[], object], *, limit: float, floor_s: float
) -> float:
    """Return the least ratio of the CPU time of *large* to that of *small*.

    Both are measured in turn, up to five times, until the ratio is at most *limit*: another
    process on the same core makes single measurements several times too long.

    Args:
        small: Works on an input.
        large: Works on one of four times the size.
        limit: Highest ratio that counts as linear; between 4 and 16.
        floor_s: A shorter time of *small* counts as this one; seconds > 0.
    """
    ratio = float("inf")
    for _ in range(_TRIES):
        ratio = min(ratio, cpu_s(large) / max(cpu_s(small), floor_s))
        if ratio <= limit:
            break
    return ratio
