r"""Changes single values in JSON text and leaves every other byte as it is. Pure.

Decoding and encoding would reorder nothing but round numbers, escapes and spaces to our taste;
what a client sent is to reach its model as it was sent. The text must be valid JSON: whoever
calls has had it checked.

Paths are sjson's, which llama-swap uses (llama-swap.md section 1.9): ``a.b`` is member b of
member a, ``\.`` a dot in a name, a number an index into a list, ``-1`` the place after its end,
``:7`` the member "7". Where a name occurs twice in an object, all are changed: readers differ in
which they take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

Path: TypeAlias = tuple[str, ...]

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_SPACE = b" \t\r\n"
_INDEX = re.compile(r"\d{1,6}")
_LONGEST_LIST = 10_000  # an index beyond it is a mistake, not a list of nulls
_QUOTE, _COLON, _COMMA = b'":,'
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")


class EditError(Exception):
    """The text has no place where the path points to, or is no JSON; the message says why."""


class Child(NamedTuple):
    """One member of an object, or one item of a list.

    Attributes:
        key: Its name; empty for items.
        start: Where it begins, name included; offset in bytes.
        value: Where its value begins.
        end: Where its value ends.
    """

    key: str
    start: int
    value: int
    end: int


def parse_path(text: str) -> Path:
    """Split a path into its segments; shape (n,), n >= 1."""
    parts, current, is_escaped = [], "", False
    for char in text:
        if is_escaped:
            current += char
            is_escaped = False
        elif char == "\\":
            is_escaped = True
        elif char == ".":
            parts.append(current)
            current = ""
        else:
            current += char
    return (*parts, current)


def children(text: bytes) -> list[Child]:
    """Return what the object or list *text* is made of, in order; empty for other values.

    Raises:
        EditError: A name in it is no UTF-8.
    """
    found: list[Child] = []
    depth, start, value, key = 0, -1, -1, ""
    is_object = text.lstrip(_SPACE)[:1] == b"{"
    for match in _TOKEN.finditer(text):
        at = match.start()
        kind = text[at]
        if kind in _OPENING:
            depth += 1
            if depth == 1:
                value = at + 1
        elif depth == 1 and kind == _QUOTE and is_object and start < 0:
            try:
                start, key = at, json.loads(match[0])
            except ValueError as error:
                raise EditError(f"the body is not valid JSON: {error}") from error
        elif depth == 1 and kind == _COLON:
            value = at + 1
        elif depth == 1 and (kind == _COMMA or kind in _CLOSING):
            _close(text, found, key, start, value, at)
            start, value, key = -1, at + 1, ""
        if kind in _CLOSING:
            depth -= 1
            if not depth:
                break
    return found


def _close(text: bytes, found: list[Child], key: str, start: int, value: int, at: int) -> None:
    """Add the child whose value lies between *value* and *at*, if there is one."""
    inner = text[value:at].strip(_SPACE)
    if inner:
        begin = text.index(inner[:1], value)
        found.append(Child(key, start if start >= 0 else begin, begin, begin + len(inner)))


def put(text: bytes, path: Path, value: bytes) -> bytes:
    """Return *text* with *value*, JSON too, at *path*; what is missing on the way is made.

    Raises:
        EditError: The path names a member of a list, or an index far beyond its end; or as
            `children`.
    """
    if not path:
        return value
    body = text.strip(_SPACE)
    head, rest = path[0], path[1:]
    if body[:1] == b"{":
        name = _name(head)
        found = children(body)
        same = [child for child in found if child.key == name]
        if not same:
            return _append(body, found, _member(name, _made(rest, value)))
        for child in reversed(same):
            body = _spliced(body, child, put(body[child.value : child.end], rest, value))
        return body
    if body[:1] == b"[":
        return _put_item(body, head, rest, value)
    return _made(path, value)


def delete(text: bytes, path: Path) -> bytes:
    """Return *text* without what is at *path*; unchanged if there is nothing.

    Raises:
        EditError: As `children`.
    """
    body = text.strip(_SPACE)
    found = children(body)
    head, rest = path[0], path[1:]
    for child in reversed([*_named(body, found, head)]):
        if not rest:
            body = _without(body, found, child)
            found = children(body)
        else:
            inner = body[child.value : child.end]
            shorter = delete(inner, rest)
            if shorter != inner:
                body = _spliced(body, child, shorter)
    return body if body != text.strip(_SPACE) else text


def _named(body: bytes, found: Sequence[Child], head: str) -> Iterator[Child]:
    if body[:1] == b"{":
        name = _name(head)
        yield from (child for child in found if child.key == name)
    elif _INDEX.fullmatch(head) and int(head) < len(found):
        yield found[int(head)]
    elif head == "-1" and found:
        yield found[-1]


def _put_item(body: bytes, head: str, rest: Path, value: bytes) -> bytes:
    found = children(body)
    index = _index(head, len(found))
    if index < len(found):
        child = found[index]
        return _spliced(body, child, put(body[child.value : child.end], rest, value))
    padding = [b"null"] * (index - len(found))
    return _append(body, found, b",".join([*padding, _made(rest, value)]))


def _index(head: str, length: int) -> int:
    if head == "-1":
        return length
    if not _INDEX.fullmatch(head):
        raise EditError(f"expected an index into a list, got {head!r}")
    if int(head) >= _LONGEST_LIST:
        raise EditError(f"expected an index below {_LONGEST_LIST}, got {head}")
    return int(head)


def _name(head: str) -> str:
    return head[1:] if head.startswith(":") and _INDEX.fullmatch(head[1:]) else head


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass") + b":" + value


def _made(path: Path, value: bytes) -> bytes:
    """Return what has to be there so that *value* is at *path* of it."""
    for head in reversed(path):
        if head == "-1" or _INDEX.fullmatch(head):
            index = _index(head, 0)
            value = b"[" + b",".join([*[b"null"] * index, value]) + b"]"
        else:
            value = b"{" + _member(_name(head), value) + b"}"
    return value


def _spliced(body: bytes, child: Child, value: bytes) -> bytes:
    return body[: child.value] + value + body[child.end :]


def _append(body: bytes, found: Sequence[Child], piece: bytes) -> bytes:
    if found:
        end = found[-1].end
        return body[:end] + b"," + piece + body[end:]
    return body[:1] + piece + body[-1:]


def _without(body: bytes, found: Sequence[Child], child: Child) -> bytes:
    place = found.index(child)
    if place + 1 < len(found):
        return body[: child.start] + body[found[place + 1].start :]
    if place:
        return body[: found[place - 1].end] + body[child.end :]
    return body[:1] + body[-1:]


@dataclass(frozen=True, slots=True)
class Edits:
    """What the filters of a model change in a request, compiled.

    Attributes:
        deleted: Paths that are removed, first.
        changed: Path -> JSON text, in order.
    """

    deleted: tuple[Path, ...] = ()
    changed: tuple[tuple[Path, bytes], ...] = ()

    @staticmethod
    def compile(strip: Sequence[str], *sets: Mapping[str, Any]) -> Edits:
        """Return the edits for parameters to strip and to set; none of them touches ``model``."""
        deleted = (parse_path(text) for text in dict.fromkeys(strip))
        changed = (
            (parse_path(text), json.dumps(values[text], ensure_ascii=False).encode())
            for values in sets
            for text in sorted(values)
        )
        return Edits(
            tuple(path for path in deleted if path[0] != "model"),
            tuple(item for item in changed if item[0][0] != "model"),
        )

    def __bool__(self) -> bool:
        return bool(self.deleted or self.changed)

    def apply(self, text: bytes, *, model: str | None = None) -> bytes:
        """Return the object *text*, changed.

        Args:
            text: A valid JSON object with at most one member ``model``.
            model: The new ``model``; None leaves it.

        Raises:
            EditError: A path does not fit the text.
        """
        if model is not None:
            text = put(text, ("model",), json.dumps(model, ensure_ascii=False).encode())
        for path in self.deleted:
            text = delete(text, path)
        for path, value in self.changed:
            try:
                text = put(text, path, value)
            except EditError as error:
                raise EditError(f"cannot set {'.'.join(path)}: {error}") from error
        return text


NO_EDITS = Edits()
