"""A chart as executable SCXML: data, guards, actions, timers and activities.

The data model is Python, which python-statemachine reads, or ECMAScript, which SCION and Qt read.
Event fields are read from ``_event.data``. A timer whose duration is known is a delayed ``<send>``
with a ``<cancel>``, and an activity that starts on entry and is canceled on exit is an
``<invoke>`` of our own type, for which the embedder registers a function. Every effect is a
``<log>`` besides, whose label is its kind, so that a trace of the machine shows all of them.

An element of our own namespace, which other readers skip, holds the whole document: `from_scxml`
reads it.

Source: W3C SCXML 1.0, sections 3 (core), 4 (executable content), 5 (data model) and 6
(communication). It differs from a document in two ways, and charts that depend on the difference
are rejected: assignments are made one after the other, and a transition has one list of actions,
which runs after the exits and before the entries.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args
from xml.etree import ElementTree as ET

from ..document import ActionDecl, Document, Value, as_list, split_words
from ..drawing.diagram_model import initial_child
from ..effects import CancelActivity, CancelTimer, Effect, StartActivity, StartTimer, describe
from ..errors import ChartError
from ..format.expressions import reads
from ..format.name_rules import parsed
from .executable_content import ACTIVITY
from .foreign_expressions import to_ecmascript

NAMESPACE = "http://www.w3.org/2005/07/scxml"
#: Namespace of the element that holds the whole document.
CATALOG = "urn:swapchart:chart"

Datamodel: TypeAlias = Literal["python", "ecmascript"]
DATAMODELS: tuple[Datamodel, ...] = get_args(Datamodel)


def to_scxml(
    document: Document, *, datamodel: str = "python", timers: Mapping[str, float] | None = None
) -> str:
    """Write *document* as SCXML.

    Args:
        document: The chart.
        datamodel: Language of its expressions: ``python`` or ``ecmascript``.
        timers: Timer -> seconds, for timers whose duration the document does not have. A timer
            without a duration is only logged.

    Raises:
        ChartError: SCXML cannot express a part of it; the error names the part.
    """
    if datamodel not in DATAMODELS:
        raise ChartError("datamodel", f"expected {' or '.join(DATAMODELS)}, got {datamodel!r}")
    return _Writer(document, datamodel, dict(timers or {})).text()


class _EventData(ast.NodeTransformer):
    """Reads event fields from their place in SCXML."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._names:
            return node
        event = ast.Attribute(ast.Name("_event", ast.Load()), "data", ast.Load())
        return ast.Attribute(event, node.id, ast.Load())


