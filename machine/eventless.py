"""Cycles of eventless transitions: whether answers of guards that make one can come together.

A decision table is recorded with guards that may answer anything. A cycle found so is an error of
the chart only if the answers agree with each other: ``n > 1`` and ``n <= 1`` never both hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from types import CodeType
from typing import Any

from .document import Document, EventDecl, Value
from .format.expressions import reads
from .format.name_rules import parsed

_MOST_COMBINATIONS = 10_000


def witness(document: Document, event: str, answers: Mapping[str, bool]) -> dict[str, Value] | None:
    """Return values of data, parameters and fields for which the guards give *answers*.

    Args:
        document: The chart.
        event: Event whose fields the guards may read; empty for none.
        answers: Guard -> answer.

    Returns:
        Name -> value; None if no values of the declared domains were found. Of a count, small
        values and those around the numbers in the guards are tried.
    """
    trees = {name: parsed(document, document.guards[name], f"guards.{name}") for name in answers}
    names = sorted(frozenset().union(*(reads(tree) for tree in trees.values())))
    numbers = {number for name in answers for number in _numbers(document.guards[name])}
    domains = [_domain(document, document.events.get(event), name, numbers) for name in names]
    if prod(map(len, domains)) > _MOST_COMBINATIONS:
        return None
    tests = [
        (
            compile(ast.fix_missing_locations(ast.Expression(tree)), f"<guards.{name}>", "eval"),
            answers[name],
        )
        for name, tree in trees.items()
    ]
    scope: dict[str, Any] = {"__builtins__": {"min": min, "max": max}}
    for values in product(*domains):
        named: dict[str, Value] = dict(zip(names, values, strict=True))
        if all(bool(eval(code, scope, dict(named))) is answer for code, answer in tests):
            return named
    return None


def _compiled(tree: ast.expr, name: str) -> CodeType:
    body = ast.fix_missing_locations(ast.Expression(tree))
    return compile(body, f"<guards.{name}>", "eval")


def _numbers(text: str) -> Iterator[int]:
    for digits in re.findall(r"\d+", text):
        yield from (int(digits) - 1, int(digits), int(digits) + 1)


def _domain(
    document: Document, event: EventDecl | None, name: str, numbers: set[int]
) -> tuple[Value, ...]:
    datum = document.data.get(name) or document.parameters.get(name)
    if datum is not None:
        if datum.values is not None:
            return datum.values
        if type(datum.initial) is int:
            return tuple(sorted({0, 1, 2, datum.initial, *numbers}))
        return (datum.initial,)
    if event is not None and name in event.data:
        return event.data[name]
    return ()
