"""The checker: our chart keeps its promises, and each way of breaking one is found and shown."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from swapchart.machine import (
    Bounds,
    Compiled,
    Document,
    Report,
    check,
    from_mapping,
    lifecycle,
    merge,
)
from swapchart.machine.checking.explore import Input, parameter_sets

FIRST = [next(parameter_sets(lifecycle(), Bounds()))]


def test_shipped_chart_with_more_requests_keeps_every_promise() -> None:
    """Two that wait, two that are served and three failures in a row are no different.

    `tests/e2e/test_docs.py` explores the chart with every set of parameters.
    """
    bounds = Bounds(waiting=2, served=2, counts=3)
    corners = list(parameter_sets(lifecycle(), bounds))

    report = check(lifecycle(), bounds=bounds, parameters=[corners[0], corners[-1]])

    assert report.is_ok
    assert report.states > 3_000


def broken(overlay: dict[str, Any], document: Document | None = None) -> Report:
    """Check our chart with *overlay* on it, under one set of parameters."""
    report = check(merge(document or lifecycle(), overlay), parameters=FIRST)
    assert not report.is_ok
    return report


def only(kind: str, report: Report) -> str:
    """Return the sentence of the shortest finding of *kind*, which must be there."""
    return next(finding.sentence for finding in report.findings if finding.kind == kind)


def test_unhandled_event_is_found_with_the_shortest_trace() -> None:
    """Without a word on `sleep` in `stopped`, the way to the finding is one event long."""
    report = broken({"states": {"stopped": {"remove_transitions": [{"event": "sleep"}]}}})

    finding = report.findings[0]
    assert finding.kind == "an event neither handled nor declared ignored"
    assert finding.sentence == "sleep in alive.stopped"
    assert [move.event for move in finding.trace] == ["begin", "sleep"]
    assert str(finding).splitlines() == [
        "an event neither handled nor declared ignored: sleep in alive.stopped",
        "  with intensity=1, restart=temporary, abandon=finish, drain=cut",
        "  0. begin -> alive.stopped",
        "  1. sleep -> alive.stopped",
        "  to cure it: add `{event: sleep}` with what follows to `stopped`, or `ignores: [sleep]`",
    ]


def state(name: str, **patch: Any) -> dict[str, Any]:
    """Return the overlay that changes one state."""
    return {"states": {name: patch}}


def first(name: str, event: str, **rest: Any) -> dict[str, Any]:
    """Return the overlay that puts one transition before all others of a state."""
    return state(name, transitions_before=[{"event": event, **rest}])


WRONG = [
    (
        "a process alive in a quiet state: alive.stopping.terminating",
        {"promises": {"quiet": "terminating"}},
    ),
    (
        "an activity or timer that outlives its state: start_limit in alive.starting.after_healthy",
        state("health_checking", exit=None),
    ),
    (
        "an activity started twice: request: health",
        first("health_checking", "request", on=["queue_waiter", "start_health"]),
    ),
    ("a second process: start launches another", first("ready", "start", target="launching")),
    (
        "a signal without a process: stop: kill",
        first("before_start", "stop", target="killing", on="want_stop"),
    ),
    (
        "a signal without a process: stop: terminate",
        first("before_start", "stop", target="terminating", on="want_stop"),
    ),
    (
        "an admission outside serving states: request in alive.stopping.draining",
        first("draining", "request", on="admit_waiter"),
    ),
    (
        "a request neither queued, admitted nor rejected once: request in alive.starting."
        "before_start: neither",
        first("before_start", "request"),
    ),
    (
        "a request neither queued, admitted nor rejected once: request in alive.ready: "
        "waiter.admit and waiter.reject",
        first("ready", "request", on=["admit_waiter", "reject_waiter"]),
    ),
    (
        "an effect on a request that is not there: start: waiter.queue",
        first("stopped", "start", target="starting", on="queue_waiter"),
    ),
    (
        "requests counted wrongly: finish in alive.ready: waiting, served are (0, 0), the chart "
        "says (0, 1)",
        first("ready", "finish", on="arm_idle_limits"),
    ),
    (
        "a value outside its domain: intent is 'oops'",
        {"actions": {"want_retry": {"set": {"intent": '"oops"'}}}},
    ),
    (
        "a broken hook pair: after_healthy without before_stop, in alive.stopping.terminating",
        first("ready", "unhealthy", target="terminating", on="want_retry"),
    ),
    (
        "a broken hook pair: before_stop without after_healthy",
        first("after_start", "stop", target="before_stop", on="want_stop"),
    ),
    (
        "a broken hook pair: after_healthy without before_stop, and after_healthy again",
        first("ready", "start", target="after_healthy"),
    ),
    (
        "a stop caller never answered: settled left stopping without stop.done",
        state("stopping", exit=None, enter="stop_done"),
    ),
    (
        "a promise of the chart: a stable service has its failure count reset",
        {"actions": {"forgive": {"set": {"attempts": "attempts"}}}},
    ),
    (
        "a promise of the chart: sleep moves nothing else",
        first("stopped", "sleep", target="starting"),
    ),
    (
        "a promise of the chart: a drain has its limit",
        {"states": {"draining": {"enter": None}, "terminating": {"enter": "arm_drain_limit"}}},
    ),
    (
        "a promise of the chart: a request during a shutdown is rejected",
        state("stopping", remove_transitions=[{"event": "request", "cond": "to_shutdown"}]),
    ),
    (
        "a waiter that can wait for ever: alive.starting.adopting can last: nothing has to happen",
        {"promises": {"unsure": "start_limit"}},
    ),
    (
        "a stop caller never answered: alive.stopping.terminating can last: nothing has to happen",
        {"promises": {"unsure": "grace"}},
    ),
    (
        "a reachable state with no way to rest: alive.stopping.terminating can last: nothing has "
        "to happen",
        {"promises": {"unsure": "grace"}},
    ),
]


@pytest.mark.parametrize(("finding", "overlay"), WRONG, ids=[text for text, _ in WRONG])
def test_checker_finds_each_kind_of_mistake(finding: str, overlay: dict[str, Any]) -> None:
    """One thing is made wrong, and the checker says just that."""
    report = broken(overlay)

    assert finding in [f"{found.kind}: {found.sentence}" for found in report.findings]


def test_trace_replays_on_the_chart() -> None:
    """Replaying the events of a trace on an instance leads where the trace says."""
    document = merge(lifecycle(), {"states": {"health_checking": {"exit": None}}})
    finding = check(document, parameters=FIRST).findings[0]

    stepper = Compiled(document).stepper(**finding.parameters)
    for move in finding.trace[1:]:
        stepper.step(move.event)
        assert stepper.configuration == move.configuration


# ---- small charts for what our own cannot get wrong with one edit -----------------------------
def small(states: dict[str, Any], **sections: Any) -> Document:
    return from_mapping(
        {
            "format": "swapchart.chart/v1",
            "events": {"go": {}, "ring": {"origin": "timer", "of": "bell"}},
            "actions": {
                "arm": {"do": {"effect": "timer.start", "timer": "bell"}},
                "disarm": {"do": {"effect": "timer.cancel", "timer": "bell"}},
            },
            **sections,
            "chart": {"states": states},
        }
    )


PING: dict[str, Any] = {
    "calm": {"initial": True, "transitions": [{"event": "go", "target": "ping"}]},
    "ping": {"enter": "arm", "transitions": [{"event": "ring", "target": "pong"}, {"event": "go"}]},
    "pong": {
        "enter": "arm",
        "exit": "disarm",
        "transitions": [{"event": "ring", "target": "ping"}, {"event": "go", "target": "calm"}],
    },
}


def test_endless_loop_is_found() -> None:
    """A loop that the world alone keeps going, with no way out of it, is found."""
    report = check(small(PING, promises={"rest": "calm"}))

    assert only("a reachable state with no way to rest", report) == "ping has no way out"


def with_exit(**promises: Any) -> Document:
    """Return the loop with an event of the world that may end it, or never come."""
    states = copy.deepcopy(PING)
    states["pong"]["transitions"].append({"event": "end", "target": "calm"})
    for name in ("calm", "ping"):
        states[name]["transitions"].append({"event": "end"})
    events = {"go": {}, "ring": {"origin": "timer", "of": "bell"}, "end": {"origin": "process"}}
    return small(states, events=events, promises={"rest": "calm", **promises})


def test_endless_loop_that_may_be_left_is_found() -> None:
    """What need not come ends nothing; what does not repeat for ever does."""
    report = check(with_exit())

    assert only("a reachable state with no way to rest", report) == (
        "it can go round for ever: ping, pong"
    )
    assert check(with_exit(patience="ring")).is_ok


def test_chart_without_promises_breaks_none() -> None:
    """Without promises only what is always wrong is looked for."""
    assert check(small(PING)).is_ok


def test_chart_must_be_able_to_end_if_it_has_an_end() -> None:
    """A trap from which no event leads to the final state is found."""
    states = {
        "one": {
            "initial": True,
            "transitions": [{"event": "go", "target": "end"}, {"event": "ring", "target": "trap"}],
        },
        "trap": {
            "transitions": [
                {"event": "go", "target": "end", "cond": "never"},
                {"event": "go"},
                {"event": "ring"},
            ]
        },
        "end": {"final": True},
    }
    events: dict[str, Any] = {"go": {}, "ring": {}}
    document = small(states, events=events, actions={}, guards={"never": "1 == 2"})

    assert only("a state from which the chart cannot end", check(document)) == (
        "trap cannot reach a final state"
    )


def test_state_that_cannot_be_reached_is_found() -> None:
    """The library sees an edge to it; the guard on the edge never holds."""
    states = {
        "one": {
            "initial": True,
            "transitions": [{"event": "go", "target": "two", "cond": "never"}, {"event": "go"}],
        },
        "two": {"transitions": [{"event": "go"}]},
    }
    document = small(states, events={"go": {}}, actions={}, guards={"never": "1 == 2"})
    report = check(document)

    assert only("a state that is never reached", report) == "two is never active, whatever happens"
    assert str(report.findings[0]) == (
        "a state that is never reached: two is never active, whatever happens\n"
        "  to cure it: check the guards on the way to it, or remove it"
    )


def test_counts_beyond_the_bounds_are_not_explored() -> None:
    """A counter without end is explored up to the bound, and what lies beyond is no finding."""
    states = {
        "one": {"initial": True, "transitions": [{"event": "go", "on": "count"}]},
    }
    document = small(
        states,
        events={"go": {"origin": "timer", "of": "bell"}},
        data={"n": {"initial": 0}},
        actions={
            "count": {"set": {"n": "n + 1"}, "do": {"effect": "timer.start", "timer": "bell"}}
        },
    )
    moving = merge(document, {"states": {"one": {"enter": "arm"}}, "promises": {"rest": []},
        "actions": {"arm": {"do": {"effect": "timer.start", "timer": "bell"}}},
    })  # fmt: skip

    assert check(moving, bounds=Bounds(counts=5)).states == 6
    assert check(moving).is_ok


def test_initial_state_is_checked() -> None:
    """What is wrong before the first event has a trace of one move."""
    document = merge(
        lifecycle(),
        {"promises": {"always": [{"why": "never at rest", "in": "stopped", "then": "wanted"}]}},
    )
    finding = check(document, stop_at_first=True).findings[0]

    assert finding.sentence == "never at rest"
    assert [str(move) for move in finding.trace] == ["begin -> alive.stopped"]


def test_shortest_trace_of_all_parameters_is_kept() -> None:
    """A finding of several sets of parameters is shown once, by its shortest way."""
    overlay = {
        "states": {
            "terminating": {"transitions_before": [{"event": "sleep", "target": "ready"}]},
        }
    }
    document = merge(lifecycle(), overlay)
    sets = list(parameter_sets(document, Bounds()))[:2]

    report = check(document, parameters=sets)

    ways = [check(document, parameters=[values]) for values in sets]
    for finding in report.findings:
        same = [
            len(other.trace)
            for way in ways
            for other in way.findings
            if (other.kind, other.sentence) == (finding.kind, finding.sentence)
        ]
        assert len(finding.trace) == min(same)


def test_promise_on_a_field_applies_to_events_that_have_it() -> None:
    """An expression that reads a field says nothing of events without it: it does not hold."""
    always = {"why": "every end is a crash", "if": "abnormal or not abnormal", "then": "abnormal"}
    report = broken({"promises": {"always": [always]}})

    assert report.findings[0].sentence == "every end is a crash"
    assert report.findings[0].trace[-1].event == "proc_exited(abnormal=False)"


def test_exploration_beyond_its_limit_is_a_finding() -> None:
    """The checker gives up with a finding instead of going on for hours."""
    report = check(lifecycle(), parameters=FIRST, most=100)

    assert only("too much to explore", report) == "more than 100 situations"


def test_chart_without_an_active_leaf_is_found() -> None:
    """A history without a default, which no document may have, leaves nothing active."""
    states = {
        "box": {
            "transitions": [{"event": "ring"}, {"event": "go", "target": "out"}],
            "history": {"last": {"transitions": [{"target": "inner"}]}},
            "states": {"inner": {"initial": True}},
        },
        "out": {
            "initial": True,
            "transitions": [{"event": "go", "target": "last"}, {"event": "ring"}],
        },
    }
    document = small(states, events={"go": {}, "ring": {}}, actions={})
    assert check(document).is_ok
    chart = copy.deepcopy(dict(document.chart))
    chart["states"]["box"]["history"]["last"]["transitions"] = []

    report = check(replace(document, chart=chart))

    assert "an empty configuration" in {finding.kind for finding in report.findings}


def test_checker_with_stop_at_first_returns_early() -> None:
    """`stop_at_first` returns early."""
    document = merge(lifecycle(), {"states": {"health_checking": {"exit": None}}})

    quick = check(document, stop_at_first=True)

    assert not quick.is_ok
    assert len(quick.runs) == 1
    assert quick.edges < check(document, parameters=FIRST).edges


def test_inputs_are_written_as_calls() -> None:
    """An event with fields reads as what it is."""
    assert str(Input("proc_exited", (("abnormal", True),))) == "proc_exited(abnormal=True)"
