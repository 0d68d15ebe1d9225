r"""Scanner of JSON text that works in bounded steps. Pure.

A request body may have 64 MiB, and a function that scans all of it would hold the interpreter lock
for long, also in a thread. So scanning functions are generators that yield None between two steps;
a step takes a few milliseconds for any text. ``Turns.run`` runs such a generator on the event loop,
`finished` runs it at once.

`pieces` splits an object into objects. Each piece gets its context, so that all pieces are valid
JSON exactly if the whole text is. The text is split after a comma. The context of a piece within
``{"a":[[`` is ``{"":[[0,`` before it and, unless it is the last, ``,0]]}`` after it. The members of
the pieces are those of the whole, besides members named "".
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import NamedTuple, TypeAlias, TypeVar

from .decoders import NAME

_T = TypeVar("_T")
Steps: TypeAlias = Generator[None, None, _T]

STEP_BYTES = 1 << 16
_STEP_COUNT = 1 << 10  # members or brackets in one step
_DEPTH = 1000  # the limit of msgspec
_KEPT_BYTES = 1 << 13  # longer strings are replaced in a piece; `model` is far shorter
_PIECE_BYTES = 8 << 20  # exceeded only by whitespace, or a number of a million digits
_REPLACEMENT = b'"' + b"-" * _KEPT_BYTES + b'"'

_UTF16 = rb"[dD](?:[0-7][0-9a-fA-F]{2}|[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|' + _UTF16 + rb"))"
_INSIDE = re.compile(rb'[^"\\\x00-\x1f]*+(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*+)*')
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_TEXT = re.compile(_STRING, re.DOTALL)
_WHOLE = re.compile(rb'[^"]*+(?:' + _STRING + rb'[^"]*+)*', re.DOTALL)  # ends outside of strings
_NO_COMMA = re.compile(rb'[^",]*+(?:' + _STRING + rb'[^",]*+)*', re.DOTALL)
_SPACES = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb'[^"\[\]{},: \t\r\n]++')
_INNER = re.compile(rb'[^"\[\]{}]*+(?:' + _STRING + rb'[^"\[\]{}]*+)*', re.DOTALL)
_MEMBER = re.compile(  # whose value is no list and no object
    rb"[ \t\r\n]*+(" + _STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+"
    rb"(" + _STRING + rb'|[^"\[\]{},: \t\r\n]++)[ \t\r\n]*+(?=[,}])',
    re.DOTALL,
)
_QUOTE, _COMMA = b'",'
_OPENING = frozenset(b"{[")
_CLOSING = frozenset(b"}]")
_PARTNER = {ord("}"): ord("{"), ord("]"): ord("[")}
_NO_BRACKETS = bytes(code for code in range(256) if code not in _OPENING | _CLOSING)


class JsonError(Exception):
    """The text is no JSON, or cannot be split into pieces."""


class Child(NamedTuple):
    """One member of an object, or one item of a list.

    Attributes:
        key: Name of the member; empty for items.
        start: Offset of its first byte, name included.
        value: Offset of the first byte of its value.
        end: Offset after the last byte of its value.
    """

    key: str
    start: int
    value: int
    end: int


def finished(steps: Steps[_T]) -> _T:
    """Run *steps* to their end and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


# ---- pieces
def pieces(text: bytes) -> Iterator[bytes | None]:
    """Yield *text*, an object, as objects of bounded size; None between two steps.

    Raises:
        JsonError: The text is no JSON. The decoder of the pieces finds further errors.
    """
    nest = _Nesting()
    at, size, before = 0, len(text), b""
    while True:
        parts = [before]
        length = 0
        pattern = _WHOLE
        while True:
            end = _end(pattern, text, at)
            part = text[at:end]
            nest.enter(_TEXT.sub(b"", part))  # complete strings, whose ends a search finds
            if end == at and at < size and text[at] == _QUOTE:
                end = yield from text_end(text, at)
                part = text[at:end] if end - at <= _KEPT_BYTES else _REPLACEMENT
            parts.append(part)
            length += len(part)
            if length > _PIECE_BYTES:
                raise JsonError("8 MiB without a comma, long strings aside")
            at, pattern = end, _NO_COMMA
            if at >= size or text[at] == _COMMA:
                break
            if length > STEP_BYTES:
                yield None
        if at >= size:
            yield b"".join(parts)
            return
        at += 1
        before, after = nest.context()
        parts.append(after)
        yield b"".join(parts)


