r"""Changes single values in JSON text and leaves every other byte as it is. Pure.

Decoding and encoding would reorder nothing but round numbers, escapes and spaces to our taste;
what a client sent is to reach its model as it was sent. The text must be valid JSON: whoever
calls has had it checked.

Paths are sjson's, which llama-swap uses: ``a.b`` is member b of
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

from .json_scan import Child, JsonError, Steps, finished, walk

Path: TypeAlias = tuple[str, ...]

_SPACE = b" \t\r\n"
_INDEX = re.compile(r"\d{1,6}")
_LONGEST_LIST = 10_000  # an index beyond it is a mistake, not a list of nulls
_MOST_CHANGES = 1000  # of one body: repeated names would be multiplied by what is set


class EditError(Exception):
    """The text has no place where the path points to, or is no JSON; the message says why."""


class _PlaceError(Exception):
    """A list has no such place."""


class _Edit(NamedTuple):
    """One change.

    Attributes:
        path: What is left of the path.
        value: JSON text that is set there; None removes what is there.
        name: The whole path.
    """

    path: Path
    value: bytes | None
    name: str

    @staticmethod
    def of(path: Path, value: bytes | None = None) -> _Edit:
        """Return the change at *path* of the whole text."""
        return _Edit(path, value, ".".join(path))

    def inside(self) -> _Edit:
        """Return what is left of it inside the first segment of the path."""
        return _Edit(self.path[1:], self.value, self.name)

    def made(self) -> bytes:
        """Return the value that is set, inside of all that the path names."""
        assert self.value is not None, "something is set"
        try:
            return _made(self.path, self.value)
        except _PlaceError as error:
            raise EditError(f"cannot set {self.name}: {error}") from error


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
    return finished(_children(text.strip(_SPACE), len(text) - len(text.lstrip(_SPACE))))


def _children(body: bytes, offset: int) -> Steps[list[Child]]:
    found = []
    for child in _walked(body):
        if child is None:
            yield
        else:
            key, *places = child
            found.append(Child(key, *(place + offset for place in places)))
    return found


def _walked(body: bytes) -> Iterator[Child | None]:
    try:
        yield from walk(body)
    except JsonError as error:
        raise EditError(str(error)) from error


def put(text: bytes, path: Path, value: bytes) -> bytes:
    """Return *text* with *value*, JSON too, at *path*; what is missing on the way is made.

    Raises:
        EditError: The path names a member of a list, or an index far beyond its end; or as
            `children`.
    """
    return finished(_edited(text, [_Edit.of(path, value)], _Changes()))


def delete(text: bytes, path: Path) -> bytes:
    """Return *text* without what is at *path*; unchanged if there is nothing.

    Raises:
        EditError: As `children`.
    """
    return finished(_edited(text, [_Edit.of(path)], _Changes()))


class _Changes:
    """Counts the values that are set in one text: each may be far longer than what was there."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if self._count > _MOST_CHANGES:
            raise EditError(f"expected at most {_MOST_CHANGES} places that the filters set")


def _edited(text: bytes, edits: Sequence[_Edit], changes: _Changes) -> Steps[bytes]:
    """Return *text* after *edits*, one after the other; one pass for all that it is made of."""
    body = text.strip(_SPACE)
    if body[:1] == b"{" and all(edit.path for edit in edits):
        done = yield from _object_edited(body, edits, changes)
        return text if done == body and not any(edit.value for edit in edits) else done
    for edit in edits:
        body = text.strip(_SPACE)
        if edit.path and body[:1] == b"{":
            text = yield from _edited(text, [edit], changes)
        elif edit.path and body[:1] == b"[":
            done = yield from _list_edited(body, edit, changes)
            text = text if edit.value is None and done == body else done
        elif edit.value is not None:
            changes.add()
            text = edit.made()
    return text


def _object_edited(body: bytes, edits: Sequence[_Edit], changes: _Changes) -> Steps[bytes]:
    plans: dict[str, list[_Edit]] = {}
    for edit in edits:
        plans.setdefault(_name(edit.path[0]), []).append(edit.inside())
    dropped = {
        name for name, plan in plans.items()
        if any(not edit.path and edit.value is None for edit in plan)
    }  # fmt: skip
    seen: set[str] = set()
    whole = _Written(body)
    for child in _walked(body):
        if child is None:
            yield
        elif child.key not in plans:
            whole.keep(child)
        elif child.key in dropped:
            whole.drop(child)
        else:
            seen.add(child.key)
            value = body[child.value : child.end]
            done = yield from _edited(value, plans[child.key], changes)
            whole.keep(child, None if done == value else done)
    added = []
    for name in dict.fromkeys(_name(edit.path[0]) for edit in edits if edit.value is not None):
        made = None if name in seen else (yield from _new(plans[name], changes))
        if made is not None:
            added.append(_member(name, made))
    return whole.finish(added)


