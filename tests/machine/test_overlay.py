"""Overlays: a chart is changed by declaration, and what is wrong is said in the overlay's terms."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from swapchart.machine import (
    ChartError,
    Compiled,
    StartActivity,
    StartTimer,
    check,
    lifecycle,
    merge,
    to_yaml,
)
from swapchart.machine.checking.explore import Bounds, parameter_sets
from swapchart.machine.format.parse import load_yaml

#: A user's hook point before each launch, in a state of its own that behaves as before_start does.
PREPARING: dict[str, Any] = load_yaml("""
actions:
  run_before_launch: {do: {effect: activity.start, activity: hooks, point: beforeLaunch}}
states:
  before_start:
    remove_transitions: [{event: hooks_done, target: launching}]
    transitions: [{event: hooks_done, target: preparing}]
  preparing:
    inside: starting
    enter: run_before_launch
    exit: cancel_hooks
    transitions:
      - {event: hooks_done, target: launching}
      - {event: hooks_failed, target: on_failure, on: want_retry}
      - {event: abandon, target: after_stop, cond: nobody_waits, on: want_stop}
      - {event: stop, target: after_stop, on: want_stop}
      - {event: shutdown, target: after_stop, on: want_shutdown}
      - {event: kill, target: after_stop, on: [want_stop, hurry]}
promises:
  always:
    - why: nothing is launched unprepared
      into: [launching]
      from: [stopped, before_start]
      never: [launching]
