"""The promises of our chart are worth having: what breaks the chart breaks a promise."""

from __future__ import annotations

import random

import pytest

from swapchart.machine import ChartError, check, lifecycle
from swapchart.machine.checking.mutants import Mutant, is_equivalent, mutants
from swapchart.machine.document import Value

from .charts import NAMES, chart

ALL = list(mutants(lifecycle()))
SAMPLE = random.Random(20).sample(ALL, 30)
#: Sets of parameters that differ in everything.
CORNERS: list[dict[str, Value]] = [
    {"intensity": 2, "restart": "permanent", "abandon": "abort", "drain": "refuse"},
    {"intensity": 1, "restart": "temporary", "abandon": "finish", "drain": "cut"},
    {"intensity": 2, "restart": "transient", "abandon": "abort", "drain": "wait"},
]


@pytest.mark.parametrize("mutant", SAMPLE, ids=lambda mutant: mutant.name)
def test_mutant_breaks_a_promise_or_is_equivalent(mutant: Mutant) -> None:
    """Of a fixed sample, each is refuted, refused by the library, or provably the same chart."""
    try:
        report = check(mutant.document, parameters=CORNERS, stop_at_first=True)
    except ChartError:
        return  # python-statemachine refuses its structure

    if report.is_ok:
        assert is_equivalent(lifecycle(), mutant.document, parameters=CORNERS[:2])


def test_mutants_differ_from_the_chart_in_one_thing_each() -> None:
    """There are some hundreds, all different, and the chart itself is not among them."""
    assert len(ALL) > 500
    assert len({mutant.name for mutant in ALL}) == len(ALL)
    assert all(mutant.document.chart != lifecycle().chart for mutant in ALL)
    assert lifecycle().chart == lifecycle().source["chart"]


@pytest.mark.parametrize("name", NAMES)
def test_mutants_of_any_chart_are_documents(name: str) -> None:
    """Compound, parallel, history: every mutant is a document, most of them of another meaning."""
    found = list(mutants(chart(name)))

    different = 0
    for mutant in found:
        try:
            different += not is_equivalent(chart(name), mutant.document)
        except ChartError:
            different += 1
    assert different > len(found) / 2


def test_equivalence_ignores_invisible_differences() -> None:
    """Ignoring a timer that cannot run is the same as saying nothing of it."""
    by_name = {mutant.name: mutant.document for mutant in ALL}

    assert is_equivalent(lifecycle(), lifecycle(), parameters=CORNERS[:1])
    unseen = by_name["ready: idle_expired: deleted"]
    assert is_equivalent(lifecycle(), unseen, parameters=CORNERS[:1])
    seen = by_name["ready: stable: deleted"]
    assert not is_equivalent(lifecycle(), seen, parameters=CORNERS[:1])
    at_once = by_name["stopped: request -> starting: stays"]
    assert not is_equivalent(lifecycle(), at_once, parameters=CORNERS[:1])
