"""Expressions of other tools in the language of our guards and assignments.

ECMAScript (SCXML, XState) is parsed by precedence climbing; Python by its own parser. Both become
the same tree, in which ``_event.data.x`` is the event field ``x`` and ``Math.min`` is ``min``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from ...dataclass import dataclass
from ..errors import ChartError
from ..format.expressions import parse, reads

Language: TypeAlias = Literal["ecmascript", "python"]

#: Prefix of the name that stands for a test of a state, ``In('paid')``.
IN = "__in_"
_LONGEST = 500
_FOREIGN_TOKEN = re.compile(
    r"""\s*+(?:(?P<number>\d++(?:\.\d++)?)
    |(?P<text>'[^'\\]*+(?:\\.[^'\\]*+)*'|"[^"\\]*+(?:\\.[^"\\]*+)*")
    |(?P<name>[A-Za-z_$][\w$]*+)|(?P<sign>\+\+|--|===|!==|==|!=|<=|>=|&&|\|\||[<>+\-*!?:().,]))""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}
_COMPARE: dict[str, Callable[[], ast.cmpop]] = {
    "===": ast.Eq, "!==": ast.NotEq, "==": ast.Eq, "!=": ast.NotEq,
    "<": ast.Lt, ">": ast.Gt, "<=": ast.LtE, ">=": ast.GtE,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[], ast.operator]] = {
    "+": ast.Add, "-": ast.Sub, "*": ast.Mult,
}  # fmt: skip
#: Binary sign -> how strongly it binds.
_BINDS = {
    "?": 1, "||": 2, "&&": 3, "==": 4, "!=": 4, "===": 4, "!==": 4, "<": 5, ">": 5, "<=": 5,
    ">=": 5, "+": 6, "-": 6, "*": 7,
}  # fmt: skip


class UntranslatableError(Exception):
    """The expression has no counterpart in our language; the text says why."""


@dataclass(frozen=True, slots=True)
class Translated:
    """An expression in our language.

    Attributes:
        tree: Its syntax tree.
        fields: Event fields that it reads.
        names: All names that it reads, event fields included.
    """

    tree: ast.expr
    fields: frozenset[str]
    names: frozenset[str]

    def __str__(self) -> str:
        """Return the expression as text."""
        return ast.unparse(self.tree)


def translate(text: str, language: Language) -> Translated:
    """Translate an expression.

    Raises:
        UntranslatableError: It is no expression, or uses what our language does not have.
    """
    places = _Places()
    try:
        tree = _parse_python(text) if language == "python" else _Ecmascript(text).tree()
        tree = ast.fix_missing_locations(places.visit(ast.Expression(tree))).body
    except RecursionError as error:
        raise UntranslatableError(f"too many levels of nesting in {text!r}") from error
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    try:
        checked = parse(ast.unparse(tree), names, "expression")
    except ChartError as error:
        raise UntranslatableError(error.why) from error
    return Translated(checked, frozenset(places.fields), reads(checked))


