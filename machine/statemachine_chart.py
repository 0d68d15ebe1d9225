"""python-statemachine class of a document, made by the library's public factory.

``statemachine.io.load`` is not used, because its classes share data between instances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from statemachine import StateChart
from statemachine.event import BoundEvent
from statemachine.exceptions import InvalidDefinition
from statemachine.io import create_machine_class_from_definition

from .document import Document, as_list
from .errors import ChartError

#: An unhandled event raises, and so does an action that fails: both are bugs. The library's rules
#: for ways through the chart are off: it takes states behind a history state for unreachable, and
#: the checker finds the states from which nothing leads on.
FLAGS = {
    "allow_event_without_transition": False,
    "catch_errors_as_events": False,
    "validate_disconnected_states": False,
    "validate_trap_states": False,
    "validate_final_reachability": False,
}


def compile_chart(document: Document) -> type[StateChart[Any]]:
    """Make the class of *document*; an instance takes a context as its model.

    Raises:
        ChartError: python-statemachine rejects the structure, such as an unreachable state.
    """
    raising = {name: decl.raises for name, decl in document.actions.items() if decl.raises}
    states = _definition(document.chart["states"], raising)
    methods = {_raiser(event): _raise(event) for events in raising.values() for event in events}
    try:
        found = create_machine_class_from_definition(
            document.name, states=states, **FLAGS, **methods
        )
    except InvalidDefinition as error:
        raise ChartError("chart", str(error)) from error
    _drop_conventions(found)
    return found


def _drop_conventions(chart: type[StateChart[Any]]) -> None:
    """Let no action run because of its name: ``after_go`` would, after each event ``go``."""
    parts: list[Any] = [chart, *chart.states_map.values()]
    parts += [item for state in chart.states_map.values() for item in state.transitions]
    for part in parts:
        part._specs.items = [spec for spec in part._specs.items if not spec.is_convention]


def _raiser(event: str) -> str:
    """Return the name of the method of the class that raises *event*."""
    return f"raise__{event.replace('.', '__')}"


def _raise(event: str) -> Callable[[StateChart[Any]], None]:
    def method(self: StateChart[Any]) -> None:
        # `raise_` would also process the queue, in the middle of the step
        BoundEvent(id=event, name=event, internal=True, _sm=self).put()

    return method


def _actions(value: Any, raising: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the callbacks of actions: each by its name, followed by the events that it raises."""
    return [
        callback
        for name in as_list(value)
        for callback in (name, *map(_raiser, raising.get(name, ())))
    ]


def _definition(
    states: Mapping[str, Any], raising: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, raw in states.items():
        state = raw or {}
        entry: dict[str, Any] = {
            key: state[key] for key in ("initial", "final", "parallel") if state.get(key)
        }
        for key in ("enter", "exit"):
            if state.get(key):
                entry[key] = _actions(state[key], raising)
        transitions = [_transition(item, raising) for item in state.get("transitions") or ()]
        if transitions:
            entry["transitions"] = transitions
        if state.get("states"):
            entry["states"] = _definition(state["states"], raising)
        if state.get("history"):
            entry["history"] = {
                key: {
                    **body,
                    "transitions": [
                        _transition(item, raising) for item in body.get("transitions") or ()
                    ],
                }
                for key, body in state["history"].items()
            }
        out[name] = entry
    return out


def _transition(item: Mapping[str, Any], raising: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"target": item.get("target"), "event": item.get("event")}
    for key in ("cond", "unless", "internal"):
        if item.get(key):
            entry[key] = item[key]
    for key in ("on", "before", "after"):
        if item.get(key):
            entry[key] = _actions(item[key], raising)
    return entry
