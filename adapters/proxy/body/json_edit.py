"""Edits of single values in JSON text, which leave every other byte unchanged. Pure.

Decoding and encoding would change numbers, escapes and spaces; a model must get what its client
sent. The text must be valid JSON, which the caller has checked.

Paths are those of `json_path`. If a name occurs twice in an object, both are changed: parsers
differ in which they use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ....dataclass import dataclass
from .json_path import JsonPath, Segment, parse_path
from .json_scan import Child, JsonError, Steps, finished, walk

Segments: TypeAlias = tuple[Segment, ...]

_MODEL_PATH = JsonPath((Segment("model"),))  # which no filter changes
_SPACE = b" \t\r\n"
_MAX_LIST = 10_000  # a larger index is a mistake and not a list of nulls
_INDEX_DIGITS = 6
_MAX_CHANGES = 1000  # in one body, since repeated names multiply the values that are set


class EditError(Exception):
    """The path does not fit the text, or the text is no JSON; the message says why."""


class _PlaceError(Exception):
    """A list has no such index."""


class _Edit(NamedTuple):
    """One change.

    Attributes:
        path: The remaining path.
        value: JSON text to set there; None removes the value.
        name: The whole path, for messages.
        replaces_only: Nothing is added.
    """

    path: Segments
    value: bytes | None
    name: str
    replaces_only: bool = False

    @staticmethod
    def of(path: JsonPath, value: bytes | None = None) -> _Edit:
        """Return the edit at *path* of the whole text."""
        return _Edit(path.segments, value, str(path), path.replaces_only)

    def inside(self) -> _Edit:
        """Return the edit for the value at the first segment of the path."""
        return _Edit(self.path[1:], self.value, self.name, self.replaces_only)

    def made(self, *, replaces: bool = False) -> bytes:
        """Return the value to set, inside objects and lists for the whole path.

        Args:
            replaces: It replaces a value that is no object and no list; there, ``-1`` is a name.
        """
        assert self.value is not None, "something is set"
        path = self.path
        if replaces and path and path[0].name == "-1":
            path = (path[0]._replace(is_key=True), *path[1:])
        try:
            return _made(path, self.value)
        except _PlaceError as error:
            raise EditError(f"cannot set {self.name}: {error}") from error


def children(text: bytes) -> list[Child]:
    """Return the members or items of *text* in order; empty if it is no object or list.

    Raises:
        EditError: A name is no UTF-8.
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


def put(text: bytes, path: JsonPath, value: bytes) -> bytes:
    """Return *text* with the JSON *value* at *path*; missing objects and lists are added.

    Raises:
        EditError: The path has a member of a list, or an index far beyond its end; see also
            `children`.
    """
    return finished(_edited(text, [_Edit.of(path, value)], _Changes()))


def delete(text: bytes, path: JsonPath) -> bytes:
    """Return *text* without the value at *path*; unchanged if there is none.

    Raises:
        EditError: See `children`.
    """
    return finished(_edited(text, [_Edit.of(path)], _Changes()))