class _Writer:
    def __init__(self, document: Document, datamodel: str, timers: dict[str, float]) -> None:
        self._document = document
        self._is_python = datamodel == "python"
        self._given = timers
        self._seconds = {**document.timers, **timers}
        self._event_of = {
            decl.of: name
            for name, decl in reversed(list(document.events.items()))
            if decl.origin == "timer"
        }
        self._to_event = _EventData(document.event_fields())
        self._initial = self._inherited_initial()

    def _inherited_initial(self) -> dict[str, str]:
        return {
            name: initial_child(definition["states"])
            for name, definition, _ in self._document.states()
            if definition.get("states") and not definition.get("parallel")
        }

    def text(self) -> str:
        document = self._document
        root = ET.Element(
            "scxml",
            {
                "xmlns": NAMESPACE,
                "version": "1.0",
                "datamodel": "python" if self._is_python else "ecmascript",
                "name": document.name,
                "initial": initial_child(document.chart["states"]),
            },
        )
        data = {**document.data, **document.parameters}
        if data:
            model = ET.SubElement(root, "datamodel")
            for name, datum in data.items():
                ET.SubElement(model, "data", {"id": name, "expr": self._literal(datum.initial)})
        for name, definition in document.chart["states"].items():
            self._state(root, name, definition or {})
        whole = ET.SubElement(root, "document", {"xmlns": CATALOG})
        if self._given:
            whole.set("timers", json.dumps(self._given))
        ET.indent(root)
        whole.text = json.dumps(document.source, ensure_ascii=False)
        return ET.tostring(root, encoding="unicode") + "\n"

    def _state(self, parent: ET.Element, name: str, definition: Mapping[str, Any]) -> None:
        tag = "state"
        if definition.get("final"):
            tag = "final"
        elif definition.get("parallel"):
            tag = "parallel"
        element = ET.SubElement(parent, tag, {"id": name})
        if name in self._initial:
            element.set("initial", self._initial[name])
        for key, block in (("enter", "onentry"), ("exit", "onexit")):
            if definition.get(key):
                self._actions(ET.SubElement(element, block), as_list(definition[key]))
        for index, item in enumerate(definition.get("transitions") or ()):
            self._transition(element, item, f"{name}.transitions[{index}]")
        for activity in self._invoked(definition):
            self._invoke(element, name, activity)
        for history, body in (definition.get("history") or {}).items():
            attributes = {"id": history, "type": str((body or {}).get("type", "shallow"))}
            inner = ET.SubElement(element, "history", attributes)
            for index, item in enumerate((body or {}).get("transitions") or ()):
                self._transition(inner, item, f"{history}.transitions[{index}]")
        for child, body in (definition.get("states") or {}).items():
            self._state(element, child, body or {})

    def _transition(self, parent: ET.Element, item: Mapping[str, Any], where: str) -> None:
        element = ET.SubElement(parent, "transition")
        if item.get("event"):
            element.set("event", " ".join(split_words(item["event"])))
        target = split_words(item.get("target"))
        if target:
            element.set("target", " ".join(target))
            for key in ("before", "after"):
                if item.get(key):
                    raise ChartError(
                        f"chart.{where}.{key}",
                        "SCXML runs actions between the exits and the entries only; use `on`",
                    )
        if item.get("internal"):
            element.set("type", "internal")
        condition = self._condition(item)
        if condition:
            element.set("cond", condition)
        for key in ("before", "on", "after"):
            self._actions(element, as_list(item.get(key)))

    # ---- activities ---------------------------------------------------------------------------
    def _effects(self, names: Iterable[str]) -> Iterator[Effect]:
        actions = (self._document.actions[name] for name in names)
        return (e for action in actions if action.when is None for e in action.effects)

    def _invoked(self, definition: Mapping[str, Any]) -> list[StartActivity]:
        """Return the activities that run exactly as long as the state is active."""
        ended = {
            effect.activity
            for effect in self._effects(as_list(definition.get("exit")))
            if isinstance(effect, CancelActivity)
        }
        return [
            effect
            for effect in self._effects(as_list(definition.get("enter")))
            if isinstance(effect, StartActivity) and effect.activity in ended
        ]

    def _invoke(self, parent: ET.Element, state: str, effect: StartActivity) -> None:
        attributes = {"type": ACTIVITY, "id": f"{state}.{effect.activity}", "src": effect.activity}
        element = ET.SubElement(parent, "invoke", attributes)
        if effect.point:
            ET.SubElement(element, "param", {"name": "point", "expr": self._literal(effect.point)})

    # ---- expressions --------------------------------------------------------------------------
    def _literal(self, value: Value) -> str:
        return self._text(ast.Constant(value))

    def _text(self, tree: ast.expr) -> str:
        tree = ast.fix_missing_locations(self._to_event.visit(ast.Expression(tree))).body
        return ast.unparse(tree) if self._is_python else to_ecmascript(tree)

    def _condition(self, item: Mapping[str, Any]) -> str:
        terms: list[ast.expr] = []
        for key in ("cond", "unless"):
            for name in as_list(item.get(key)):
                term = parsed(self._document, self._document.guards[name], f"guards.{name}")
                terms.append(ast.UnaryOp(ast.Not(), term) if key == "unless" else term)
        if not terms:
            return ""
        return self._text(terms[0] if len(terms) == 1 else ast.BoolOp(ast.And(), terms))

    def _expression(self, text: str, where: str) -> str:
        return self._text(parsed(self._document, text, where))

    # ---- actions ------------------------------------------------------------------------------
    def _actions(self, parent: ET.Element, names: Iterable[str]) -> None:
        for name in names:
            action = self._document.actions[name]
            inner = parent
            if action.when is not None:
                condition = self._expression(action.when, f"actions.{name}.when")
                inner = ET.SubElement(parent, "if", {"cond": condition})
            for target in self._in_order(name, action):
                text = self._expression(action.assigns[target], f"actions.{name}.set.{target}")
                ET.SubElement(inner, "assign", {"location": target, "expr": text})
            for effect in action.effects:
                self._effect(inner, effect)
            for event in action.raises:
                ET.SubElement(inner, "raise", {"event": event})

    def _effect(self, parent: ET.Element, effect: Effect) -> None:
        kind, _, arguments = describe(effect).partition(" ")
        log = ET.SubElement(parent, "log", {"label": kind})
        if arguments:
            log.set("expr", self._literal(arguments))
        if not isinstance(effect, (StartTimer, CancelTimer)) or effect.timer not in self._seconds:
            return
        ET.SubElement(parent, "cancel", {"sendid": effect.timer})  # a timer is armed anew
        if isinstance(effect, StartTimer):
            delay = f"{self._seconds[effect.timer]:.3f}".rstrip("0").rstrip(".") + "s"
            event = self._event_of[effect.timer]
            attributes = {"event": event, "id": effect.timer, "delay": delay}
            ET.SubElement(parent, "send", attributes)

    def _in_order(self, name: str, action: ActionDecl) -> list[str]:
        """Order the assignments of *action* so that each still reads the old values."""
        needs = {
            target: reads(parsed(self._document, text, f"actions.{name}.set.{target}"))
            for target, text in action.assigns.items()
        }
        ordered: list[str] = []
        while needs:
            free = [
                target
                for target in needs
                if not any(target in read for other, read in needs.items() if other != target)
            ]
            if not free:
                raise ChartError(
                    f"actions.{name}.set",
                    f"SCXML assigns one after the other; {', '.join(needs)} read each other",
                )
            ordered.append(free[0])
            del needs[free[0]]
        return ordered
