"""The median is that of the standard library."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis.strategies import floats, lists

from swapchart.runtime.median import median


@given(lists(floats(0, 1e6), min_size=1, max_size=6))
def test_median_is_that_of_the_standard_library(values: list[float]) -> None:
    assert median(values) == statistics.median(values)
