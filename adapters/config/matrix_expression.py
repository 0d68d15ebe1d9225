"""Set expressions of the matrix, such as ``(a | b) & c & +other``, parsed into a tree.

    or   := and ('|' and)*
    and  := atom ('&' atom)*
    atom := NAME | '+' NAME | '(' or ')'

Names are letters, digits, ``_``, ``-`` and ``.``. The syntax is llama-swap's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ...machine.errors import SwapchartError
from ...runtime.eviction import AllOf, AnyOf, Expression, ServiceRef, SetRef

#: Maximum nesting of parentheses.
MAX_DEPTH = 50
_TOKEN = re.compile(r"([\w.-]+|[|&+()]|\S)")
_NAME = re.compile(r"[\w.-]+")


class ExpressionError(SwapchartError):
    """An expression is invalid; the message says where."""


def parse_expression(text: str) -> Expression:
    """Parse *text*.

    Raises:
        ExpressionError: It does not follow the grammar.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [(m[1], m.start(1) + 1) for m in _TOKEN.finditer(text.rstrip())]
        self._at = 0
        self._depth = 0

    def parse(self) -> Expression:
        if not self._tokens:
            raise ExpressionError("empty expression")
        expression = self._alternatives()
        if self._at < len(self._tokens):
            raise self._unexpected("unexpected token")
        return expression

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _alternatives(self) -> Expression:
        parts = [self._together()]
        while self._peek() == "|":
            self._take()
            parts.append(self._together())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _together(self) -> Expression:
        parts = [self._atom()]
        while self._peek() == "&":
            self._take()
            parts.append(self._atom())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _atom(self) -> Expression:
        token = self._peek()
        if token == "(":
            return self._parenthesis()
        if token == "+":
            self._take()
            if not _NAME.fullmatch(self._peek()):
                raise self._unexpected("expected set name after '+'")
            return SetRef(self._take())
        if not _NAME.fullmatch(token):
            known = token in ("", "|", "&", ")")
            raise self._unexpected("unexpected token" if known else "unexpected character")
        return ServiceRef(self._take())

    def _parenthesis(self) -> Expression:
        self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"more than {MAX_DEPTH} nested parentheses")
        inner = self._alternatives()
        if self._peek() != ")":
            raise self._unexpected("missing closing parenthesis")
        self._take()
        self._depth -= 1
        return inner

    def _unexpected(self, what: str) -> ExpressionError:
        if self._at < len(self._tokens):
            token, column = self._tokens[self._at]
            return ExpressionError(f"{what}, found {token!r} at character {column}")
        return ExpressionError(f"{what}, found the end")


def references(expression: Expression) -> tuple[list[str], list[str]]:
    """Return the names and the sets in *expression*, once each, in order."""
    names: dict[str, None] = {}
    sets: dict[str, None] = {}
    todo = [expression]
    while todo:
        part = todo.pop()
        if isinstance(part, ServiceRef):
            names[part.name] = None
        elif isinstance(part, SetRef):
            sets[part.name] = None
        else:
            todo.extend(reversed(part.parts))
    return list(names), list(sets)


def order_sets(sets: Mapping[str, Expression]) -> tuple[list[str], list[str]]:
    """Return the names of *sets* in topological order, and those in or behind a cycle."""
    needs = {name: set(references(sets[name])[1]) & sets.keys() for name in sets}
    waiting = {name: len(others) for name, others in needs.items()}
    users: dict[str, list[str]] = {name: [] for name in sets}
    for name, others in needs.items():
        for other in others:
            users[other].append(name)
    ordered = [name for name, count in waiting.items() if count == 0]
    for name in ordered:  # the loop appends to the list
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ordered.append(user)
    return ordered, [name for name, count in waiting.items() if count > 0]


class TooMuchWorkError(SwapchartError):
    """The computation exceeds its budget."""


def families(
    sets: Mapping[str, Expression],
    resolve: Callable[[str], str],
    among: frozenset[str],
    budget: list[int],
) -> Iterator[frozenset[frozenset[str]]]:
    """Yield, for each of *sets*, the combinations of the models *among* that it allows.

    Combinations that are part of another one are left out.

    Args:
        sets: All sets; sets in cycles are skipped, and unknown references match nothing.
        resolve: Variable -> model id; other names stand for themselves.
        budget: Number of parts and combinations to examine; reduced by the work done.

    Raises:
        TooMuchWorkError: The budget is spent.
    """
    bits = {name: 1 << index for index, name in enumerate(sorted(among))}
    done: dict[str, list[int]] = {}

    def family(expression: Expression) -> list[int]:
        if isinstance(expression, ServiceRef):
            spend(1)
            return [bits.get(resolve(expression.name), 0)]
        if isinstance(expression, SetRef):
            spend(1)
            return done.get(expression.name, [])
        if isinstance(expression, AnyOf):
            return largest([mask for part in expression.parts for mask in family(part)])
        joined = [0]
        for part in expression.parts:
            inner = family(part)
            spend(len(joined) * len(inner))
            joined = largest([one | other for one in joined for other in inner])
        return joined

    def largest(masks: list[int]) -> list[int]:
        kept: list[int] = []
        for mask in sorted(set(masks), key=int.bit_count, reverse=True):
            spend(len(kept))
            if not any(mask & other == mask for other in kept):
                kept.append(mask)
        return kept

    def spend(work: int) -> None:
        budget[0] -= work
        if budget[0] < 0:
            raise TooMuchWorkError("too many combinations")

    for name in order_sets(sets)[0]:
        done[name] = family(sets[name])
        yield frozenset(
            frozenset(model for model, bit in bits.items() if mask & bit) for mask in done[name]
        )
