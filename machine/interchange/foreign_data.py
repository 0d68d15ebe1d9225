"""Data of foreign charts: variables and event fields with domains inferred from their use.

A document declares the values that a variable or a field can have. Other tools do not, so the
values are those that the chart assigns and compares: ``score >= 70`` gives a field ``score`` the
values 69, 70 and 71, one for each result of the comparison.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..document import Value, as_list
from ..format.expressions import fault
from .draft import Draft
from .foreign_expressions import IN, Language, Translated, UntranslatableError, translate

_MOST_VALUES = 12
#: How often values flow along assignments: more than variables that copy each other in a row.
_ROUNDS = 5


class DataReader:
    """Variables and event fields of one chart.

    Attributes:
        sent: Events that the chart itself sends or raises, in order.
    """

    def __init__(self, draft: Draft, language: Language) -> None:
        self._draft = draft
        self._language = language
        self._data: dict[str, Value] = {}
        self._fields: dict[str, tuple[Value, ...]] = {}
        self._values: dict[str, tuple[Value, ...]] = {}
        self._near: dict[str, dict[Value, None]] = {}
        self._assigned: dict[str, list[ast.expr]] = {}
        self.sent: list[str] = []

    def declare(self, datamodel: Any, contents: Iterable[Any]) -> None:
        """Declare the variables of *datamodel* and find the values that *contents* use."""
        for name, text in _items(datamodel):
            try:
                self._data[name] = self._constant(text)
            except UntranslatableError as error:
                self._draft.lose(f"datamodel.{name}", f"initial value {text!r}: {error}")
        for item in contents:
            for text in (*as_list(item.get("cond")), *as_list(item.get("unless"))):
                self._note(text)
            for key in ("before", "on", "after"):
                self._scan(item.get(key))
        for _ in range(_ROUNDS):
            self._flow()
        for name, values in list(self._fields.items()):
            self._fields[name] = self._representatives(name) or values
        for name, initial in self._data.items():
            self._values[name] = self._domain(name, initial)
            self._draft.datum(name, initial, self._values[name])

    def is_known(self, name: str) -> bool:
        """Return True if *name* is a variable."""
        return name in self._data

    def translated(self, text: str, events: Sequence[str] = (), *, target: str = "") -> str:
        """Return *text* in our language, and declare the event fields that it reads.

        Args:
            text: The expression.
            events: Declared events that carry the fields; without any, no field may be read.
            target: Variable to which the value is assigned; empty if it is not.

        Raises:
            UntranslatableError: It uses something that a document does not have.
        """
        found = translate(text, self._language)
        if found.fields and not events:
            raise UntranslatableError("it reads the event, where there is none, or an internal one")
        names: dict[str, str] = {}
        domains: dict[str, Sequence[Value]] = {}
        for name in sorted(found.names):
            if name.startswith(IN) and self._draft.has_state(name.removeprefix(IN)):
                names[name] = IN + self._draft.state(name.removeprefix(IN))
                domains[name] = (False, True)
                continue
            domains[name] = self._fields.get(name) or self._values.get(name) or (0, 1, 2)
            if name in found.fields:
                names[name] = self._draft.word("field", name)
                for event in events:
                    data = self._draft.events[event].setdefault("data", {})
                    data[names[name]] = list(self._fields[name])
            elif name in self._data:
                names[name] = self._draft.word("data", name)
            else:
                raise UntranslatableError(f"{name!r} is no variable of the chart")
        wrong = fault(found.tree, domains, self._values.get(target) or (0,) if target else None)
        if wrong:
            raise UntranslatableError(wrong)
        return re.sub(rf"{IN}(\w+)", r"in(\1)", ast.unparse(_Renamed(names).visit(found.tree)))

    # ---- values -----------------------------------------------------------------------------
    def _constant(self, text: Any) -> Value:
        if isinstance(text, bool | int):
            return text
        tree = translate(str(text), self._language).tree
        value = tree.operand if isinstance(tree, ast.UnaryOp) else tree
        if not isinstance(value, ast.Constant) or not isinstance(value.value, bool | int | str):
            raise UntranslatableError("expected a text, a whole number, true or false")
        if isinstance(tree, ast.UnaryOp) and not isinstance(value.value, str):
            return not value.value if isinstance(tree.op, ast.Not) else -value.value
        return value.value

    def _note(self, text: Any) -> Translated | None:
        """Remember which constants the names in *text* are compared with."""
        try:
            found = translate(str(text), self._language)
        except UntranslatableError:
            return None
        for name in found.fields:
            self._fields.setdefault(name, (False, True))
        for node in ast.walk(found.tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                names = [side.id for side in sides if isinstance(side, ast.Name)]
                for name in names:
                    self._near.setdefault(name, {}).update(dict.fromkeys(_constants(sides)))
        return found

    def _scan(self, actions: Any) -> None:
        for item in as_list(actions):
            if not isinstance(item, Mapping):
                continue
            for kind, body in item.items():
                match kind, body:
                    case "assign", {"location": str(location)}:
                        found = self._note(body.get("expr"))
                        if found is not None:
                            self._assigned.setdefault(location, []).append(found.tree)
                    case (("raise" | "send"), str(event) | {"event": str(event)}):
                        self.sent.append(event)
                    case "if", Mapping():
                        self._note(body.get("cond"))
                        self._scan(body.get("then"))
                        self._scan(body.get("else"))
                        for branch in as_list(body.get("elif")):
                            self._note(branch.get("cond"))
                            self._scan(branch.get("then"))

    def _flow(self) -> None:
        """Let a variable and the names that are assigned to it share their constants."""
        for location, trees in self._assigned.items():
            mine = self._near.setdefault(location, {})
            for tree in trees:
                if isinstance(tree, ast.Name):
                    theirs = self._near.setdefault(tree.id, {})
                    theirs.update(mine)
                    mine.update(theirs)
                elif isinstance(tree, ast.Constant):
                    mine.update(dict.fromkeys(_constants([tree])))

    def _representatives(self, name: str) -> tuple[Value, ...]:
        """Return one value for each result that the comparisons of field *name* can have."""
        found: dict[Value, None] = {}
        for value in self._near.get(name, {}):
            if isinstance(value, int) and not isinstance(value, bool):
                found.update(dict.fromkeys((value - 1, value, value + 1)))
            else:
                found[value] = None
        if any(isinstance(value, str) for value in found):
            found["other"] = None
        if set(map(type, found)) == {bool}:
            return (False, True)
        return tuple(found)[:_MOST_VALUES]

    def _domain(self, name: str, initial: Value) -> tuple[Value, ...]:
        """Return the values of variable *name*; empty for a number that is computed."""
        if isinstance(initial, bool):
            return (False, True)
        found: dict[Value, None] = {initial: None}
        for tree in self._assigned.get(name, ()):
            if isinstance(tree, ast.Name) and tree.id in self._fields:
                found.update(dict.fromkeys(self._fields[tree.id]))
            elif isinstance(tree, ast.Name) or not isinstance(tree, ast.Constant):
                if isinstance(initial, int):
                    return ()
                found.update(self._near.get(name, {}))
            else:
                found.update(dict.fromkeys(_constants([tree])))
        if isinstance(initial, str):
            found.update(self._near.get(name, {}))
        kinds = {bool(isinstance(value, str)) for value in found}
        return () if len(kinds) > 1 else tuple(found)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self._names.get(node.id, node.id), node.ctx)


def _constants(trees: Iterable[ast.expr]) -> Iterator[Value]:
    for tree in trees:
        if isinstance(tree, ast.Constant) and isinstance(tree.value, bool | int | str):
            yield tree.value
        elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            yield from (-value for value in _constants([tree.operand]) if isinstance(value, int))
        elif isinstance(tree, ast.Tuple):
            yield from _constants(tree.elts)


def _items(datamodel: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and initial value of each variable: a mapping, or a list of items with ``id``."""
    if isinstance(datamodel, Mapping):
        yield from ((str(name), text) for name, text in datamodel.items())
        return
    for item in as_list(datamodel):
        if isinstance(item, Mapping) and item.get("id"):
            yield str(item["id"]), item.get("expr", item.get("content"))
