"""A supervisor runs charts that were checked, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from swapchart.machine import (
    Bounds,
    ChartError,
    Document,
    Report,
    check,
    lifecycle,
    merge,
    parameter_sets,
)
from swapchart.runtime import Supervisor, chart_check
from swapchart.runtime.testing import ScriptedLauncher, run_virtual

#: A state without `hooks_failed`: a failing hook would leave the service in it for ever.
FORGETFUL = yaml.safe_load("""
actions:
  run_warm_up: {do: {effect: activity.start, activity: hooks, point: warmUp}}
states:
  after_healthy:
    remove_transitions: [{event: hooks_done, target: ready}]
    transitions: [{event: hooks_done, target: warming}]
  warming:
    inside: alive
    enter: run_warm_up
    exit: cancel_hooks
    transitions: [{event: hooks_done, target: ready}]
""")

FIRST = [next(iter(parameter_sets(lifecycle(), Bounds())))]


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_check, "_passed", set())


def forgetful() -> Document:
    return merge(lifecycle(), FORGETFUL)


def test_supervisor_with_a_broken_chart_is_refused() -> None:
    """The mistake is an error of the constructor, with the way that leads there."""
    with pytest.raises(ChartError) as caught:
        Supervisor(ScriptedLauncher(), chart=forgetful())

    assert "begin ->" in "".join(caught.value.__notes__)


def test_supervisor_takes_a_report_of_its_chart_only() -> None:
    """A report of another chart proves nothing, and one with findings neither."""
    report = check(lifecycle(), parameters=FIRST, stop_at_first=True)
    with pytest.raises(ChartError, match="got another chart's"):
        Supervisor(ScriptedLauncher(), chart=forgetful(), checked=report)
    broken = check(forgetful(), parameters=FIRST, stop_at_first=True)

    with pytest.raises(ChartError):
        Supervisor(ScriptedLauncher(), chart=forgetful(), checked=broken)


def test_chart_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second supervisor of a chart does not wait for the check, nor does the shipped chart."""
    import swapchart.machine as machine

    calls: list[Document] = []
    real = machine.check

    def counted(document: Document, **options: Any) -> Report:
        calls.append(document)
        return real(document, **options)

    monkeypatch.setattr(machine, "check", counted)
    notify = {"actions": {"ring": {"do": {"effect": "notify", "name": "ring"}}},
              "states": {"ready": {"enter": ["ring"]}}}  # fmt: skip
    chart = merge(lifecycle(), notify)

    async def main() -> None:
        for own in (chart, chart, lifecycle(), None):
            Supervisor(ScriptedLauncher(), chart=own)

    run_virtual(main)
    assert calls == [chart]
