"""A chart as the JSON configuration of an XState machine, version 5.

Guards and actions are names with parameters: the condition, the assignments and the effects, as
ECMAScript over ``context`` and ``event``. One generic implementation of a guard and one of an
action run every chart; docs/chart-formats.md has both. ``meta`` holds the whole document, which
`from_xstate` reads.

A transition has one list of actions, which runs after the exits and before the entries, and a
history state has none; charts that depend on more are rejected.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ..document import Document, as_list, split_words
from ..drawing.diagram_model import initial_child
from ..effects import CancelActivity, Effect, StartActivity, StartTimer, describe
from ..errors import ChartError
from ..format.name_rules import parsed
from .foreign_expressions import to_ecmascript

#: Key of ``meta`` under which the whole document is.
META = "swapchart"
_DONE = "done.state."


def to_xstate(document: Document, *, timers: Mapping[str, float] | None = None) -> str:
    """Write *document* as the configuration of an XState machine in JSON.

    Args:
        document: The chart.
        timers: Timer -> seconds, for timers whose duration the document does not have.

    Raises:
        ChartError: XState cannot express a part of it; the error names the part.
    """
    machine = _Writer(document, timers or {}).machine()
    return json.dumps(machine, indent=2, ensure_ascii=False) + "\n"


class _Places(ast.NodeTransformer):
    """Reads event fields from the event, and everything else from the context."""

    def __init__(self, fields: frozenset[str]) -> None:
        self._fields = fields

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(item) for item in node.args], [])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        place = "event" if node.id in self._fields else "context"
        return ast.Attribute(ast.Name(place, ast.Load()), node.id, ast.Load())


class _Writer:
    def __init__(self, document: Document, timers: Mapping[str, float]) -> None:
        self._document = document
        self._given = dict(timers)
        self._seconds = {**document.timers, **timers}
        self._places = _Places(document.event_fields())
        self._event_of = {
            decl.of: name
            for name, decl in reversed(list(document.events.items()))
            if decl.origin == "timer"
        }

    def machine(self) -> dict[str, Any]:
        """Return the configuration of the machine."""
        document = self._document
        data = {**document.data, **document.parameters}
        found: dict[str, Any] = {"id": document.name}
        if document.description:
            found["description"] = document.description
        states = document.chart["states"]
        return {
            **found,
            "initial": initial_child(states),
            "context": {name: datum.initial for name, datum in data.items()},
            "states": {name: self._state(name, body or {}) for name, body in states.items()},
            "meta": {META: {"document": document.source, "timers": self._given}},
        }

    def _state(self, name: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"id": name}
        states = definition.get("states") or {}
        if definition.get("final"):
            found["type"] = "final"
        elif definition.get("parallel"):
            found["type"] = "parallel"
        elif states:
            found["initial"] = initial_child(states)
        for key in ("description", "tags"):
            if definition.get(key):
                found[key] = definition[key]
        for key, theirs in (("enter", "entry"), ("exit", "exit")):
            if definition.get(key):
                found[theirs] = self._actions(as_list(definition[key]))
        if invoked := self._invoked(name, definition):
            found["invoke"] = invoked
        for index, item in enumerate(definition.get("transitions") or ()):
            self._add(found, name, item, f"{name}.transitions[{index}]")
        inner = {child: self._state(child, body or {}) for child, body in states.items()}
        for history, body in (definition.get("history") or {}).items():
            inner[history] = self._history(history, body or {})
        if inner:
            found["states"] = inner
        return found

    def _history(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        (item,) = body["transitions"]
        if item.get("on"):
            where = f"chart.{name}.transitions[0].on"
            raise ChartError(where, "a history state of XState has no actions; use the target's")
        kind = str(body.get("type", "shallow"))
        return {"id": name, "type": "history", "history": kind, "target": _targets(item)}

    def _add(
        self, state: dict[str, Any], name: str, item: Mapping[str, Any], where: str
    ) -> None:  # fmt: skip
        transition = self._transition(item, where)
        for event in split_words(item.get("event")):
            if event == f"{_DONE}{name}":
                state.setdefault("onDone", []).append(transition)
                continue
            is_done = event.startswith(_DONE)
            state.setdefault("on", {}).setdefault(f"xstate.{event}" if is_done else event, [])
            state["on"][f"xstate.{event}" if is_done else event].append(transition)
        if not item.get("event"):
            state.setdefault("always", []).append(transition)

    def _transition(self, item: Mapping[str, Any], where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if item.get("target"):
            found["target"] = _targets(item)
            if not item.get("internal"):
                found["reenter"] = True
            for key in ("before", "after"):
                if item.get(key):
                    raise ChartError(
                        f"chart.{where}.{key}",
                        "XState runs actions between the exits and the entries only; use `on`",
                    )
        if guard := self._guard(item):
            found["guard"] = guard
        names = [name for key in ("before", "on", "after") for name in as_list(item.get(key))]
        if names:
            found["actions"] = self._actions(names)
        if item.get("description"):
            found["description"] = item["description"]
        return found

    def _guard(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
        words: list[str] = []
        terms: list[ast.expr] = []
        for key in ("cond", "unless"):
            for name in as_list(item.get(key)):
                term = parsed(self._document, self._document.guards[name], f"guards.{name}")
                terms.append(ast.UnaryOp(ast.Not(), term) if key == "unless" else term)
                words.append(f"not {name}" if key == "unless" else name)
        if not terms:
            return None
        tree = terms[0] if len(terms) == 1 else ast.BoolOp(ast.And(), terms)
        return {"type": " and ".join(words), "params": {"expression": self._text(tree)}}

    def _text(self, tree: ast.expr) -> str:
        placed = ast.fix_missing_locations(self._places.visit(ast.Expression(tree))).body
        return to_ecmascript(placed)

    def _actions(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return [{"type": name, "params": self._parameters(name)} for name in names]

    def _parameters(self, name: str) -> dict[str, Any]:
        action = self._document.actions[name]
        found: dict[str, Any] = {}
        if action.when is not None:
            tree = parsed(self._document, action.when, f"actions.{name}.when")
            found["when"] = self._text(tree)
        if action.assigns:
            found["assign"] = {
                target: self._text(parsed(self._document, text, f"actions.{name}.set.{target}"))
                for target, text in action.assigns.items()
            }
        if action.effects:
            found["effects"] = [self._effect(effect) for effect in action.effects]
        if action.raises:
            found["raise"] = list(action.raises)
        return found

    def _effect(self, effect: Effect) -> dict[str, Any]:
        kind = describe(effect).partition(" ")[0]
        found = {"effect": kind, **{key: value for key, value in asdict(effect).items() if value}}
        if isinstance(effect, StartTimer):
            found["event"] = self._event_of[effect.timer]
            if effect.timer in self._seconds:
                found["delay"] = round(1000 * self._seconds[effect.timer])
        return found

    def _invoked(self, state: str, definition: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the activities that run exactly as long as the state is active."""
        effects = {
            key: [
                effect
                for name in as_list(definition.get(key))
                if self._document.actions[name].when is None
                for effect in self._document.actions[name].effects
            ]
            for key in ("enter", "exit")
        }
        ended = {e.activity for e in effects["exit"] if isinstance(e, CancelActivity)}
        return [
            {"src": effect.activity, "id": f"{state}.{effect.activity}"}
            | ({"input": {"point": effect.point}} if effect.point else {})
            for effect in effects["enter"]
            if isinstance(effect, StartActivity) and effect.activity in ended
        ]


def _targets(item: Mapping[str, Any]) -> str | list[str]:
    found = [f"#{target}" for target in split_words(item["target"])]
    return found[0] if len(found) == 1 else found