class _Changes:
    """Counts the values that are set in one text, since each may be long.

    Attributes:
        count: Their number.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1
        if self.count > _MAX_CHANGES:
            raise EditError(f"expected at most {_MAX_CHANGES} values that filters set")


def _edited(text: bytes, edits: Sequence[_Edit], changes: _Changes) -> Steps[bytes]:
    """Return *text* after all *edits*, in their order; scans its members or items once."""
    body = text.strip(_SPACE)
    if body[:1] == b"{" and all(edit.path and not edit.path[0].pattern for edit in edits):
        done = yield from _object_edited(body, edits, changes)
        return text if done == body and not any(edit.value for edit in edits) else done
    for edit in edits:
        body = text.strip(_SPACE)
        if edit.path and body[:1] == b"{":
            if edit.path[0].pattern:
                text = yield from _matches_edited(body, edit, changes)
            else:
                text = yield from _edited(text, [edit], changes)
        elif edit.path and body[:1] == b"[":
            done = yield from _list_edited(body, edit, changes)
            text = text if edit.value is None and done == body else done
        elif edit.value is not None and not (edit.path and edit.replaces_only):
            changes.add()
            text = edit.made(replaces=True)
    return text


def _matches_edited(body: bytes, edit: _Edit, changes: _Changes) -> Steps[bytes]:
    """Return the object *body* after *edit*, whose pattern may fit several members.

    As in sjson, a value is set in the first that has the path; removed is a value from each.
    """
    whole, is_set = _Writer(body), False
    for child in _walked(body):
        if child is None:
            yield
        elif is_set or not edit.path[0].fits(child.key):
            whole.keep(child)
        elif len(edit.path) == 1 and edit.value is None:
            whole.drop(child)
        else:
            value, count = body[child.value : child.end], changes.count
            done = yield from _edited(value, [edit.inside()], changes)
            is_set = changes.count > count
            whole.keep(child, None if done == value else done)
    return whole.finish(())


def _object_edited(body: bytes, edits: Sequence[_Edit], changes: _Changes) -> Steps[bytes]:
    plans: dict[str, list[_Edit]] = {}
    for edit in edits:
        plans.setdefault(edit.path[0].name, []).append(edit.inside())
    dropped = {
        name for name, plan in plans.items()
        if any(not edit.path and edit.value is None for edit in plan)
    }  # fmt: skip
    seen: set[str] = set()
    whole = _Writer(body)
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
    for name in dict.fromkeys(edit.path[0].name for edit in edits if edit.value is not None):
        made = None if name in seen else (yield from _new(plans[name], changes))
        if made is not None:
            added.append(_member(name, made))
    return whole.finish(added)


def _new(plan: Sequence[_Edit], changes: _Changes) -> Steps[bytes | None]:
    """Return the value that *plan* sets where there is none, or None."""
    made: bytes | None = None
    for edit in plan:
        if made is None and edit.replaces_only:
            continue
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
    is_each, count = edit.path[0].is_each, 0
    if is_each and len(edit.path) == 1 and edit.value is not None:
        return body  # to sjson, the number of items
    for child in _walked(body):
        if child is None:
            yield
        else:
            count += 1
    index = _index_of(edit, count)
    whole, place = _Writer(body), 0
    for child in _walked(body):
        if child is None:
            yield
            continue
        if place != index and not is_each:
            whole.keep(child)
        elif len(edit.path) == 1 and edit.value is None:
            whole.drop(child)
        else:
            value = body[child.value : child.end]
            done = yield from _edited(value, [edit.inside()], changes)
            whole.keep(child, None if done == value else done)
        place += 1
    if edit.value is None or edit.replaces_only or index < count:
        return whole.finish(())
    changes.add()
    return whole.finish([*[b"null"] * (index - count), edit.inside().made()])


def _index_of(edit: _Edit, count: int) -> int:
    """Return the index that *edit* has in a list of *count* items; -1 means none."""
    segment = edit.path[0]
    digits = segment.name if segment.name.isascii() and segment.name.isdigit() else ""
    is_item = 0 < len(digits) <= _INDEX_DIGITS and int(digits) < count
    if is_item:
        return int(digits)
    if edit.value is None:
        return count - 1 if segment.is_end and segment.name else -1
    if edit.replaces_only:
        return -1
    try:
        return _index(segment, count)
    except _PlaceError as error:
        raise EditError(f"cannot set {edit.name}: {error}") from error


class _Writer:
    """Writer of an object or a list with changed or removed values.

    Args:
        body: Its text, without whitespace around it.
    """

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._text = bytearray()
        self._at = 0  # offset in the body up to which the text is written
        self._hole: int | None = None  # start of the first child that was dropped since
        self._kept_end = self._end = -1  # end of the last kept child, and of the last child

    def keep(self, child: Child, value: bytes | None = None) -> None:
        """Keep *child*, with *value* instead of its own unless that is None."""
        if self._hole is not None:
            self._text += self._body[self._at : self._hole]
            self._at, self._hole = child.start, None
        if value is not None:
            self._text += self._body[self._at : child.value]
            self._text += value
            self._at = child.end
        self._kept_end = self._end = child.end

    def drop(self, child: Child) -> None:
        """Drop *child* and the comma after it, or the one before it if it is the last."""
        if self._hole is None:
            self._hole = child.start
        self._end = child.end

    def finish(self, added: Sequence[bytes]) -> bytes:
        """Return the text, with *added* at the end."""
        body = self._body
        if self._kept_end < 0:
            if self._end < 0 and not added:
                return bytes(body)
            return b"".join((body[:1], b",".join(added), body[-1:]))
        if self._hole is None and not added:
            return b"".join((self._text, body[self._at :]))
        behind = [part for piece in added for part in (b",", piece)]
        return b"".join((self._text, body[self._at : self._kept_end], *behind, body[self._end :]))


def _index(segment: Segment, length: int) -> int:
    """Return the index of *segment* in a list of *length* items, which it does not exceed much."""
    if segment.is_end:
        return length
    if not segment.is_index:
        raise _PlaceError(f"expected an index into a list, got {segment.name!r}")
    if len(segment.name) > _INDEX_DIGITS or int(segment.name) >= _MAX_LIST:
        raise _PlaceError(f"expected an index below {_MAX_LIST}, got {segment.name}")
    return int(segment.name)


def _filter_path(text: str) -> JsonPath:
    """Return the path *text*, whose pattern does not fit ``model``."""
    path = parse_path(text)
    first, *rest = path.segments
    if not first.pattern:
        return path
    spared = first._replace(pattern=rf"(?!model\Z){first.pattern}")
    return JsonPath((spared, *rest), path.replaces_only)


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass") + b":" + value


def _made(path: Segments, value: bytes) -> bytes:
    """Return *value* inside new objects and lists for *path*."""
    for segment in reversed(path):
        if segment.is_index:
            index = _index(segment, 0)
            value = b"[" + b",".join([*[b"null"] * index, value]) + b"]"
        else:
            value = b"{" + _member(segment.name, value) + b"}"
    return value


@dataclass(frozen=True, slots=True)
class Edits:
    """The filters of a model, compiled.

    Attributes:
        deleted: Paths to remove, before anything is set.
        changed: Pairs of path and JSON text to set, in order.
    """

    deleted: tuple[JsonPath, ...] = ()
    changed: tuple[tuple[JsonPath, bytes], ...] = ()

    @staticmethod
    def compile(strip: Sequence[str], *sets: Mapping[str, Any]) -> Edits:
        """Return the edits for parameters to strip and to set; none of them touches ``model``."""
        deleted = (_filter_path(text) for text in dict.fromkeys(strip))
        changed = (
            (_filter_path(text), json.dumps(values[text], ensure_ascii=False).encode())
            for values in sets
            for text in sorted(values)
        )
        return Edits(
            tuple(path for path in deleted if path.segments[0].name != "model"),
            tuple(item for item in changed if item[0].segments[0].name != "model"),
        )

    def __bool__(self) -> bool:
        return bool(self.deleted or self.changed)

    def apply(self, text: bytes, *, model: str | None = None) -> bytes:
        """Return the object *text* after all edits.

        Args:
            text: A valid JSON object with at most one member ``model``.
            model: The new ``model``; None leaves it.

        Raises:
            EditError: A path does not fit the text.
        """
        return finished(self.steps(text, model=model))

    def steps(self, text: bytes, *, model: str | None = None) -> Steps[bytes]:
        """Do the same as `apply` in bounded steps."""
        edits: list[_Edit] = []
        if model is not None:
            value = json.dumps(model, ensure_ascii=False).encode()
            edits.append(_Edit.of(_MODEL_PATH, value))
        edits += [_Edit.of(path) for path in self.deleted]
        edits += [_Edit.of(path, value) for path, value in self.changed]
        return (yield from _edited(text, edits, _Changes())) if edits else text


NO_EDITS = Edits()
