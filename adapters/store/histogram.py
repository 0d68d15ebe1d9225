"""Histograms of token rates in the format of llama-swap's UI; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_BINS_MIN, _BINS_MAX = 5, 20
_LARGEST = 1e15  # larger values are not rates


def histogram(values: Sequence[float]) -> dict[str, Any] | None:
    """Return counts in bins of equal width, and percentiles; None if no value is > 0."""
    found = sorted(value for value in values if 0 < value < _LARGEST)
    if not found:
        return None
    low, high = found[0], found[-1]
    percentiles = {f"p{part}": _percentile(found, part / 100) for part in (50, 95, 99)}
    if low == high:
        return {"bins": [len(found)], "min": low, "max": high, "binSize": 0, **percentiles}
    count = min(max(math.ceil(math.log2(len(found))) + 1, _BINS_MIN), _BINS_MAX)
    size = (high - low) / count
    bins = [0] * count
    for value in found:
        bins[min(int((value - low) / size), count - 1)] += 1
    return {"bins": bins, "min": low, "max": high, "binSize": size, **percentiles}


def _percentile(ordered: Sequence[float], part: float) -> float:
    """Return a percentile of sorted values, interpolated linearly."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