def _parse_python(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise UntranslatableError(f"expected at most {_LONGEST} characters, got {len(text)}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UntranslatableError(f"expected an expression, got {text!r}") from error


class _Places(ast.NodeTransformer):
    """Replaces the places where other tools keep data by plain names."""

    def __init__(self) -> None:
        self.fields: set[str] = set()

    def visit_Call(self, node: ast.Call) -> ast.expr:
        match node:
            case ast.Call(ast.Name("In"), [ast.Constant(str(state))]) if state.isidentifier():
                return ast.Name(f"{IN}{state}", ast.Load())
        function = self.visit(node.func)
        return ast.Call(function, [self.visit(item) for item in node.args], node.keywords)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        match node.value:
            case ast.Attribute(ast.Name("_event"), "data") | ast.Name("event"):
                self.fields.add(node.attr)
                return ast.Name(node.attr, ast.Load())
            case ast.Name("context"):
                return ast.Name(node.attr, ast.Load())
            case ast.Name("Math") if node.attr in ("min", "max"):
                return ast.Name(node.attr, ast.Load())
        raise UntranslatableError(f"{ast.unparse(node)} is none of the declared names")


class _Ecmascript:
    """Parses one expression of ECMAScript: operators, calls and members, no more."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise UntranslatableError(f"expected at most {_LONGEST} characters, got {len(text)}")
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _FOREIGN_TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise UntranslatableError(f"{text[at : at + 10]!r} is not supported in {text!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._next = 0

    def tree(self) -> ast.expr:
        """Return the syntax tree of the whole text."""
        found = self._expression(0)
        if self._next != len(self._tokens):
            raise self._error()
        return found

    def _error(self) -> UntranslatableError:
        return UntranslatableError(f"expected an expression, got {self._text!r}")

    def _peek(self) -> str:
        kind, text = self._tokens[self._next] if self._next < len(self._tokens) else ("", "")
        return text if kind == "sign" else ""

    def _take(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._error()
        self._next += 1

    def _expression(self, least: int) -> ast.expr:
        left = self._unary()
        while (sign := self._peek()) and (binds := _BINDS.get(sign, 0)) > least:
            self._next += 1
            if sign == "?":
                body = self._expression(0)
                self._take(":")
                left = ast.IfExp(left, body, self._expression(0))
            elif sign in ("&&", "||"):
                joint = ast.And() if sign == "&&" else ast.Or()
                left = ast.BoolOp(joint, [left, self._expression(binds)])
            elif sign in _COMPARE:
                left = ast.Compare(left, [_COMPARE[sign]()], [self._expression(binds)])
            else:
                left = ast.BinOp(left, _ARITHMETIC[sign](), self._expression(binds))
        return left

    def _unary(self) -> ast.expr:
        if self._peek() in ("!", "-", "+"):
            sign = self._peek()
            self._next += 1
            operand = self._unary()
            if sign == "+":
                return operand
            return ast.UnaryOp(ast.Not() if sign == "!" else ast.USub(), operand)
        found = self._primary()
        while self._peek() in (".", "("):
            if self._peek() == ".":
                self._next += 1
                found = ast.Attribute(found, self._name(), ast.Load())
            else:
                found = ast.Call(found, self._arguments(), [])
        return found

    def _name(self) -> str:
        if self._next >= len(self._tokens) or self._tokens[self._next][0] != "name":
            raise self._error()
        self._next += 1
        return self._tokens[self._next - 1][1]

    def _arguments(self) -> list[ast.expr]:
        self._take("(")
        found: list[ast.expr] = []
        while self._peek() != ")":
            if found:
                self._take(",")
            found.append(self._expression(0))
        self._take(")")
        return found

    def _primary(self) -> ast.expr:
        if self._peek() == "(":
            self._next += 1
            found = self._expression(0)
            self._take(")")
            return found
        if self._next >= len(self._tokens):
            raise self._error()
        kind, text = self._tokens[self._next]
        self._next += 1
        if kind == "name":
            if text in _CONSTANTS:
                return ast.Constant(_CONSTANTS[text])
            return ast.Name(text, ast.Load())
        if kind in ("number", "text"):
            try:
                return ast.Constant(ast.literal_eval(text))
            except (SyntaxError, ValueError) as error:
                raise self._error() from error
        raise self._error()


def to_ecmascript(tree: ast.expr) -> str:
    """Return an expression of our language as ECMAScript, fully parenthesized."""
    match tree:
        case ast.Constant(value):
            if value is None:
                return "null"
            return str(value).lower() if isinstance(value, bool) else repr(value)
        case ast.Name(name):
            return name
        case ast.Attribute(value, attribute):
            return f"{to_ecmascript(value)}.{attribute}"
        case ast.BoolOp(operator, values):
            sign = " && " if isinstance(operator, ast.And) else " || "
            return f"({sign.join(map(to_ecmascript, values))})"
        case ast.UnaryOp(operator, operand):
            return f"({'!' if isinstance(operator, ast.Not) else '-'}{to_ecmascript(operand)})"
        case ast.BinOp(left, operator, right):
            sign = next(s for s, made in _ARITHMETIC.items() if made is type(operator))
            return f"({to_ecmascript(left)} {sign} {to_ecmascript(right)})"
        case ast.IfExp(test, body, orelse):
            return f"({to_ecmascript(test)} ? {to_ecmascript(body)} : {to_ecmascript(orelse)})"
        case ast.Compare(left, operators, comparators):
            pairs = zip([left, *comparators], operators, comparators, strict=False)
            terms = [_comparison(*pair) for pair in pairs]
            return terms[0] if len(terms) == 1 else f"({' && '.join(terms)})"
        case ast.Call(ast.Name(function), arguments):
            items = arguments[0].elts if isinstance(arguments[0], ast.Tuple) else arguments
            return f"Math.{function}({', '.join(map(to_ecmascript, items))})"
    raise ChartError("expression", f"{ast.unparse(tree)!r} has no form in ECMAScript")


def _comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
    if isinstance(operator, (ast.In, ast.NotIn)):
        items = right.elts if isinstance(right, ast.Tuple) else [right]
        terms = " || ".join(_comparison(left, ast.Eq(), item) for item in items) or "false"
        return f"({terms})" if isinstance(operator, ast.In) else f"(!({terms}))"
    if isinstance(operator, (ast.Eq, ast.NotEq)) and (_is_text(left) or _is_text(right)):
        sign = "===" if isinstance(operator, ast.Eq) else "!=="  # '1' == 1 in ECMAScript
        return f"({to_ecmascript(left)} {sign} {to_ecmascript(right)})"
    for sign in ("==", "!=", "<", ">", "<=", ">="):
        if type(operator) is _COMPARE[sign]:
            return f"({to_ecmascript(left)} {sign} {to_ecmascript(right)})"
    raise ChartError("expression", f"{ast.unparse(operator)} has no form in ECMAScript")


def _is_text(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Constant) and isinstance(tree.value, str | None)
