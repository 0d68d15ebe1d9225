"""What a format says is what the document says: proven by exploring both."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

import pytest
from statemachine.io import load
from statemachine.orderedset import OrderedSet

from swapchart.machine import (
    ChartError,
    ChartStepper,
    Document,
    build_context,
    from_mapping,
    native_yaml,
    read,
    to_json,
    to_scxml,
    to_yaml,
)
from swapchart.machine.checking.explore import Behavior, Bounds, Input, behavior, parameter_sets
from swapchart.machine.document import Configuration, Memory, Value
from swapchart.machine.effects import describe
from swapchart.machine.microsteps import MicrostepRunner, resume

from .charts import NAMES, chart

#: (configuration, data, memory)
Snapshot = tuple[Configuration, tuple[Value, ...], Memory]


def parameter_corners(document: Document) -> list[dict[str, Value]]:
    """Return all sets of parameters where they are few, else those of the corners."""
    sets = list(parameter_sets(document, Bounds()))
    return sets if len(sets) < 9 else [sets[0], sets[-1]]


def explored(document: Document, parameters: Mapping[str, Value]) -> Behavior:
    """Return what *document* does; our own chart, which is large, with counts up to one."""
    counts = 1 if document.name == "Lifecycle" else 2
    return behavior(document, parameters=parameters, counts=counts)


def representatives(found: Behavior) -> Iterator[tuple[Snapshot, Input]]:
    """Yield one snapshot and input for each different thing the chart can do.

    Different means: another configuration, another input, or another outcome of it.
    """
    seen = set()
    for snapshot, row in found.reactions.items():
        for what, reaction in row.items():
            outcome = None if reaction is None else (reaction.configuration, reaction.effects)
            key = (snapshot[0], snapshot[2], what, outcome)
            if key not in seen:
                seen.add(key)
                yield snapshot, what


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
@pytest.mark.parametrize("write", [to_yaml, to_json], ids=["yaml", "json"])
def test_yaml_and_json_read_back_equal(write: Any, name: str) -> None:
    """A document read back is equal, and does the same in every snapshot on every input."""
    document = chart(name)

    again = read(write(document))

    assert again == document
    for parameters in parameter_corners(document):
        ours = explored(document, parameters)
        assert explored(again, parameters) == ours
        assert len(ours.reactions) > 3


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_native_chart_is_equivalent_to_the_compiled_one(name: str) -> None:
    """python-statemachine's own loader makes a class that behaves as our compiled one does."""
    document = chart(name)
    native = load(native_yaml(document), format="yaml", validate=True)
    for parameters in parameter_corners(document):
        found = explored(document, parameters)
        runner = MicrostepRunner(document, native)
        stepper = ChartStepper(runner, build_context(document)(**parameters))
        stepper.begin()
        checked = 0
        for (configuration, values, memory), what in representatives(found):
            expected = found.reactions[configuration, values, memory][what]
            stepper.restore(configuration, values, memory)
            effects = stepper.step(what.event, dict(what.data))
            checked += 1
            # A loaded class ignores an event that no state handles, where ours raises.
            now = (stepper.configuration, stepper.context.values(), stepper.memory)
            if expected is None:
                assert (*now, effects) == (configuration, values, memory, [])
            else:
                assert (*now, tuple(effects)) == expected[:4]
        assert checked >= 3


class ScxmlStepper:
    """Steps a chart that python-statemachine loaded from SCXML; its logs are the effects."""

    def __init__(self, document: Document, parameters: Mapping[str, Value]) -> None:
        self._names = list(document.data)
        self._order = [name for name, _, _ in document.states()]
        self._parameters = parameters
        with redirect_stdout(io.StringIO()):
            chart_class = load(to_scxml(document), format="scxml", trusted=True)
            self._machine: Any = chart_class()

    def step(self, snapshot: Snapshot, what: Input) -> tuple[Any, ...]:
        """Return configuration, data, memory and effects after *what*."""
        configuration, values, memory = snapshot
        machine, model = self._machine, self._machine.model
        resume(machine, model, configuration, memory)
        model.state = OrderedSet(configuration)
        for name, value in [*zip(self._names, values, strict=True), *self._parameters.items()]:
            setattr(model, name, value)
        with redirect_stdout(io.StringIO()) as out:
            machine.send(what.event, **dict(what.data))
        after = tuple(getattr(model, name) for name in self._names)
        active = {str(state.id) for state in machine.configuration}
        configuration = tuple(name for name in self._order if name in active)
        return configuration, after, logged(out.getvalue())


