r"""Superlinear regular expressions, found in their parsed form.

A pattern is flattened into paths: sequences of single characters and of repetitions, each with the
set of characters that it takes. It is refused if two repetitions can share a text in more than one
way and something behind them can fail, since the matcher then tries every division: neighbors
that take the same character, also over single characters that both take (``[^x]*,[^x]*$``), and
repetitions within repetitions (``(a+)+$``). A search counts as a repetition of anything in front.
Possessive repetitions give nothing back and may stand first. So may a repetition whose copies all
begin unlike the text behind it (``(\\.)*"``): giving one back fails at once. The analysis is
conservative: the body of a repetition counts as the set of all characters in it.

A possessive repetition of more than a single character, and an atomic group, are refused too:
Python up to 3.11.4 matches wrongly where a copy fails behind its beginning (issue gh-106052).
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_MANY = 256  # copies that count as without bound
_PATHS = 5000
_ALL = frozenset(range(0x180))
_CLASSES = {
    codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_SINGLE = frozenset({codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN})
_SEARCHING = frozenset({"search", "findall", "finditer", "sub", "subn", "split"})
_FUNCTIONS = _SEARCHING | {"compile", "match", "fullmatch"}


@dataclass(frozen=True, slots=True)
class _Atom:
    """A part of a path.

    Attributes:
        chars: Characters that it takes; empty for a place that is only looked at.
        first: Those that it may begin with.
        is_many: It is a repetition without bound.
        gives_back: It tries with less when the rest does not match.
        is_rigid: It then gives back whole copies only.
    """

    chars: frozenset[int]
    first: frozenset[int] = frozenset()
    is_many: bool = False
    gives_back: bool = False
    is_rigid: bool = False


_Path = tuple[_Atom, ...]
_CHECK = _Atom(frozenset())
_ANYTHING = _Atom(_ALL, _ALL, is_many=True, gives_back=True)


class SuperlinearError(Exception):
    """A pattern takes more than linear time; the text says why."""


class MisreadError(Exception):
    """A pattern matches wrongly in some Python; the text says why."""


def check(pattern: str | bytes, flags: int = 0, *, use: str = "search") -> None:
    """Refuse a pattern that takes more than linear time.

    Args:
        pattern: The pattern.
        flags: As for ``re.compile``.
        use: Name of the method: ``match``, ``fullmatch``, or one that searches.

    Raises:
        SuperlinearError: It does.
        MisreadError: Some Python matches it wrongly.
    """
    parsed = parser.parse(pattern, flags)
    before: _Path = ()
    if use in _SEARCHING and not _is_anchored(parsed):
        before = (_ANYTHING,)
    behind: _Path = (_CHECK,) if use == "fullmatch" else ()
    for path in _paths(parsed):
        _check_path((*before, *path, *behind))


def _is_anchored(parsed: Any) -> bool:
    first = parsed[0] if len(parsed) else (None, None)
    return first[0] is codes.AT and first[1] in (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING)


def _check_path(path: _Path) -> None:
    """Refuse a path in which two repetitions share a text, and something behind can fail."""
    for place, first in enumerate(path):
        if not (first.is_many and first.gives_back) or _is_vain(path, place):
            continue
        for other, second in enumerate(path[place + 1 :], place + 1):
            if second.is_many:
                can_fail = any(not atom.is_many for atom in path[other + 1 :])
                between = path[place + 1 : other]
                if first.chars & second.first and can_fail and _fit(between, second):
                    raise SuperlinearError(f"repetitions {place} and {other} overlap")
            elif not (second.chars & first.chars):
                break


def _is_vain(path: _Path, place: int) -> bool:
    """Return True if giving back what the repetition at *place* took fails at once."""
    if not path[place].is_rigid or place + 1 == len(path):
        return False
    behind = path[place + 1]
    return bool(behind.chars) and not (behind.is_many or behind.chars & path[place].first)


def _fit(between: _Path, second: _Atom) -> bool:
    return all(atom.is_many or atom.chars & second.chars for atom in between)


def _paths(parsed: Any) -> list[_Path]:
    found: list[_Path] = [()]
    for code, given in parsed:
        options = list(_options(code, given))
        found = [(*path, *option) for path in found for option in options]
        if len(found) > _PATHS:
            raise SuperlinearError("too many ways through it to be checked")
    return found


def _options(code: Any, given: Any) -> Iterator[_Path]:
    match code:
        case codes.LITERAL | codes.NOT_LITERAL | codes.ANY | codes.IN:
            chars = _chars(code, given)
            yield (_Atom(chars, chars),)
        case codes.SUBPATTERN:
            yield from _paths(given[-1])
        case codes.BRANCH:
            for branch in given[1]:
                yield from _paths(branch)
        case codes.ATOMIC_GROUP:
            raise MisreadError("an atomic group")
        case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
            yield from _repeated(code, *given)
        case codes.AT:
            is_end = given in (codes.AT_END, codes.AT_END_STRING)
            yield (_CHECK,) if is_end else ()
        case codes.ASSERT | codes.ASSERT_NOT:
            yield (_CHECK,)
            for path in _paths(given[1]) if given[0] > 0 else ():
                yield (*path, _CHECK)
        case codes.GROUPREF:
            yield (_ANYTHING,)
        case _:
            raise SuperlinearError(f"{code} cannot be checked")


def _repeated(code: Any, least: int, most: int, body: Any) -> Iterator[_Path]:
    ways = _paths(body)
    gives_back = code is not codes.POSSESSIVE_REPEAT
    if not (gives_back or (len(body) == 1 and body[0][0] in _SINGLE)):
        raise MisreadError("a possessive repetition of more than one character")
    if most <= _MANY:
        if not least:
            yield ()
        yield from ways
        return
    if gives_back:
        _check_loop(ways)
    chars = frozenset[int]().union(*(atom.chars for way in ways for atom in way))
    begin = frozenset[int]().union(*map(_first, ways))
    is_rigid = not any(
        atom.gives_back and not _is_vain(way, place)
        for way in ways
        for place, atom in enumerate(way)
    )
    many = _Atom(chars, begin, is_many=True, gives_back=gives_back, is_rigid=is_rigid)
    if not least:
        yield (many,)
        return
    for way in ways:
        yield (*way, many)


def _first(way: _Path) -> frozenset[int]:
    found: frozenset[int] = frozenset()
    for atom in way:
        found |= atom.first
        if not atom.is_many and atom.chars:
            break
    return found


def _check_loop(ways: Sequence[_Path]) -> None:
    """Refuse a body of which two copies can share a text, or that has two ways to begin."""
    for number, way in enumerate(ways):
        if not any(not atom.is_many for atom in way):
            raise SuperlinearError("what is repeated may be empty, or is a repetition")
        for other, second in enumerate(ways):
            _check_path((*way, *second, _CHECK))
            if other > number and _begin_alike(way, second):
                raise SuperlinearError("alternatives within a repetition begin alike")


def _begin_alike(way: _Path, second: _Path) -> bool:
    """Return True unless a single character tells the ways apart, behind others at most."""
    for one, other in zip(way, second, strict=False):
        if one.is_many or other.is_many or not (one.chars and other.chars):
            break
        if not (one.chars & other.chars):
            return False
    return bool(_first(way) & _first(second))


def _chars(code: Any, given: Any) -> frozenset[int]:
    if code is codes.LITERAL:
        return frozenset({min(given, 0x17F)})
    if code is codes.NOT_LITERAL:
        return _ALL - {given}
    if code is codes.ANY:
        return _ALL
    found: set[int] = set()
    is_negated = False
    for kind, value in given:
        if kind is codes.NEGATE:
            is_negated = True
        elif kind is codes.LITERAL:
            found.add(min(value, 0x17F))
        elif kind is codes.RANGE:
            found.update(range(value[0], min(value[1], 0x17F) + 1))
        else:
            found.update(char for char in _ALL if re.match(_CLASSES[value], chr(char)))
    return _ALL - found if is_negated else frozenset(found)


# ---- patterns of a source
@dataclass(frozen=True, slots=True)
class Found:
    """A pattern in a source.

    Attributes:
        place: Path and line.
        pattern: The pattern; None if it is not known before the program runs.
        flags: As for ``re.compile``.
        uses: Names of the methods it is used with; ``search`` where that is not known.
    """

    place: str
    pattern: str | bytes | None
    flags: int
    uses: frozenset[str]


def patterns_of(path: Path, module: str, sources: str) -> Iterator[Found]:
    """Yield the patterns in the source file *path*.

    Args:
        path: The file.
        module: Name under which it is imported.
        sources: Text of all sources, in which the uses of compiled patterns are looked for.
    """
    tree = ast.parse(path.read_text())
    names = {
        node.value: node.targets[0].id for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of = node.func.value
        if not (isinstance(of, ast.Name) and of.id == "re" and node.func.attr in _FUNCTIONS):
            continue
        use = frozenset({node.func.attr})
        if node.func.attr == "compile":
            name = names.get(node, "")
            called = rf"\b{name}(?:[^()\n]*\))?\.(\w+)\("  # also (ONE if so else OTHER).match(
            use = frozenset(re.findall(called, sources) if name else ())
            use = (use & _FUNCTIONS) or frozenset({"search"})
        given = [*node.args[1:], *(key.value for key in node.keywords if key.arg == "flags")]
        flags = [flag for each in given if isinstance(flag := _value(each, module), re.RegexFlag)]
        pattern = _value(node.args[0], module)
        known = pattern if isinstance(pattern, str | bytes) else None
        yield Found(f"{path.name}:{node.lineno}", known, max(flags, default=0), use)


def _value(node: ast.expr, module: str) -> object:
    """Return the value of an expression; names that only a running function knows stand for x."""
    space = vars(importlib.import_module(module))
    if isinstance(node, ast.Name) and node.id not in space:
        return None
    code = compile(ast.Expression(node), module, "eval")
    for unknown in ("x", b"x"):
        try:
            return eval(code, dict.fromkeys(code.co_names, unknown) | space)
        except (AttributeError, NameError, TypeError):
            continue
    return None
