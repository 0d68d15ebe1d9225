"""Histogram of durations for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts of values in buckets.

    Attributes:
        limits: Upper bounds of the buckets in seconds, ascending; the last bucket has none.
        counts: Number of values in each bucket; one more than *limits*.
        total: Sum of all values.
    """

    __slots__ = ("counts", "limits", "total")

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits = tuple(limits)
        self.counts = [0] * (len(limits) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.limits, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, values up to it) for each bucket, as Prometheus expects them."""
        found, so_far = [], 0
        for limit, count in zip((*self.limits, None), self.counts, strict=True):
            so_far += count
            found.append(("+Inf" if limit is None else str(float(limit)), float(so_far)))
        return found
