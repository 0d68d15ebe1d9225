"""Promises of a chart, compiled to tests of a step.

A promise about data, states and effects depends on the step alone and is tested once for each step;
one that also concerns running activities and timers is tested again in every situation.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from types import CodeType
from typing import TypeAlias

from ...dataclass import dataclass
from ..document import Always, Configuration, Document, Value
from ..effects import Effect, describe
from ..format.expressions import parse, reads
from ..format.name_rules import WAS, scope

Values: TypeAlias = tuple[Value, ...]
Fields: TypeAlias = tuple[tuple[str, Value], ...]
_Test: TypeAlias = Callable[[Values, Values, Mapping[str, Value]], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        event: Event that was taken; empty for the creation.
        fields: Fields of the event.
        before: Configuration before it; empty for the creation.
        after: Configuration after it.
        was: Data before it.
        now: Data after it.
        effects: Emitted effects.
    """

    event: str
    fields: Fields
    before: Configuration
    after: Configuration
    was: Values
    now: Values
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class _Compiled:
    always: Always
    given: _Test | None
    then: _Test | None


class PromiseJudge:
    """Tests steps against the promises of one document under one set of parameters."""

    def __init__(self, document: Document, parameters: Mapping[str, Value]) -> None:
        self._parameters = parameters
        tests = [
            _Compiled(
                always,
                _compile(document, always.given, f"promises.always[{index}].if"),
                _compile(document, always.then, f"promises.always[{index}].then"),
            )
            for index, always in enumerate(document.promises.always)
        ]
        self._by_event = {
            name: [test for test in tests if not test.always.events or name in test.always.events]
            for name in ("", *document.events)
        }

    def judge(self, step: Step) -> tuple[list[str], list[Always]]:
        """Return the promises that *step* breaks, in words, and those about what runs after it."""
        holding = self._holding(step)
        return (
            [test.always.why for test in holding if not self._is_kept(test, step)],
            [test.always for test in holding if test.always.live or test.always.dead],
        )

    def _holding(self, step: Step) -> list[_Compiled]:
        before, after = frozenset(step.before), frozenset(step.after)
        found = []
        for test in self._by_event[step.event]:
            always = test.always
            if always.before and not always.before & before:
                continue
            if always.inside and not always.inside & after:
                continue
            if always.into and not always.into & (after - before):
                continue
            if test.given is None or self._holds(test.given, step):
                found.append(test)
        return found

    def _holds(self, test: _Test, step: Step) -> bool:
        return test(step.was, step.now, {**self._parameters, **dict(step.fields)})

    def _is_kept(self, test: _Compiled, step: Step) -> bool:
        always, after = test.always, frozenset(step.after)
        if (always.to and not always.to & after) or always.never & after:
            return False
        if always.stays and step.before != step.after:
            return False
        if test.then is not None and not self._holds(test.then, step):
            return False
        if not always.asks and not always.spares:
            return True
        asked = frozenset(describe(effect) for effect in step.effects)
        return always.asks <= asked and not always.spares & asked


class _Lookup(ast.NodeTransformer):
    """Turns names into lookups: data by position, parameters and fields by name."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(argument) for argument in node.args]
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name, where = node.id, "now"
        if name.startswith(WAS):
            name, where = name.removeprefix(WAS), "was"
        key: str | int = name
        if name in self._order:
            key = self._order.index(name)
        else:
            where = "named"
        return ast.Subscript(ast.Name(where, ast.Load()), ast.Constant(key), ast.Load())


def _compile(document: Document, text: str | None, where: str) -> _Test | None:
    if text is None:
        return None
    order = list(document.data)
    body = parse(text, scope(document) | {f"{WAS}{name}" for name in order}, where)
    fields = document.event_fields() & reads(body)
    source = ast.unparse(ast.fix_missing_locations(_Lookup(order).visit(ast.Expression(body))))
    code: CodeType = compile(source, f"<{where}>", "eval")

    def test(was: Values, now: Values, named: Mapping[str, Value]) -> bool:
        if not fields <= named.keys():
            return False  # it reads a field that this event does not have
        return bool(eval(code, {}, {"was": was, "now": now, "named": named}))

    return test
