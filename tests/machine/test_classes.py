"""A python-statemachine class as a document: said exactly, or refused with every reason."""

from __future__ import annotations

import re
from typing import Any

import pytest
from statemachine import Event, HistoryState, State, StateChart

from swapchart.machine import ChartError, Compiled, compile_chart, from_class, read, to_yaml
from swapchart.machine.checking.explore import Bounds, behavior, parameter_sets

from .charts import NAMES, chart

#: What every chart of ours is, as flags of a class.
STRICT: dict[str, Any] = {
    "allow_event_without_transition": False,
    "catch_errors_as_events": False,
}


class Door(StateChart[Any]):
    """A door as an embedder would write it: names of actions and guards, no code."""

    allow_event_without_transition = False
    catch_errors_as_events = False

    class inside(State.Compound):  # noqa: N801 (a state is what its attribute is called)
        shut = State(initial=True, enter="note_shut")
        ajar = State(exit="note_moved")
        last = HistoryState()
        _ = last.to(shut)
        push = shut.to(ajar, cond="is_unlocked", on="count") | ajar.to(shut, unless="is_unlocked")
        stay = shut.to(ajar, cond="is_unlocked") | ajar.to(ajar)

    outside = State()
    gone = State(final=True)
    leave = inside.to(outside)
    back = outside.to(inside.last)
    demolish = outside.to(gone)


CATALOGUE: dict[str, Any] = {
    "data": {"pushes": {"initial": 0}},
    "guards": {"is_unlocked": "pushes < 2"},
    "actions": {
        "count": {"set": {"pushes": "min(pushes + 1, 3)"}},
        "note_shut": {"do": {"effect": "notify", "name": "shut"}},
        "note_moved": {"do": {"effect": "notify", "name": "moved"}},
    },
}


def test_class_becomes_an_equivalent_document() -> None:
    """States, history, guards and the order of actions come through; the copy steps alike."""
    document = from_class(Door, CATALOGUE)

    assert document.name == "Door"
    assert set(document.events) == {"push", "stay", "leave", "back", "demolish"}
    again = read(to_yaml(document))
    assert behavior(again) == behavior(document)
    stepper = Compiled(document).stepper()
    for event in ("push", "leave", "back"):
        stepper.step(event)
    assert stepper.configuration == ("inside", "ajar")


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_document_compiled_and_read_back_is_equal(name: str) -> None:
    """From a document to a class and back is the document, in all that it does."""
    document = chart(name)
    catalog = {key: document.source.get(key) for key in ("data", "parameters", "events")}
    catalog |= {key: document.source.get(key) for key in ("guards", "actions", "promises")}

    again = from_class(compile_chart(document), catalog)

    parameters = next(parameter_sets(document, Bounds()))
    assert behavior(again, parameters=parameters, counts=1) == behavior(
        document, parameters=parameters, counts=1
    )
    assert again.promises == document.promises


def test_names_without_meaning_are_refused() -> None:
    """A class names actions and guards; what they mean must come beside it."""
    with pytest.raises(ChartError) as caught:
        from_class(Door)

    notes = "\n".join(caught.value.__notes__)
    for line in (
        "unknown action 'count'; declare it under `actions`",
        "unknown guard 'is_unlocked'; declare it under `guards`",
    ):
        assert line in notes


def yes() -> bool:
    """Stand for any function used as a guard."""
    return True


class Restless(StateChart[Any]):
    """A chart that does its work by itself, where ours would start activities and timers."""

    allow_event_without_transition = False
    catch_errors_as_events = False

    one = State(initial=True, invoke=yes)
    two = State(final=True)
    late = Event(one.to(two), delay=50)
    hidden = Event(one.to(two, cond="later"), internal=True)


def test_class_with_autonomous_behavior_is_refused() -> None:
    """Invoked services and delayed or internal events have no place in a document."""
    with pytest.raises(ChartError) as caught:
        from_class(Restless)

    assert caught.value.__notes__[0].splitlines() == [
        "one: invoke: start an activity on entry instead",
        "one.late: a delay of 50 ms: start a timer instead",
        "one.hidden: an internal event: use an eventless transition",
    ]


class Done(StateChart[Any]):
    """A chart whose compound state ends: the event's attribute has underscores for its dots."""

    allow_event_without_transition = False
    catch_errors_as_events = False

    class work(State.Compound):  # noqa: N801 (a state is what its attribute is called)
        doing = State(initial=True)
        finished = State(final=True)
        finish = doing.to(finished)

    over = State(final=True)
    done_state_work = work.to(over)


def test_end_of_a_compound_state_is_one_event() -> None:
    """Of the two names the library gives it, only the dotted one is written."""
    document = from_class(Done)
    stepper = Compiled(document).stepper()

    stepper.step("finish")

    assert list(document.events) == ["finish"]
    assert stepper.is_final


class Listener:
    """Stand for any listener."""


def test_class_features_without_a_document_form_are_listed() -> None:
    """Code, delays, validators, invoked services, names and values of states: none is dropped."""

    class Messy(StateChart[Any]):
        listeners = [Listener()]  # noqa: RUF012 (this is how the library wants it)
        one = State("First", initial=True, value=1)
        two = State(enter="shout")
        go = one.to(two, cond=yes, validators="check", on=lambda: None)
        again = two.to(two, internal=True)
        back = two.to(one)

        def on_enter_one(self) -> None:
            """Be found by convention."""

        def shout(self) -> None:
            """Be code of the class."""

    with pytest.raises(ChartError) as caught:
        from_class(Messy)

    lines = caught.value.__notes__[0].splitlines()
    assert caught.value.why.endswith(f"(and {len(lines) - 1} more)")
    for line in (
        "listeners: a document has none",
        "one: a value of its own, 1",
        "one.enter: on_enter_one() is called by convention; name an action",
        "two.enter: shout() is code of the class; declare what it asks for",
        "one.go: yes is code; name an action or a guard",
        "one.go: validators: use guards",
        "two.again: internal to itself, it would enter without an exit; leave the target",
    ):
        assert line in lines
    assert any(re.search(r"lambda_on_line_\d+ is code", line) for line in lines)