def _new(plan: Sequence[_Edit], changes: _Changes) -> Steps[bytes | None]:
    """Return the value that *plan* makes where there is none, or None."""
    made: bytes | None = None
    for edit in plan:
        if not edit.path:
            made = edit.value
        elif made is not None:
            made = yield from _edited(made, [edit], changes)
        elif edit.value is not None:
            made = edit.made()
    if made is not None:
        changes.add()
    return made


def _list_edited(body: bytes, edit: _Edit, changes: _Changes) -> Steps[bytes]:
    count = 0
    for child in _walked(body):
        if child is None:
            yield
        else:
            count += 1
    index = _index_of(edit, count)
    whole, place = _Written(body), 0
    for child in _walked(body):
        if child is None:
            yield
            continue
        if place != index:
            whole.keep(child)
        elif len(edit.path) == 1 and edit.value is None:
            whole.drop(child)
        else:
            value = body[child.value : child.end]
            done = yield from _edited(value, [edit.inside()], changes)
            whole.keep(child, None if done == value else done)
        place += 1
    if edit.value is None or index < count:
        return whole.finish(())
    changes.add()
    return whole.finish([*[b"null"] * (index - count), edit.inside().made()])


def _index_of(edit: _Edit, count: int) -> int:
    """Return the place in a list of *count* items that *edit* means; -1 is none."""
    head = edit.path[0]
    if edit.value is None:
        if head == "-1":
            return count - 1
        return int(head) if _INDEX.fullmatch(head) and int(head) < count else -1
    try:
        return _index(head, count)
    except _PlaceError as error:
        raise EditError(f"cannot set {edit.name}: {error}") from error


class _Written:
    """An object or a list as it is written again, with other values or without some.

    Args:
        body: Its text, without space around it.
    """

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._text = bytearray()
        self._at = 0  # the text holds what counts up to here
        self._hole: int | None = None  # where the first that was dropped since began
        self._kept_end = self._end = -1  # of the last child that was kept, of the last one

    def keep(self, child: Child, value: bytes | None = None) -> None:
        """Pass *child* on, with *value* instead of its own if that is given."""
        if self._hole is not None:
            self._text += self._body[self._at : self._hole]
            self._at, self._hole = child.start, None
        if value is not None:
            self._text += self._body[self._at : child.value]
            self._text += value
            self._at = child.end
        self._kept_end = self._end = child.end

    def drop(self, child: Child) -> None:
        """Leave *child* out, and the comma behind it; that before it if it is the last."""
        if self._hole is None:
            self._hole = child.start
        self._end = child.end

    def finish(self, added: Sequence[bytes]) -> bytes:
        """Return the text, with *added* behind all others."""
        body = self._body
        if self._kept_end < 0:
            if self._end < 0 and not added:
                return bytes(body)
            return b"".join((body[:1], b",".join(added), body[-1:]))
        if self._hole is None and not added:
            return b"".join((self._text, body[self._at :]))
        behind = [part for piece in added for part in (b",", piece)]
        return b"".join((self._text, body[self._at : self._kept_end], *behind, body[self._end :]))


def _index(head: str, length: int) -> int:
    if head == "-1":
        return length
    if not _INDEX.fullmatch(head):
        raise _PlaceError(f"expected an index into a list, got {head!r}")
    if int(head) >= _LONGEST_LIST:
        raise _PlaceError(f"expected an index below {_LONGEST_LIST}, got {head}")
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
        return finished(self.steps(text, model=model))

    def steps(self, text: bytes, *, model: str | None = None) -> Steps[bytes]:
        """Do as `apply`, in bounded steps."""
        edits: list[_Edit] = []
        if model is not None:
            value = json.dumps(model, ensure_ascii=False).encode()
            edits.append(_Edit.of(("model",), value))
        edits += [_Edit.of(path) for path in self.deleted]
        edits += [_Edit.of(path, value) for path, value in self.changed]
        return (yield from _edited(text, edits, _Changes())) if edits else text


NO_EDITS = Edits()