def logged(text: str) -> list[str]:
    """Return effects as `describe` writes them, from lines such as ``timer.start: 'grace'``."""
    lines = (line.partition(": ") for line in text.splitlines())
    return [f"{kind} {rest[1:-1]}".strip() for kind, _, rest in lines]


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_scxml_is_equivalent_to_the_document(name: str) -> None:
    """The library's SCXML reader makes a machine with our states, data and effects."""
    document = chart(name)
    for parameters in parameter_corners(document):
        found = explored(document, parameters)
        stepper = ScxmlStepper(document, parameters)
        for snapshot, what in representatives(found):
            expected = found.reactions[snapshot][what]
            configuration, values, effects = stepper.step(snapshot, what)
            if expected is None:
                assert (configuration, values, effects) == (*snapshot[:2], [])
            else:
                assert (configuration, values) == expected[:2]
                assert effects == [describe(effect) for effect in expected.effects]


def small(**changes: Any) -> Document:
    raw = {
        "format": "swapchart.chart/v1",
        "data": {"a": {"initial": 0}, "b": {"initial": 1}},
        "events": {"go": {}},
        "actions": {"act": {"set": {"a": "b"}}},
        "chart": {
            "states": {
                "one": {
                    "initial": True,
                    "transitions": [{"event": "go", "target": "two", "on": "act"}],
                },
                "two": {"transitions": [{"event": "go", "target": "one"}]},
            }
        },
    }
    return from_mapping({**raw, **changes})


def test_scxml_refuses_data_that_read_each_other() -> None:
    """A swap cannot be written as one assignment after the other, and is not written at all."""
    document = small(actions={"act": {"set": {"a": "b", "b": "a"}}})

    with pytest.raises(ChartError, match=r"actions\.act\.set: SCXML assigns one after the other"):
        to_scxml(document)


@pytest.mark.parametrize("slot", ["before", "after"])
def test_scxml_refuses_actions_around_a_change_of_state(slot: str) -> None:
    """What runs before the exits or after the entries has no place in SCXML."""
    transition = {"event": "go", "target": "two", slot: "act"}
    states = {
        "one": {"initial": True, "transitions": [transition]},
        "two": {"transitions": [{"event": "go", "target": "one"}]},
    }

    with pytest.raises(ChartError, match=rf"chart\.one\.transitions\[0\]\.{slot}: SCXML runs"):
        to_scxml(small(chart={"states": states}))


def test_scxml_keeps_the_order_of_assignments_that_read_old_values() -> None:
    """``a`` takes the old ``b`` although ``b`` is written first in the document."""
    document = small(actions={"act": {"set": {"b": "0", "a": "b"}}})

    text = to_scxml(document)

    assert text.index('location="a"') < text.index('location="b"')


def test_scxml_internal_transition_lists_all_actions() -> None:
    """In a transition that stays, the three lists of actions are one after the other."""
    actions = {name: {"do": {"effect": "notify", "name": name}} for name in ("one_", "two_", "act")}
    stays = {"event": "go", "before": "one_", "on": "act", "after": "two_"}
    states = {"one": {"initial": True, "transitions": [stays]}}
    document = small(actions=actions, chart={"states": states})

    configuration, _, effects = ScxmlStepper(document, {}).step((("one",), (0, 1), ()), Input("go"))

    assert configuration == ("one",)
    assert effects == ["notify one_", "notify act", "notify two_"]
