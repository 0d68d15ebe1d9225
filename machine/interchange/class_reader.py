"""Reader of python-statemachine classes, for embedders who wrote their chart in Python.

A class has states, transitions, events and the names of its actions and guards. The meaning of the
names, the senders of events and the promises are passed separately, as sections of a document. Code
on the class has no place in a document and is an error: lambdas, functions, methods found by
convention, validators, listeners, invoked services, delays, and flags that our charts do not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from statemachine import StateChart
from statemachine.callbacks import SpecReference
from statemachine.utils import humanize_id

from ..document import FORMAT, Document
from ..errors import ChartError
from ..format.parse import from_mapping

#: Flags of every chart of ours: unhandled events and errors in actions are errors.
_FLAGS = {
    "allow_event_without_transition": False,
    "catch_errors_as_events": False,
    "enable_self_transition_entries": True,
    "atomic_configuration_update": False,
}


def from_class(cls: type[StateChart[Any]], catalog: Mapping[str, Any] | None = None) -> Document:
    """Make a document of *cls*.

    Args:
        cls: The class; only read, never instantiated.
        catalog: Sections of a document that a class cannot have: ``data``, ``parameters``,
            ``guards``, ``actions``, ``promises``, and ``events`` that users do not send.

    Raises:
        ChartError: The class has something that a document cannot express; the notes of the error
            list all of it. Or class and catalog do not fit together.
    """
    reader = _ClassReader(cls)
    states = reader.states(cls.states)
    lost = list(reader.lost)
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        error = ChartError(f"{cls.__name__}.{lost[0].where}", lost[0].why + more)
        error.add_note("\n".join(map(str, lost)))
        raise error
    sections = dict(catalog or {})
    events: dict[str, Any] = {
        name: {} for name in reader.events if not name.startswith("done.state.")
    }
    sections["events"] = {**events, **(sections.get("events") or {})}
    return from_mapping(
        {
            "format": FORMAT,
            "name": cls.__name__,
            **sections,
            "chart": {"name": cls.__name__, "states": states},
        }
    )


class _ClassReader:
    """Reads one class and notes what a document cannot express."""

    def __init__(self, cls: type[StateChart[Any]]) -> None:
        self._cls = cls
        self.lost: list[ChartError] = []
        self.events: dict[str, None] = {}
        for flag, value in _FLAGS.items():
            if getattr(cls, flag) is not value:
                self._lose(flag, f"expected {value}, as in every chart of ours")
        if getattr(cls, "_class_listeners", None):
            self._lose("listeners", "a document has none")

    def _lose(self, where: str, why: str) -> None:
        self.lost.append(ChartError(where, why))

    def states(self, states: Iterable[Any]) -> dict[str, Any]:
        return {state.id: self._state(state) for state in states}

    def _state(self, state: Any) -> dict[str, Any]:
        in_parallel = state.parent is not None and state.parent.parallel
        body: dict[str, Any] = {
            key: True
            for key in ("initial", "final", "parallel")
            if getattr(state, key) and not (key == "initial" and in_parallel)
        }
        if str(state.name) != humanize_id(state.id):
            self._lose(state.id, f"a name of its own, {str(state.name)!r}")
        if state.value != state.id:
            self._lose(state.id, f"a value of its own, {state.value!r}")
        if list(state.invoke) and any(not spec.is_convention for spec in state.invoke):
            self._lose(state.id, "invoke: start an activity on entry instead")
        for key in ("enter", "exit"):
            names = self._names(f"{state.id}.{key}", getattr(state, key))
            if names:
                body[key] = names
        transitions = [self._transition(item) for item in state.transitions if not item.initial]
        if transitions:
            body["transitions"] = transitions
        if state.states:
            body["states"] = self.states(state.states)
        if state.history:
            body["history"] = {
                history.id: {
                    "type": history.type.value,
                    "transitions": [self._transition(item) for item in history.transitions],
                }
                for history in state.history
            }
        return body

    def _transition(self, item: Any) -> dict[str, Any]:
        where = f"{item.source.id}.{item.event or 'eventless'}"
        found: dict[str, Any] = {}
        # The default transition of a history has no event, whatever name the class gave it.
        events = [] if item.source.is_history else list(self._events(where, item))
        if events:
            found["event"] = " ".join(events)
            self.events.update(dict.fromkeys(events))
        if item.targets:
            found["target"] = " ".join(target.id for target in item.targets)
        if item.internal and item.source in item.targets:
            self._lose(
                where, "internal to itself, it would enter without an exit; leave the target"
            )
        elif item.internal:
            found["internal"] = True
        if list(item.validators):
            self._lose(where, "validators: use guards")
        for key, wanted in (("cond", True), ("unless", False)):
            specs = [spec for spec in item.cond if spec.expected_value is not (not wanted)]
            names = self._names(where, specs)
            if names:
                found[key] = names
        for key in ("before", "on", "after"):
            names = self._names(where, getattr(item, key))
            if names:
                found[key] = names
        return found

    def _events(self, where: str, item: Any) -> Iterator[str]:
        names = [str(event) for event in item.events]
        for event, name in zip(item.events, names, strict=True):
            # An attribute such as done_state_x stands for the event done.state.x as well.
            dotted = [other for other in names if other != name and "." in other]
            if any(other.replace(".", "_") == name for other in dotted):
                continue
            if getattr(event, "delay", 0):
                self._lose(where, f"a delay of {event.delay} ms: start a timer instead")
            if getattr(event, "internal", False):
                self._lose(where, "an internal event: use an eventless transition")
            yield name

    def _names(self, where: str, specs: Iterable[Any]) -> list[str]:
        found = []
        for spec in specs:
            if spec.is_convention:
                if hasattr(self._cls, str(spec.func)):
                    self._lose(where, f"{spec.func}() is called by convention; name an action")
            elif spec.reference is not SpecReference.NAME or not isinstance(spec.func, str):
                name = getattr(spec.func, "__qualname__", repr(spec.func))
                self._lose(where, f"{name} is code; name an action or a guard")
            elif hasattr(self._cls, spec.func):
                self._lose(where, f"{spec.func}() is code of the class; declare what it asks for")
            else:
                found.append(spec.func)
        return found
