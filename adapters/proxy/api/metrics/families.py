"""Metric families from plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ...histogram import Histogram

#: Values of the labels, in their order -> value.
Rows: TypeAlias = Mapping[Any, float]


def gauge(name: str, text: str, values: Rows, *labels: str) -> Metric:
    """Return a gauge with the help *text*."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def counter(name: str, text: str, values: Rows, *labels: str) -> Metric:
    """Return a counter; *name* is without ``_total``."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histogram(
    name: str, text: str, values: Iterable[tuple[Any, Histogram]], *labels: str
) -> Metric:
    """Return a histogram."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, each in values:
        family.add_metric(key, each.buckets(), each.total)
    return family


def from_zero(keys: Iterable[Any], counts: Rows) -> Rows:
    """Return *counts* with a 0 for each of *keys* that is not in it.

    ``increase()`` of Prometheus does not see the step to a counter's first value.
    """
    return {**dict.fromkeys(keys, 0.0), **counts}


def by_model(names: Iterable[str], counts: Mapping[str, int]) -> Rows:
    """Return *counts* by model, with a 0 for each of *names* that is not in it."""
    return from_zero(((name,) for name in names), {(name,): n for name, n in counts.items()})
