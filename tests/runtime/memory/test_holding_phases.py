"""A service whose process may exist holds its memory, in every state of every chart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swapchart.machine import ChartError, Document, add_phase, lifecycle
from swapchart.runtime.phase import phase_of
from swapchart.runtime.scheduling import HOLDING


def _charts() -> dict[str, Document]:
    """Return the shipped chart, and it with one more phase at each place that takes one."""
    found = {"shipped": lifecycle()}
    for name, _, _ in lifecycle().states():
        try:
            found[name] = add_phase(lifecycle(), "extra", after=name, point="extraPoint")
        except ChartError:
            continue
    return found


CHARTS = _charts()


def _passes(definition: Any) -> bool:
    """Return True for a state that is left in the step that enters it."""
    return any(
        "event" not in each and "cond" not in each for each in definition.get("transitions") or ()
    )


@pytest.mark.parametrize("chart", CHARTS)
def test_phase_of_each_state_in_which_a_process_may_exist_holds_memory(chart: str) -> None:
    document = CHARTS[chart]
    checked = 0
    for name, definition, above in document.states():
        if definition.get("states") or name in document.promises.quiet or _passes(definition):
            continue
        checked += 1
        for has_demand in (False, True):
            stub: Any = SimpleNamespace(
                state=name, configuration=(*above, name), has_demand=has_demand
            )
            assert phase_of(stub) in {*HOLDING, "asleep"}, (name, above)
    assert checked > 12
    assert len(CHARTS) > 4
