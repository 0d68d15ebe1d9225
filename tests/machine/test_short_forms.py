"""Short forms of the format: what they stand for, and where their problems are reported."""

from __future__ import annotations

from typing import Any

import pytest

from swapchart.machine import ChartError, Compiled, Document, NotHandledError, read, to_yaml
from swapchart.machine.format.durations import seconds_of
from swapchart.machine.format.state_tests import without_state_tests

HEAD = "format: swapchart.chart/v1\n"


def plain(document: Document) -> dict[str, Any]:
    """Return the expanded document without its format."""
    return {key: value for key, value in document.source.items() if key != "format"}


def state(document: Document, name: str) -> dict[str, Any]:
    """Return the definition of a state of *document*."""
    return next(dict(body) for state, body, _ in document.states() if state == name)


def test_after_with_duration_declares_timer_event_and_actions() -> None:
    """A duration stands for a timer of that many seconds, armed on entry and canceled on exit."""
    document = read(
        HEAD + "chart: {states: {a: {initial: true, after: {1h30m: b}}, b: {final: true}}}"
    )

    assert document.timers == {"a_after_1h30m": 5400}
    assert document.events["a_after_1h30m"].of == "a_after_1h30m"
    assert state(document, "a") == {
        "initial": True,
        "enter": "arm_a_after_1h30m",
        "exit": "cancel_a_after_1h30m",
        "transitions": [{"event": "a_after_1h30m", "target": "b"}],
    }
    assert read(to_yaml(document)) == document


def test_after_with_timer_name_uses_declared_event_and_actions() -> None:
    """What the author declares under the same names is used instead of what would be made."""
    document = read(
        HEAD + "timers: {limit: 5s}\nevents: {late: {origin: timer, of: limit}}\n"
        "actions: {arm_limit: {when: '1 == 1', do: {effect: timer.start, timer: limit}}}\n"
        "chart: {states: {a: {initial: true, after: {limit: [{target: b}]}}, b: {final: true}}}"
    )

    assert document.actions["arm_limit"].when == "1 == 1"
    assert state(document, "a")["transitions"] == [{"event": "late", "target": "b"}]


def test_invoke_declares_answers_and_failure() -> None:
    """Done, error and answers are events of the activity, which ends with the state."""
    document = read(
        HEAD + "chart: {states: {a: {initial: true, invoke: {activity: pay, done: b, error: c,"
        " answers: {declined: c}}}, b: {final: true}, c: {final: true}}}"
    )

    events = {name: (event.of, event.on) for name, event in document.events.items()}
    assert events == {
        "pay_done": ("pay", "done"), "pay_failed": ("pay", "error"), "declined": ("pay", ""),
    }  # fmt: skip
    assert state(document, "a")["enter"] == "start_pay"
    assert state(document, "a")["exit"] == "cancel_pay"


def test_ignores_wildcard_and_unhandled_become_transitions() -> None:
    """Each stands for a transition that names its events."""
    document = read(
        HEAD + "unhandled: ignore\nevents: {go: {}, stop: {}, loud: {unhandled: error}}\n"
        "chart: {states: {a: {initial: true, ignores: loud, transitions: [{event: go, target: b}]},"
        " b: {transitions: [{event: '*', target: a}]}}}"
    )

    assert state(document, "a")["transitions"][1:] == [{"event": "loud"}, {"event": "go stop"}]
    assert state(document, "b")["transitions"][0]["event"] == "go stop loud"
    stepper = Compiled(document).stepper()
    stepper.begin()
    assert stepper.step("stop") == []


def test_event_not_ignored_is_still_an_error() -> None:
    """Without `unhandled`, an event that no state takes raises."""
    document = read(
        HEAD + "events: {go: {}, stop: {}}\nchart: {states: {a: {initial: true, transitions:"
        " [{event: go, target: b}]}, b: {transitions: [{event: stop, target: a}]}}}"
    )
    stepper = Compiled(document).stepper()
    stepper.begin()

    with pytest.raises(NotHandledError):
        stepper.step("stop")


def test_guard_and_action_in_place_of_name_are_named() -> None:
    """They are declared under a name that says what they do, once for equal ones."""
    document = read(
        HEAD + "data: {n: {initial: 0}}\nevents: {go: {}}\n"
        "chart: {states: {a: {initial: true, transitions: [\n"
        "  {event: go, cond: n < 2, on: {set: {n: n + 1}}},\n"
        "  {event: go, cond: [n < 2, n != 1], on: [{set: {n: n + 1}}]},\n"
        "  {event: go, on: {do: {effect: notify, name: full}}}]}}}"
    )

    assert document.guards == {"n_lt_2": "n < 2", "n_is_not_1": "n != 1"}
    assert set(document.actions) == {"set_n", "notify_full"}


