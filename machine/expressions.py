"""The expressions of guards and assignments: a small, total part of Python's own.

Names, constants, comparisons, ``and or not``, ``+ - *``, ``x if c else y``, ``min`` and ``max``.
No attribute, subscript, call of anything else, lambda or comprehension: an expression from a
user's overlay can read the names it was given and nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import islice, product

from .errors import ChartError

_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.BinOp, ast.Add,
    ast.Sub, ast.Mult, ast.IfExp, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.Call,
)  # fmt: skip
_FUNCTIONS = frozenset({"min", "max"})
_CONSTANTS = (bool, int, str, type(None))
_LONGEST = 500
_MOST_TRIES = 1000


def parse(text: str, names: frozenset[str], where: str) -> ast.expr:
    """Parse *text*, which may read *names* only.

    Args:
        text: Such as ``in_flight == 0``.
        names: Data, parameters and event fields that exist where it stands.
        where: Dotted path of the expression, for errors.

    Raises:
        ChartError: It is no expression of this language, or reads an unknown name.
    """
    if len(text) > _LONGEST:
        raise ChartError(where, f"expected at most {_LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ChartError(where, f"expected an expression, got {text!r}") from error
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ChartError(where, f"{type(node).__name__} is not allowed in {text!r}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, _CONSTANTS):
            raise ChartError(where, f"constant {node.value!r} is not allowed in {text!r}")
        if isinstance(node, ast.Call):
            function = node.func
            if not isinstance(function, ast.Name) or function.id not in _FUNCTIONS or node.keywords:
                raise ChartError(where, f"only min(..) and max(..) may be called, in {text!r}")
            called.add(id(function))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in called and node.id not in names:
            known = ", ".join(sorted(names)) or "none"
            raise ChartError(where, f"unknown name {node.id!r} in {text!r}; known: {known}")
    return tree.body


def reads(expression: ast.expr) -> frozenset[str]:
    """Return the names that *expression* reads, functions excluded."""
    return frozenset(
        node.id
        for node in ast.walk(expression)
        if isinstance(node, ast.Name) and node.id not in _FUNCTIONS
    )


def fault(expression: ast.expr, domains: Mapping[str, Sequence[object]]) -> str:
    """Say why *expression* has no value for some of the values that its names can have.

    Args:
        expression: As `parse` returns it.
        domains: Name -> values to try; at most 1000 combinations are.

    Returns:
        For example ``fails for mode='a': '<' not supported ..``; empty when it always has one.
    """
    names = sorted(reads(expression))
    code = compile(ast.Expression(body=expression), "<expression>", "eval")
    for values in islice(product(*(domains[name] for name in names)), _MOST_TRIES):
        scope = dict(zip(names, values, strict=True))
        try:
            eval(code, {"__builtins__": {}, "min": min, "max": max}, scope)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in scope.items())
            return f"fails{f' for {given}' if given else ''}: {error}"
    return ""


class _OnSelf(ast.NodeTransformer):
    """Turn every name into an attribute of ``self``."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in _FUNCTIONS:
            return node
        return ast.Attribute(value=ast.Name("self", ast.Load()), attr=node.id, ctx=node.ctx)


def on_self(expression: ast.expr) -> str:
    """Return *expression* as source text that reads its names from ``self``."""
    tree = ast.fix_missing_locations(_OnSelf().visit(ast.Expression(body=expression)))
    return ast.unparse(tree.body)
