"""Phases: further states with a hook point of their own, behind one that runs hooks."""

from __future__ import annotations

from typing import Any

import pytest

from swapchart.machine import (
    Bounds,
    ChartError,
    Document,
    Machine,
    add_phase,
    check,
    from_mapping,
    lifecycle,
    parameter_sets,
    read,
)

AFTER = (
    "before_start", "after_start", "after_healthy", "suspending", "waking", "before_stop",
    "on_failure", "after_stop",
)  # fmt: skip


def transitions(document: Document, name: str) -> dict[str, Any]:
    """Return event -> target of state *name*; of several transitions of one event, the first."""
    (body,) = [body for each, body, _ in document.states() if each == name]
    found: dict[str, Any] = {}
    for item in body["transitions"]:
        found.setdefault(item["event"], item.get("target"))
    return found


def warming() -> Document:
    return add_phase(lifecycle(), "warming", after="after_healthy", point="warmUp")


def test_add_phase_writes_each_way_out_of_the_state_before_it() -> None:
    """Success leads where that state led; failure, stop, shutdown and giving up do as there."""
    before = transitions(lifecycle(), "after_healthy")

    assert transitions(warming(), "after_healthy") == {**before, "hooks_done": "warming"}
    assert transitions(warming(), "warming") == before


@pytest.mark.parametrize("after", AFTER)
def test_add_phase_behind_each_state_that_runs_hooks_keeps_all_promises(after: str) -> None:
    """With one set of parameters; no promise is lost on the way."""
    chart = add_phase(lifecycle(), "extra", after=after, point="extraPoint")
    parameters = list(parameter_sets(chart, Bounds()))

    report = check(chart, parameters=[parameters[-1]])

    assert report.is_ok, report.findings[0]
    assert len(chart.promises.always) > len(lifecycle().promises.always)


@pytest.mark.parametrize("event", ["stop", "shutdown", "abandon", "hooks_failed"])
def test_add_phase_without_one_of_its_transitions_breaks_a_promise(event: str) -> None:
    """The lines that it writes are needed: the check finds each one that is left out."""
    raw = dict(warming().source)
    states = raw["chart"]["states"]["alive"]["states"]["starting"]["states"]
    kept = [item for item in states["warming"]["transitions"] if item["event"] != event]
    states = {**states, "warming": {**states["warming"], "transitions": kept}}
    alive = raw["chart"]["states"]["alive"]
    starting = {**alive["states"]["starting"], "states": states}
    inner = {**alive["states"], "starting": starting}
    raw["chart"] = {
        **raw["chart"],
        "states": {**raw["chart"]["states"], "alive": {**alive, "states": inner}},
    }
    chart = from_mapping(raw)
    report = check(chart, parameters=list(parameter_sets(chart, Bounds())), stop_at_first=True)

    assert not report.is_ok


def test_add_phase_behind_a_phase_makes_a_chain() -> None:
    """Two phases run one after the other, and the promises are kept."""
    chart = add_phase(warming(), "announcing", after="warming", point="announce")

    assert transitions(chart, "warming")["hooks_done"] == "announcing"
    assert transitions(chart, "announcing")["hooks_done"] == "ready"
    assert check(chart, parameters=[next(iter(parameter_sets(chart, Bounds())))]).is_ok


def test_add_phase_leaves_the_given_chart_as_it_was() -> None:
    """The shipped chart is shared by all supervisors."""
    before = repr(lifecycle().source)
    warming()

    assert repr(lifecycle().source) == before
    assert "warming" not in Machine(lifecycle()).states


@pytest.mark.parametrize(
    ("name", "after", "point", "why"),
    [
        ("ready", "after_healthy", "warmUp", "expected a new state"),
        ("warming", "nowhere", "warmUp", "unknown state 'nowhere'"),
        ("warming", "health_checking", "warmUp", "health_checking runs no hooks that it waits for; "
         "states that do: before_start, after_start, after_healthy"),
        ("warming", "ready", "warmUp", "ready runs no hooks"),
        ("warming", "after_healthy", "afterReady", "expected a new hook point"),
        ("not a name", "after_healthy", "warmUp", "not a name"),
    ],
)  # fmt: skip
def test_add_phase_that_cannot_be_is_refused(name: str, after: str, point: str, why: str) -> None:
    """The error says what was expected."""
    with pytest.raises(ChartError, match=why):
        add_phase(lifecycle(), name, after=after, point=point)


def test_add_phase_to_a_chart_of_ones_own_handles_guards_and_shared_lines() -> None:
    """A line for two events is split; guarded successes move to the phase together."""
    chart = read("""
format: swapchart.chart/v1
name: Own
data: {n: {initial: 0, values: [0, 1]}}
events:
  go: {}
  done: {origin: activity, of: work}
  failed: {origin: activity, of: work, on: error}
  late: {origin: timer, of: limit}
guards: {is_odd: n == 1}
actions:
  begin:
    do: [{effect: activity.start, activity: work, point: one}, {effect: timer.start, timer: limit}]
  end: {do: [{effect: activity.cancel, activity: work}, {effect: timer.cancel, timer: limit}]}
  count: {set: {n: 1 - n}}
chart:
  name: Own
  states:
    idle: {initial: true, transitions: [{event: go, target: busy}]}
    busy:
      enter: begin
      exit: end
      transitions:
        - {event: done, target: odd, cond: is_odd, "on": count}
        - {event: done go, target: idle, "on": count}
        - {event: failed late, target: idle}
    odd: {transitions: [{event: go, target: idle}]}
""")

    phase = add_phase(chart, "second", after="busy", point="second")

    assert transitions(phase, "busy") == {"done": "second", "go": "idle", "failed late": "idle"}
    assert transitions(phase, "second") == {"done": "odd", "go": "idle", "failed": "idle"}
    (body,) = [body for each, body, _ in phase.states() if each == "second"]
    assert [item.get("on") for item in body["transitions"]] == ["count", "count", "count", None]
