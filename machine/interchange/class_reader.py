"""Reader of python-statemachine classes, for embedders who wrote their chart in Python.

A class has states, transitions, events, and callbacks: code, which a document does not have. The
mode says what becomes of it. To *run* a class as a document, there must be none: actions and guards
are names, and their meaning is passed separately. To *check* a class, a callback is an effect
without a known meaning, and a guard may hold or not at every step. To *draw* a class, only the
names count, so any class can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from statemachine import StateChart
from statemachine.callbacks import SpecReference
from statemachine.utils import humanize_id

from ..document import Document
from .draft import Draft, Loss, refuse_losses

Mode: TypeAlias = Literal["draw", "check", "run"]


def from_class(
    cls: type[StateChart[Any]],
    catalog: Mapping[str, Any] | None = None,
    *,
    mode: Mode = "run",
    lost: list[Loss] | None = None,
) -> Document:
    """Make a document of *cls*.

    Args:
        cls: The class; only read, never instantiated.
        catalog: Sections of a document that a class cannot have: ``data``, ``parameters``,
            ``guards``, ``actions``, ``promises``, and ``events`` that users do not send.
        mode: ``run`` refuses code, because a document has none. ``check`` makes an effect of each
            callback and a free choice of each guard. ``draw`` does so too, but without additions
            for the checker.
        lost: List that receives what the document cannot express. None means that a loss is an
            error, except in a drawing.

    Raises:
        ChartError: The class has something that a document cannot express; the notes of the error
            list all of it. Or class and catalog do not fit together.
    """
    draft = Draft(cls.__name__, is_drawing=mode == "draw")
    reader = _ClassReader(cls, mode, draft)
    states = reader.states(cls.states)
    if lost is None and mode == "draw":
        lost = []
    refuse_losses(draft, lost)
    return draft.document(
        states, ignores_unhandled=cls.allow_event_without_transition, **dict(catalog or {})
    )


class _ClassReader:
    """Reads one class and notes what a document cannot express."""

    def __init__(self, cls: type[StateChart[Any]], mode: Mode, draft: Draft) -> None:
        self._cls = cls
        self._is_run = mode == "run"
        self._draft = draft
        self._listeners = list(getattr(cls, "_class_listeners", None) or ())
        if self._listeners and self._is_run:
            draft.lose("listeners", "a document has none")

    def _lose_in_run(self, where: str, why: str) -> None:
        if self._is_run:
            self._draft.lose(where, why)

    def states(self, states: Iterable[Any]) -> dict[str, Any]:
        """Return the section ``states`` for *states*."""
        return {self._id(state): self._state(state) for state in states}

    def _id(self, state: Any) -> str:
        above = self._id(state.parent) if state.parent is not None else ""
        return self._draft.state(state.id, inside=above, key=f"{above}/{state.id}")

    def _state(self, state: Any) -> dict[str, Any]:
        in_parallel = state.parent is not None and state.parent.parallel
        body: dict[str, Any] = {
            key: True
            for key in ("initial", "final", "parallel")
            if getattr(state, key) and not (key == "initial" and in_parallel)
        }
        if str(state.name) != humanize_id(state.id):
            body["description"] = str(state.name)
        if state.value != state.id:
            self._lose_in_run(state.id, f"a value of its own, {state.value!r}")
        actions = {
            key: self._actions(f"{state.id}.{key}", getattr(state, key))
            for key in ("enter", "exit")
        }
        self._invoked(state, actions)
        body |= {key: names for key, names in actions.items() if names}
        transitions = [
            found
            for item in state.transitions
            if not item.initial and (found := self._transition(item)) is not None
        ]
        if transitions:
            body["transitions"] = transitions
        if state.states:
            body["states"] = self.states(state.states)
        if state.history:
            body["history"] = {self._id(item): self._history(item) for item in state.history}
        return body

    def _history(self, history: Any) -> dict[str, Any]:
        defaults = [self._transition(item) for item in history.transitions]
        if not defaults:
            children = history.parent.states
            first = next((child for child in children if child.initial), children[0])
            defaults = [{"target": self._id(first)}]
        return {"type": history.type.value, "transitions": defaults}

    def _invoked(self, state: Any, actions: dict[str, list[str]]) -> None:
        for spec in state.invoke:
            if spec.is_convention and not self._is_code(spec):
                continue
            if self._is_run:
                self._draft.lose(state.id, "invoke: start an activity on entry instead")
                continue
            start, cancel = self._draft.activity(f"{self._id(state)}_{_name_of(spec)}")
            actions["enter"].append(start)
            actions["exit"].append(cancel)

    def _transition(self, item: Any) -> dict[str, Any] | None:
        where = f"{item.source.id}.{item.event or 'eventless'}"
        found: dict[str, Any] = {}
        # The default transition of a history has no event, whatever name the class gave it.
        events = [] if item.source.is_history else list(self._events(where, item))
        if events:
            found["event"] = " ".join(events)
        if item.targets:
            found["target"] = " ".join(self._id(target) for target in item.targets)
        if item.internal and item.source in item.targets:
            if self._cls.enable_self_transition_entries or item.source.states:
                self._lose_in_run(
                    where, "internal to itself, it would enter without an exit; leave the target"
                )
            del found["target"]
        elif item.internal:
            found["internal"] = True
        if not events and "target" not in found:
            self._draft.lose(where, "without event and target it would be taken for ever")
            return None
        for key, wanted in (("cond", True), ("unless", False)):
            specs = [spec for spec in item.cond if spec.expected_value is not (not wanted)]
            names = self._guards(where, specs)
            if names:
                found[key] = names
        validators = [spec for spec in item.validators if self._counts(spec)]
        if validators:
            self._lose_in_run(where, "validators: use guards")
            if not self._is_run:
                found["cond"] = [*found.get("cond", ()), *self._guards(where, validators)]
        for key in ("before", "on", "after"):
            names = self._actions(where, getattr(item, key))
            if names:
                found[key] = names
        if item.source.is_history:
            return {key: found[key] for key in ("target", "on") if key in found}
        return found

    def _events(self, where: str, item: Any) -> Iterator[str]:
        names = [str(event) for event in item.events]
        for event, name in zip(item.events, names, strict=True):
            # An attribute such as done_state_x stands for the event done.state.x as well.
            dotted = [other for other in names if other != name and "." in other]
            if any(other.replace(".", "_") == name for other in dotted):
                continue
            if getattr(event, "delay", 0):
                self._lose_in_run(where, f"a delay of {event.delay} ms: start a timer instead")
            if getattr(event, "internal", False):
                self._lose_in_run(where, "an internal event: use an eventless transition")
            yield self._draft.event(name)

    def _guards(self, where: str, specs: Iterable[Any]) -> list[str]:
        if self._is_run:
            return list(self._names(where, specs))
        return [self._draft.free_guard(name) for name in self._names(where, specs)]

    def _actions(self, where: str, specs: Iterable[Any]) -> list[str]:
        if self._is_run:
            return list(self._names(where, specs))
        return [self._draft.action(name) for name in self._names(where, specs)]

    def _names(self, where: str, specs: Iterable[Any]) -> Iterator[str]:
        """Yield the names of the callbacks *specs*; in run mode, those that are code are lost."""
        for spec in specs:
            if not self._counts(spec):
                continue
            name = _name_of(spec)
            if self._is_run and spec.is_convention:
                self._draft.lose(where, f"{name}() is called by convention; name an action")
            elif self._is_run and spec.reference is not SpecReference.NAME:
                self._draft.lose(where, f"{name} is code; name an action or a guard")
            elif self._is_run and self._is_code(spec):
                self._draft.lose(where, f"{name}() is code of the class; declare what it asks for")
            else:
                yield name

    def _counts(self, spec: Any) -> bool:
        """Return True if *spec* is called: one found by convention has to exist."""
        return not spec.is_convention or self._is_code(spec)

    def _is_code(self, spec: Any) -> bool:
        name = spec.func if isinstance(spec.func, str) else ""
        return any(hasattr(owner, name) for owner in (self._cls, *self._listeners) if name)


def _name_of(spec: Any) -> str:
    """Return the name of a callback; that of a lambda is the place where it was written."""
    if isinstance(spec.func, str):
        return spec.func
    code = getattr(spec.func, "__code__", None)
    if getattr(spec.func, "__name__", "") == "<lambda>" and code is not None:
        return f"lambda_on_line_{code.co_firstlineno}"
    name = getattr(spec.func, "__qualname__", "") or type(spec.func).__name__
    return str(name).rpartition(".")[2] or "callback"
