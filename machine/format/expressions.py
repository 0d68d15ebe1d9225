"""Expressions of guards and assignments: a small, total subset of Python's.

Names, constants, comparisons, ``and or not``, ``+ - *``, ``x if c else y``, ``min`` and ``max``.
There is no attribute, subscript, other call, lambda or comprehension: an expression in a user's
overlay can read its declared names and nothing else.

Every value is small. Arithmetic takes numbers only, a list is allowed only behind ``in`` or in
``min`` and ``max``, and assigned values are kept within `MOST`: one expression of at most 500
characters can then make a number of some thousand digits, and no sequence of events a larger one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

from ..errors import ChartError
from .hints import meant

_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.BinOp, ast.Add,
    ast.Sub, ast.Mult, ast.IfExp, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.Call,
)  # fmt: skip
_FUNCTIONS = frozenset({"min", "max"})
_CONSTANTS = (bool, int, str, type(None))
_LONGEST = 500
_DEEPEST = 64
_MOST_TRIES = 1000
_NUMBER = frozenset({"number"})

#: Largest absolute value of a number in a document and after an assignment.
MOST = 10**18


def parse(text: str, names: frozenset[str], where: str) -> ast.expr:
    """Parse *text*, which may read *names* only.

    Args:
        text: Such as ``in_flight == 0``.
        names: Data, parameters and event fields in scope.
        where: Dotted path of the expression, for errors.

    Raises:
        ChartError: It is not an expression of this language, or reads an unknown name.
    """
    if len(text) > _LONGEST:
        raise ChartError(where, f"expected at most {_LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ChartError(where, f"expected an expression, got {text!r}") from error
    _check_depth(tree, where)
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ChartError(where, f"{type(node).__name__} is not allowed in {text!r}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, _CONSTANTS):
            raise ChartError(where, f"constant {node.value!r} is not allowed in {text!r}")
        if isinstance(node, ast.Constant) and not is_small(node.value):
            raise ChartError(where, f"expected numbers of at most {MOST:.0e}, in {text!r}")
        if isinstance(node, ast.Call):
            function = node.func
            if not isinstance(function, ast.Name) or function.id not in _FUNCTIONS or node.keywords:
                raise ChartError(where, f"only min(..) and max(..) may be called, in {text!r}")
            called.add(id(function))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in called and node.id not in names:
            known = ", ".join(sorted(names)) or "none"
            hint = meant(node.id, names) or ";"
            raise ChartError(where, f"unknown name {node.id!r} in {text!r}{hint} known: {known}")
    try:
        _result_kinds(tree.body, {})
    except _KindError as error:
        raise ChartError(where, f"{error}, in {text!r}") from error
    return tree.body


def _check_depth(tree: ast.AST, where: str) -> None:
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ChartError(where, f"expected at most {_DEEPEST} levels of nesting, found more")
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def is_small(value: object) -> bool:
    """Return True if *value* is not a number, or is within `MOST`."""
    return not isinstance(value, int) or -MOST <= value <= MOST


def bounded(value: Any) -> Any:
    """Return *value*; a number beyond `MOST` is replaced by the nearest one within it."""
    return value if is_small(value) else MOST if value > 0 else -MOST


def can_grow(expression: ast.expr) -> bool:
    """Return True if *expression* can exceed the largest name in it plus a constant.

    Any other expression takes some 10**18 events to reach `MOST`, so it is assigned unchecked.
    """
    if isinstance(expression, ast.IfExp):
        return can_grow(expression.body) or can_grow(expression.orelse)
    if isinstance(expression, ast.BoolOp):
        return any(can_grow(value) for value in expression.values)
    if isinstance(expression, ast.Call):
        return any(can_grow(argument) for argument in expression.args)
    if isinstance(expression, ast.Tuple):
        return any(can_grow(item) for item in expression.elts)
    if isinstance(expression, ast.BinOp):
        return not (
            isinstance(expression.op, (ast.Add, ast.Sub))
            and isinstance(expression.right, ast.Constant)
            and not can_grow(expression.left)
        )
    return isinstance(expression, ast.UnaryOp) and can_grow(expression.operand)


class _KindError(Exception):
    """An operand has the wrong kind."""


def _kind_of(value: object) -> str:
    if isinstance(value, int):
        return "number"
    return "text" if isinstance(value, str) else "None"


def _result_kinds(expression: ast.expr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the kinds that the value of *expression* can have: number, text, None.

    Args:
        known: Name -> kinds; a missing name counts as a number.

    Raises:
        _KindError: An operand has the wrong kind, or the value is a list.
    """
    kinds = _kinds(expression, known)
    if "list" in kinds:
        raise _KindError(
            "a list is allowed only behind `in` or as the only argument of min(..) or max(..)"
        )
    return kinds


def _kinds(node: ast.expr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    if isinstance(node, ast.Constant):
        return frozenset({_kind_of(node.value)})
    if isinstance(node, ast.Name):
        return known.get(node.id, _NUMBER)
    if isinstance(node, ast.IfExp):
        _kinds(node.test, known)
        return _kinds(node.body, known) | _kinds(node.orelse, known)
    if isinstance(node, ast.BoolOp):
        return frozenset().union(*(_kinds(value, known) for value in node.values))
    if isinstance(node, ast.Tuple):
        for item in node.elts:
            _result_kinds(item, known)
        return frozenset({"list"})
    if isinstance(node, ast.Call):
        return _call_kinds(node, known)
    if isinstance(node, ast.Compare):
        for part in (node.left, *node.comparators):
            _kinds(part, known)
        return _NUMBER
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _kinds(node.operand, known)
        return _NUMBER
    operands = [node.left, node.right] if isinstance(node, ast.BinOp) else []
    operands += [node.operand] if isinstance(node, ast.UnaryOp) else []
    for operand in operands:
        if wrong := _kinds(operand, known) - _NUMBER:
            found = " or ".join(sorted(wrong))
            raise _KindError(f"arithmetic takes numbers, and {ast.unparse(operand)} can be {found}")
    return _NUMBER


def _call_kinds(node: ast.Call, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the kinds of the arguments, or of the items if a list is the only argument."""
    arguments = node.args
    if len(arguments) == 1 and isinstance(arguments[0], ast.Tuple):
        arguments = arguments[0].elts  # of several lists, the greatest list would be the value
    return frozenset().union(*(_result_kinds(argument, known) for argument in arguments))


def reads(expression: ast.expr) -> frozenset[str]:
    """Return the names that *expression* reads, functions excluded."""
    return frozenset(
        node.id
        for node in ast.walk(expression)
        if isinstance(node, ast.Name) and node.id not in _FUNCTIONS
    )


def fault(
    expression: ast.expr,
    domains: Mapping[str, Sequence[object]],
    target: Sequence[object] | None = None,
) -> str:
    """Return why *expression* has no value for some of the values that its names can have.

    Args:
        expression: As `parse` returns it.
        domains: Name -> values to try, in at most 1000 combinations.
        target: Values of the datum that it is assigned to, whose kind must not change; None if it
            is not assigned.

    Returns:
        For example ``fails for mode='a': '<' not supported ..``; empty if it always has a value.
    """
    names = sorted(reads(expression))
    try:
        kinds = _result_kinds(
            expression, {name: frozenset(map(_kind_of, domains[name])) for name in names}
        )
    except _KindError as error:
        return f"fails: {error}"
    if target is not None and (wrong := kinds - frozenset(map(_kind_of, target))):
        return f"fails: the datum is no {' or '.join(sorted(wrong))}"
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