def test_in_state_is_true_while_the_state_is_active() -> None:
    """A region waits for a state of another one, by table and by python-statemachine."""
    document = read(
        HEAD + "events: {pay: {}, refund: {}, ship: {}}\n"
        "chart: {states: {all: {initial: true, parallel: true, states: {\n"
        "  money: {states: {due: {initial: true, transitions: [{event: pay, target: paid}]},\n"
        "    paid: {transitions: [{event: refund, target: due}]}}},\n"
        "  goods: {states: {here: {initial: true, transitions: [\n"
        "    {event: ship, target: gone, cond: in(paid)}, {event: ship}]}, gone: {}}}}}}}"
    )

    for make in (Compiled(document).stepper, Compiled(document).reference):
        stepper = make()
        stepper.begin()
        for event in ("ship", "pay", "refund", "ship"):
            stepper.step(event)
            assert "gone" not in stepper.configuration
        stepper.step("pay")
        stepper.step("ship")
        assert {"gone", "paid"} <= set(stepper.configuration)


def test_raised_event_is_taken_within_the_step() -> None:
    """An action sends an event to its own chart; what takes it belongs to the same step."""
    document = read(
        HEAD + "events: {go: {}, inner: {origin: chart}}\n"
        "chart: {states: {a: {initial: true, transitions: [{event: go, target: b, on:"
        " {raise: inner}}]}, b: {transitions: [{event: inner, target: c}]}, c: {final: true}}}"
    )

    for make in (Compiled(document).stepper, Compiled(document).reference):
        stepper = make()
        stepper.begin()
        stepper.step("go")
        assert stepper.configuration == ("c",)
        assert stepper.is_final


@pytest.mark.parametrize(
    ("chart", "error"),
    [
        (
            "a: {initial: true, after: {soon: b}}, b: {}",
            "3:45: chart.states.a.after.soon: expected a",
        ),
        (
            "a: {initial: true, after: {2d: c}}, b: {}",
            "chart.states.a.after.2d.target: unknown state 'c'",
        ),
        ("a: {initial: true, ignores: [gone]}", "chart.states.a.ignores[0]: unknown event 'gone';"),
        ("a: {initial: true, transitions: [{event: go, cond: x < 1}]}", ".cond: unknown name 'x'"),
        (
            "a: {initial: true, transitions: [{event: go, cond: in(bb), target: b}]}, b: {}",
            "cond: unknown state 'bb' in `in(bb)`",
        ),
        (
            "a: {initial: true, invoke: {activity: w, answers: {go: b}}}, b: {}",
            "chart.states.a.invoke.answers.go: event 'go' is declared otherwise",
        ),
        ("a: {initial: true, transitons: []}", "did you mean 'transitions'?"),
        ("a: {initial: true, enter: {when: '1 == 1', raise: go}}", "an action with `raise` has no"),
    ],
)
def test_mistake_in_short_form_is_reported_where_it_was_written(chart: str, error: str) -> None:
    """Path, line and column are those of the short form, not of what it stands for."""
    with pytest.raises(ChartError) as caught:
        read(f"{HEAD}events: {{go: {{}}}}\nchart: {{states: {{{chart}}}}}", "x.yaml")

    assert error in "\n".join(caught.value.__notes__)


def test_all_problems_of_all_passes_come_at_once_in_order() -> None:
    """Unknown keys, wrong shapes, undeclared names and broken expressions, each with its line."""
    with pytest.raises(ChartError) as caught:
        read(
            HEAD + "colour: red\n"
            "events:\n  go: {origin: me}\n"
            "chart:\n  states:\n    a:\n      initial: true\n      entry: x\n"
            "      transitions:\n      - {event: og, target: c}\n      - {event: go, cond: 'n <'}\n"
            "    b:\n      initial: yes\n",
            "bad.yaml",
        )

    lines = [(problem.file, problem.position and problem.position[0]) for problem in
             caught.value.problems]  # fmt: skip
    assert lines == [("bad.yaml", line) for line in (2, 4, 9, 11, 11, 12, 14)]
    assert str(caught.value).startswith("bad.yaml:2:1: colour: unknown section; ")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2d", 172_800), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5), (7, 7), ("1w", 604_800)],
)
def test_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    """Units are ms, s, m, h, d and w; a number is seconds."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "d", "-1s", "1y", True, None, -1, "1s " + "1s" * 9])
def test_other_text_is_no_duration(text: object) -> None:
    """A name of a timer is never taken for a duration."""
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("in(a)", "in_a"),
        ("not in(a) and n in(b, 2)", "not in_a and n in(b, 2)"),
        ("n in (b) or in ( c )", "n in (b) or in_c"),
        ("n not in (b)", "n not in (b)"),
        ("(n < 1) in (b)", "(n < 1) in (b)"),
        ("1 if in(a) else in(b)", "1 if in_a else in_b"),
        ("in(a", "in(a"),
        ("'in(a)'", "'in(a)'"),
    ],
)
def test_state_test_is_told_from_membership(text: str, expanded: str) -> None:
    """`in` after a value compares, anywhere else it tests a state."""
    assert without_state_tests(text)[0] == expanded