class _Nesting:
    """The lists and objects that are open at an offset of a text."""

    def __init__(self) -> None:
        self._open = bytearray()

    def enter(self, text: bytes) -> None:
        """Count the brackets in *text*, which has no quotation marks."""
        opened = self._open
        for code in text.translate(None, _NO_BRACKETS):
            if code in _OPENING:
                opened.append(code)
                if len(opened) > _DEPTH:
                    raise JsonError(f"it is nested more than {_DEPTH} times")
            elif not opened or opened.pop() != _PARTNER[code]:
                raise JsonError("a bracket is closed that is not open")

    def context(self) -> tuple[bytes, bytes]:
        """Return the text before a piece that begins here, and that after one that ends here."""
        opened = bytes(self._open)
        if not opened:
            return b"", b","  # after the end of the object, which is invalid
        outer, inner = opened[:-1], opened[-1:]
        before = b"".join([b"[" if code == 91 else b'{"":' for code in outer])
        after = bytes(code + 2 for code in reversed(opened))  # ] and } in ASCII
        if inner == b"[":
            return before + b"[0,", b",0" + after
        return before + b'{"":0,', b',"":0' + after


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at, at + STEP_BYTES)
    return at if found is None else found.end()


# ---- ends of values
def text_end(text: bytes, at: int) -> Steps[int]:
    """Return the offset after the string that begins at *at*.

    Raises:
        JsonError: The string has no end or an invalid character.
    """
    at += 1
    while True:
        end = _end(_INSIDE, text, at)
        if text[end : end + 1] == b'"':
            return end + 1
        if end == at:
            raise JsonError("a string has no end, or a character that is not allowed")
        at = end
        yield


def _space_end(text: bytes, at: int) -> Steps[int]:
    while True:
        end = _end(_SPACES, text, at)
        if end - at < STEP_BYTES:
            if end >= len(text):
                raise JsonError("it ends in the middle")
            return end
        at = end
        yield


def _scalar_end(text: bytes, at: int) -> Steps[int]:
    start = at
    while (end := _end(_SCALAR, text, at)) - at == STEP_BYTES:
        at = end
        yield
    if end == start:
        raise JsonError("a value is missing")
    return end


def _value_end(text: bytes, at: int) -> Steps[int]:
    if text[at] == _QUOTE:
        return (yield from text_end(text, at))
    if text[at] not in _OPENING:
        return (yield from _scalar_end(text, at))
    depth, passed = 1, 0
    at += 1
    while depth:
        end = _end(_INNER, text, at)
        if end >= len(text):
            raise JsonError("it ends in the middle")
        code = text[end]
        if code == _QUOTE:
            end = yield from text_end(text, end)
        elif code in _OPENING:
            depth += 1
            end += 1
        elif code in _CLOSING:
            depth -= 1
            end += 1
        passed += 1
        if end - at >= STEP_BYTES or passed >= _STEP_COUNT:
            passed = 0
            yield
        at = end
    return at


# ---- members
def walk(text: bytes) -> Iterator[Child | None]:
    """Yield the members or items of *text* in order, and None between two steps.

    Args:
        text: Valid JSON without whitespace around it; only objects and lists have children.

    Raises:
        JsonError: The text is no JSON, or a name in it is no UTF-8.
    """
    if text[:1] not in (b"{", b"["):
        return
    is_object = text[:1] == b"{"
    at, passed = 1, 0
    while True:
        flat = _MEMBER.match(text, at, at + STEP_BYTES) if is_object else None
        if flat is not None:
            yield Child(_name_in(flat[1]), flat.start(1), flat.start(2), flat.end(2))
            at = flat.end()
        else:
            start = value = yield from _space_end(text, at)
            if text[start] in _CLOSING:
                return
            key = ""
            if is_object:
                end = yield from text_end(text, start)
                key = _name_in(text[start:end])
                colon = yield from _space_end(text, end)
                value = yield from _space_end(text, colon + 1)
            end = yield from _value_end(text, value)
            yield Child(key, start, value, end)
            at = yield from _space_end(text, end)
        if text[at] in _CLOSING:
            return
        at += 1
        passed += 1
        if passed >= _STEP_COUNT:
            passed = 0
            yield None


def _name_in(quoted: bytes) -> str:
    try:
        if quoted.find(b"\\") < 0:
            return quoted[1:-1].decode()
        return NAME.decode(quoted)
    except ValueError as error:
        raise JsonError(f"the body is not valid JSON: {error}") from error
