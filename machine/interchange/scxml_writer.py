"""A chart as executable SCXML: data, guards and actions included.

Expressions are Python, so the data model is declared as ``python``, which SCXML leaves to the
platform. An effect becomes a ``<log>`` whose label is its kind: SCXML cannot express an effect, and
a ``<send>`` without a target would be an error. Event fields are read from ``_event.data``.

Source: W3C SCXML 1.0, sections 3 (core), 4 (executable content) and 5 (data model). It differs
from a document in two ways, and charts that depend on the difference are rejected: assignments are
made one after the other, and a transition has one list of actions, which runs after the exits and
before the entries.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from ..document import ActionDecl, Document, as_list, split_words
from ..drawing.diagram_model import initial_child
from ..effects import Effect, describe
from ..errors import ChartError
from ..format.expressions import reads
from ..format.name_rules import parsed

NAMESPACE = "http://www.w3.org/2005/07/scxml"


def to_scxml(document: Document) -> str:
    """Write *document* as SCXML.

    Raises:
        ChartError: SCXML cannot express a part of it; the error names the part.
    """
    if document.notes:
        raise ChartError("notes", "SCXML has no place for what actions mean for one instance")
    return _Writer(document).text()


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
    def __init__(self, document: Document) -> None:
        self._document = document
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
                "datamodel": "python",
                "name": document.name,
                "initial": initial_child(document.chart["states"]),
            },
        )
        data = {**document.data, **document.parameters}
        if data:
            model = ET.SubElement(root, "datamodel")
            for name, datum in data.items():
                ET.SubElement(model, "data", {"id": name, "expr": repr(datum.initial)})
        for name, definition in document.chart["states"].items():
            self._state(root, name, definition or {})
        ET.indent(root)
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

    def _condition(self, item: Mapping[str, Any]) -> str:
        terms = [
            self._guard(name, negated=key == "unless")
            for key in ("cond", "unless")
            for name in as_list(item.get(key))
        ]
        return terms[0] if len(terms) == 1 else " and ".join(f"({term})" for term in terms)

    def _guard(self, name: str, *, negated: bool) -> str:
        text = self._expression(self._document.guards[name], f"guards.{name}")
        return f"not ({text})" if negated else text

    def _expression(self, text: str, where: str) -> str:
        tree = ast.Expression(body=parsed(self._document, text, where))
        return ast.unparse(ast.fix_missing_locations(self._to_event.visit(tree)))

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
                ET.SubElement(inner, "log", _log(effect))

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


def _log(effect: Effect) -> dict[str, str]:
    kind, _, arguments = describe(effect).partition(" ")
    return {"label": kind, "expr": repr(arguments)} if arguments else {"label": kind}
