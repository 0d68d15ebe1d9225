"""Findings and warnings of a check: grouped, with their cure, and what was not explored."""

from __future__ import annotations

from typing import Any

from swapchart.machine import Report, check, lifecycle, read

HEAD = "format: swapchart.chart/v1\n"


def checked(text: str, **options: Any) -> Report:
    """Check the chart in *text*."""
    return check(read(HEAD + text), **options)


def test_unhandled_events_are_one_finding_each_with_their_cure() -> None:
    """One event in three states is one finding, which says what to add where."""
    report = checked(
        "events: {next: {}, stop: {}}\nchart: {states: {\n"
        "a: {initial: true, transitions: [{event: next, target: b}]},\n"
        "b: {transitions: [{event: next, target: c}]},\n"
        "c: {transitions: [{event: stop, target: a}]}}}"
    )

    found = {finding.event: finding for finding in report.findings}
    assert set(found) == {"next", "stop"}
    assert found["stop"].sentence == "stop in a, b"
    assert found["stop"].states == ("a", "b")
    assert found["stop"].cure == (
        "add `{event: stop}` with what follows to `a`, `b`, or `ignores: [stop]`"
    )
    assert found["stop"].path == "chart.states.a"
    assert str(found["next"]).splitlines()[-1].startswith("  to cure it: add `{event: next}`")


def test_count_cut_at_bound_is_said() -> None:
    """Beyond the bound nothing is proven, and the report names it."""
    report = checked(
        "data: {n: {initial: 0}}\nevents: {go: {}}\n"
        "chart: {states: {a: {initial: true, transitions: [{event: go, on: {set: {n: n + 1}}}]}}}"
    )

    assert report.is_ok
    assert report.cut == ("n <= 2",)


def test_bounded_count_is_not_cut() -> None:
    """A count that stays within the bound was explored as a whole."""
    report = checked(
        "data: {n: {initial: 0}}\nevents: {go: {}}\nchart: {states: {a: {initial: true,"
        " transitions: [{event: go, on: {set: {n: 'min(n + 1, 2)'}}}]}}}"
    )

    assert report.cut == ()


def test_transition_never_taken_is_a_warning() -> None:
    """A guard that never holds keeps every promise, and is reported with its path."""
    report = checked(
        "data: {n: {values: [0, 1]}}\nevents: {go: {}}\nchart: {states: {a: {initial: true,"
        " transitions: [{event: go, cond: n == 1, on: {set: {n: '0'}}}, {event: go}]}}}"
    )

    (warning,) = report.warnings
    assert report.is_ok
    assert warning.kind == "a transition that is never taken"
    assert warning.sentence == "a: go is never taken"
    assert warning.path == "chart.states.a.transitions[0]"


def test_never_taken_beyond_a_bound_is_said_with_care() -> None:
    """A count that was cut may reach the guard beyond the bound."""
    report = checked(
        "data: {n: {initial: 0}}\nevents: {go: {}}\nchart: {states: {a: {initial: true,"
        " transitions: [{event: go, cond: n >= 7, target: b}, {event: go, on: {set: {n: n + 1}}}]},"
        " b: {transitions: [{event: go, target: a}]}}}",
        parameters=None,
    )

    assert not report.is_ok  # b is never reached
    assert report.cut == ("n <= 2",)


def test_shadowed_transition_names_the_earlier_one() -> None:
    """An unguarded transition leaves nothing for those after it."""
    report = checked(
        "data: {n: {values: [0, 1]}}\nevents: {go: {}}\nchart: {states: {a: {initial: true,"
        " transitions: [{event: go}, {event: go, on: {set: {n: '1'}}}]}}}"
    )

    (warning,) = report.warnings
    assert warning.sentence == (
        "a: go is shadowed: chart.states.a.transitions[0] is always taken first"
    )


def test_conflict_between_regions_is_a_warning_with_trace() -> None:
    """Both regions take the event to leave the parallel state; the second does so in vain."""
    report = checked(
        "events: {go: {}, back: {}}\nchart: {states: {all: {initial: true, parallel: true,"
        " ignores: back, states: {\n"
        "  p: {states: {p1: {initial: true, transitions: [{event: go, target: x}]}}},\n"
        "  q: {states: {q1: {initial: true, transitions: [{event: go, target: y}]}}}}},\n"
        " x: {ignores: go, transitions: [{event: back, target: y}]},\n"
        " y: {ignores: go, transitions: [{event: back, target: all}]}}}"
    )

    conflict = next(w for w in report.warnings if w.kind == "a conflict between regions")
    assert conflict.sentence == "go is taken by p1, and q1 takes it in vain"
    assert [move.event for move in conflict.trace] == ["begin", "go"]
    assert "q1: go -> y is never taken" in {warning.sentence for warning in report.warnings}


def test_regions_that_stay_apart_do_not_conflict() -> None:
    """Each region takes the event for itself."""
    report = checked(
        "events: {go: {}}\nchart: {states: {all: {initial: true, parallel: true, states: {\n"
        "  p: {states: {p1: {initial: true, transitions: [{event: go, target: p2}]},\n"
        "    p2: {transitions: [{event: go, target: p1}]}}},\n"
        "  q: {states: {q1: {initial: true, transitions: [{event: go, target: q2}]},\n"
        "    q2: {transitions: [{event: go, target: q1}]}}}}}}}"
    )

    assert report.is_ok
    assert report.warnings == ()


def test_value_outside_its_domain_has_a_cure() -> None:
    """An assignment beyond the declared values is a broken promise."""
    report = checked(
        "data: {n: {values: [0, 1]}}\nevents: {go: {}}\nchart: {states: {a: {initial: true,"
        " transitions: [{event: go, on: {set: {n: n + 1}}}]}}}"
    )

    (finding,) = report.findings
    assert (finding.kind, finding.sentence) == ("a value outside its domain", "n is 2")
    assert "min(n + 1, 2)" in finding.cure


def test_quick_check_looks_for_no_warnings() -> None:
    """Callers that need a yes or no do not pay for the rest."""
    report = check(
        lifecycle(),
        parameters=[{"intensity": 1, "restart": "transient", "abandon": "abort", "drain": "cut"}],
        stop_at_first=True,
    )

    assert report.is_ok
    assert report.warnings == ()


def test_state_left_in_the_step_that_enters_it_is_reached() -> None:
    """A final state that ends its region, and the parallel state with it, is no dead one."""
    report = checked(
        "events: {go: {}}\nchart: {states: {all: {initial: true, parallel: true, transitions:"
        " [{event: done.state.all, target: end}], states: {\n"
        "  p: {states: {p1: {initial: true, transitions: [{event: go, target: p2}]},"
        " p2: {final: true}}}}},\n"
        " end: {final: true}}}"
    )

    assert report.is_ok