""")


def test_overlay_custom_hook_point_runs_before_each_launch() -> None:
    """The chart goes through the new state, asks for its hooks, and keeps every promise."""
    document = merge(lifecycle(), PREPARING)
    stepper = Compiled(document).stepper()

    stepper.step("request")
    effects = stepper.step("hooks_done")

    assert stepper.configuration[-1] == "preparing"
    assert StartActivity("hooks", "beforeLaunch") in effects
    stepper.step("hooks_done")
    assert stepper.configuration[-1] == "launching"
    corners = list(parameter_sets(document, Bounds()))
    assert check(document, parameters=[corners[0], corners[-1]]).is_ok


def test_overlay_that_breaks_a_promise_is_refuted_with_a_trace() -> None:
    """Without a word on stop, the new state would terminate a process that is not there."""
    naive = copy.deepcopy(PREPARING)
    naive["states"]["preparing"]["transitions"] = naive["states"]["preparing"]["transitions"][:2]

    report = check(merge(lifecycle(), naive), stop_at_first=True)

    finding = report.findings[0]
    assert finding.kind == "a signal without a process"
    assert [move.configuration[-1] for move in finding.trace] == [
        "stopped", "before_start", "preparing", "terminating",
    ]  # fmt: skip


def test_overlay_does_not_change_its_base() -> None:
    """Laying an overlay over a chart changes neither the chart nor the overlay."""
    before, overlay = to_yaml(lifecycle()), copy.deepcopy(PREPARING)

    merge(lifecycle(), overlay)

    assert to_yaml(lifecycle()) == before
    assert overlay == PREPARING


def test_overlays_can_be_stacked() -> None:
    """What comes out is a document, over which another overlay can be laid."""
    once = merge(lifecycle(), PREPARING)

    twice = merge(once, {"name": "Mine", "states": {"preparing": {"enter": "arm_stable"}}})

    definition = next(body for name, body, _ in twice.states() if name == "preparing")
    assert definition["enter"] == ["run_before_launch", "arm_stable"]
    assert twice.name == "Mine"


def test_overlay_that_is_empty_changes_nothing() -> None:
    """Nothing laid over a chart leaves a chart that is equal in all but its form."""
    document = merge(lifecycle(), {})

    assert (document.events, document.actions, document.promises) == (
        lifecycle().events, lifecycle().actions, lifecycle().promises,
    )  # fmt: skip
    assert check(document, parameters=[next(parameter_sets(document, Bounds()))]).is_ok


@pytest.mark.parametrize(
    ("where", "why", "overlay"),
    [
        ("overlay", "expected a mapping, got list", []),
        ("overlay.color", "unknown key; known: name, version", {"color": {}}),
        ("overlay", "expected a text as key, got 3", {3: {}}),
        ("overlay.actions", "expected a mapping, got str", {"actions": "x"}),
        (
            "overlay.guards.idl",
            "there is nothing of this name to remove",
            {"guards": {"idl": None}},
        ),
        ("overlay.guards.idle", "expected an expression", {"guards": {"idle": "1 +"}}),
        (
            "overlay.actions.x",
            "declared but not used",
            {"actions": {"x": {"set": {"wanted": "True"}}}},
        ),
        ("overlay.promises.loud", "unknown key", {"promises": {"loud": []}}),
        ("overlay.promises.rest", "unknown state 'bed'", {"promises": {"rest": "bed"}}),
        (
            "overlay.promises.always[0]",
            "unknown state 'bed'",
            {"promises": {"always": [{"why": "x", "to": "bed"}]}},
        ),
        (
            "overlay, laid over the chart: format",
            "expected 'swapchart.chart/v1', got None",
            "a document without format",
        ),
        (
            "overlay.states.nowhere",
            "there is no state of this name to remove",
            {"states": {"nowhere": None}},
        ),
        ("overlay.states.new", "a new state needs `inside`", {"states": {"new": {}}}),
        (
            "overlay.states.new.inside",
            "unknown state 'house'",
            {"states": {"new": {"inside": "house"}}},
        ),
        (
            "overlay.states.ready.inside",
            "expected for a new state only",
            {"states": {"ready": {"inside": "alive"}}},
        ),
        ("overlay.states.ready.color", "unknown key", {"states": {"ready": {"color": 1}}}),
        ("overlay.states.ready", "expected a mapping, got int", {"states": {"ready": 1}}),
        (
            "overlay.states.ready.remove_transitions[0]",
            "no transition of this state is like that",
            {"states": {"ready": {"remove_transitions": [{"event": "stop", "target": "ready"}]}}},
        ),
        (
            "overlay.states.stopped.exit",
            "there is nothing under this key to remove",
            {"states": {"stopped": {"exit": None}}},
        ),
        (
            "overlay.states.stopped.final",
            "there is nothing of this name to remove",
            {"states": {"stopped": {"final": None}}},
        ),
        (
            "overlay.states.new.transitions[0].target",
            "unknown state 'moon'",
            {
                "states": {
                    "new": {"inside": "alive", "transitions": [{"event": "stop", "target": "moon"}]}
                }
            },
        ),
        (
            "overlay, laid over the chart: "
            "chart.states.alive.states.stopping.states.concluded.transitions[1].target",
            "unknown state 'crashed'",
            {"states": {"crashed": None}},
        ),
        (
            "overlay.events.stable",
            "unknown event 'stable'",
            {"events": {"stable": None}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_overlay_mistake_is_reported_at_its_path(where: str, why: str, overlay: Any) -> None:
    """The error names the path in the overlay and what was expected there."""
    base = lifecycle()
    if overlay == "a document without format":
        base, overlay = replace(base, source={**base.source, "format": None}), {}

    with pytest.raises(ChartError) as caught:
        merge(base, overlay)

    assert caught.value.where == where
    assert why in caught.value.why


def test_promises_can_be_dropped_and_replaced() -> None:
    """A list is added to, null drops it, and what is one thing is replaced."""
    document = merge(
        lifecycle(),
        {"promises": {"pairs": None, "quiet": "asleep", "stopping": "sleeping", "rest": None}},
    )

    assert document.promises.pairs == ()
    assert document.promises.rest == frozenset()
    assert document.promises.quiet == lifecycle().promises.quiet | {"asleep"}
    assert document.promises.stopping == "sleeping"


def test_overlay_adds_a_timer() -> None:
    """An overlay adds a timer with its event, and the state that arms it."""
    overlay = load_yaml("""
events: {bored: {origin: timer, of: boredom}}
actions:
  arm_boredom: {do: {effect: timer.start, timer: boredom}}
  cancel_boredom: {do: {effect: timer.cancel, timer: boredom}}
  tell: {do: {effect: notify, name: bored}}
