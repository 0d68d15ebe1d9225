"""python-statemachine class of a document, made by the library's public factory.

``statemachine.io.load`` is not used, because its classes share data between instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemachine import StateChart
from statemachine.exceptions import InvalidDefinition
from statemachine.io import create_machine_class_from_definition
from statemachine.orderedset import OrderedSet

from .document import Configuration, Document, Memory, as_list
from .errors import ChartError

#: An unhandled event raises, and so does an action that fails: both are bugs.
FLAGS = {"allow_event_without_transition": False, "catch_errors_as_events": False}


def compile_chart(document: Document) -> type[StateChart[Any]]:
    """Make the class of *document*; an instance takes a context as its model.

    Raises:
        ChartError: python-statemachine rejects the structure, such as an unreachable state.
    """
    states = _definition(document.chart["states"])
    try:
        return create_machine_class_from_definition(document.name, states=states, **FLAGS)
    except InvalidDefinition as error:
        raise ChartError("chart", str(error)) from error


def _definition(states: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, raw in states.items():
        state = raw or {}
        entry: dict[str, Any] = {
            key: state[key] for key in ("initial", "final", "parallel") if state.get(key)
        }
        for key in ("enter", "exit"):
            if state.get(key):
                entry[key] = as_list(state[key])
        transitions = [_transition(item) for item in state.get("transitions") or ()]
        if transitions:
            entry["transitions"] = transitions
        if state.get("states"):
            entry["states"] = _definition(state["states"])
        if state.get("history"):
            entry["history"] = {
                key: {
                    **body,
                    "transitions": [_transition(t) for t in body.get("transitions") or ()],
                }
                for key, body in state["history"].items()
            }
        out[name] = entry
    return out


def _transition(item: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"target": item.get("target"), "event": item.get("event")}
    for key in ("cond", "unless", "on", "before", "after", "internal"):
        if item.get(key):
            entry[key] = item[key]
    return entry


def configuration_of(machine: StateChart[Any]) -> Configuration:
    """Return all active states in document order; the library's order depends on the path."""
    return tuple(str(s.id) for s in sorted(machine.configuration, key=lambda s: s.document_order))


def memory_of(machine: StateChart[Any]) -> Memory:
    """Return the memory of the history states of *machine*."""
    return tuple(
        (history, tuple(state.id for state in states))
        for history, states in sorted(machine.history_values.items())
    )


def resume(
    machine: StateChart[Any], model: Any, configuration: Configuration, memory: Memory = ()
) -> None:
    """Put *machine* into *configuration* without running an action; an ended one runs again.

    The library resumes from ``model.state`` only in a new instance, which takes ten times as long.
    ``_engine`` is private and has no public counterpart, so a test checks that it still exists.
    """
    machine._engine.running = True
    machine._engine.clear()
    if memory or machine.history_values:
        states = {state.id: state for state in machine.states_map.values()}
        machine.history_values = {name: [states[s] for s in kept] for name, kept in memory}
    model.state = OrderedSet(configuration) if len(configuration) > 1 else configuration[0]