promises: {unsure: boredom}
states:
  half_open: {enter: arm_boredom, exit: cancel_boredom, transitions: [{event: bored, on: tell}]}
""")
    document = merge(lifecycle(), overlay)
    stepper = Compiled(document).stepper(intensity=1)
    for event in ("request", "hooks_failed", "hooks_done", "hooks_done", "settled", "cooled"):
        effects = stepper.step(event)

    assert stepper.configuration[-1] == "half_open"
    assert StartTimer("boredom") in effects
    assert check(document, parameters=[next(parameter_sets(document, Bounds()))]).is_ok


def test_overlay_removes_a_state() -> None:
    """Null removes a state with all that only it used, once nothing leads to it any more."""
    document = merge(
        lifecycle(),
        load_yaml("""
events: {doze_expired: null, asleep_expired: null, sleep: null}
actions: {arm_idle_limits: {when: in_flight == 0, do: {effect: timer.start, timer: idle_limit}},
          cancel_idle_limits: {do: {effect: timer.cancel, timer: idle_limit}}}
promises: {always: null, unsure: null, rest: null, reliable: [announce, health, terminate]}
states:
  sleeping: null
  ready: {remove_transitions: [{event: doze_expired}, {event: sleep}]}
  stopped: {remove_transitions: [{event: sleep}, {event: adopted, target: asleep}]}
  starting: {remove_transitions: [{event: sleep}]}
  backoff: {remove_transitions: [{event: sleep}]}
  failed: {remove_transitions: [{event: sleep}]}
  stopping: {remove_transitions: [{event: sleep}]}
"""),
    )

    assert "asleep" not in {name for name, _, _ in document.states()}
    assert "run_suspend" not in document.actions
    assert check(document, parameters=[next(parameter_sets(document, Bounds()))]).is_ok


def test_overlay_adds_states_at_the_top_and_in_an_atomic_state() -> None:
    """A new state may stand beside all others, or be the first inside one that had none."""
    document = merge(
        lifecycle(),
        load_yaml("""
states:
  broken: {inside: null, final: true}
  deeper: {inside: half_open, initial: true}
  half_open: {transitions: [{event: abandon, target: broken}]}
promises: {rest: deeper, quiet: [deeper, broken]}
"""),
    )

    above = {name: ancestors for name, _, ancestors in document.states()}
    assert above["broken"] == ()
    assert above["deeper"] == ("alive", "failed", "half_open")


def test_overlay_with_short_forms_adds_what_they_stand_for() -> None:
    """A state of an overlay has `after`, `invoke` and `ignores`, and keeps every promise."""
    document = merge(
        lifecycle(),
        {
            "timers": {"patience": "30s"},
            "promises": {"unsure": ["patience"]},
            "states": {
                "asleep": {
                    "after": {"patience": {"on": {"do": {"effect": "notify", "name": "still"}}}}
                }
            },
        },
    )

    asleep = next(dict(body) for name, body, _ in document.states() if name == "asleep")
    assert document.timers == {"patience": 30}
    assert asleep["enter"] == ["arm_patience", "arm_asleep_limit"]
    assert asleep["transitions"][-1] == {"event": "patience_expired", "on": "notify_still"}
    assert check(document, parameters=list(parameter_sets(document, Bounds(counts=1)))[:1]).is_ok


def test_overlay_mistake_in_short_form_is_reported_at_its_path() -> None:
    """The path is that of the short form in the overlay."""
    with pytest.raises(ChartError) as caught:
        merge(lifecycle(), {"states": {"asleep": {"after": {"5s": "moon"}}}})

    assert caught.value.where == "overlay.states.asleep.after.5s.target"
    assert "unknown state 'moon'" in caught.value.why


def test_overlay_removes_one_ignored_event_of_several() -> None:
    """Each event under `ignores` is a transition of its own."""
    document = merge(
        lifecycle(), {"states": {"ready": {"remove_transitions": [{"event": "start"}]}}}
    )

    ready = next(dict(body) for name, body, _ in document.states() if name == "ready")
    ignored = [item["event"] for item in ready["transitions"] if set(item) == {"event"}]
    assert ignored == ["idle_expired", "doze_expired", "sleep"]
