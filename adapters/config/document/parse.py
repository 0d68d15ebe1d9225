"""YAML parser that builds a bounded tree of nodes.

It reads YAML *events*, because only there can depth, size, duplicate keys and aliases be checked
before anything is built of them. A 306-byte "alias bomb" is rejected by counting its nodes as if
every alias were expanded.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

import yaml

from ..problem_collector import ProblemCollector
from .nodes import Mapping, Node, Scalar, Sequence
from .scalars import Value, resolve
from .source import EnvironmentValues, Source, hide_escapes

#: Maximum number of nodes in one file, with aliases expanded.
MAX_NODES = 100_000
#: Maximum length of the text in one file, with aliases expanded; characters.
MAX_TEXT = 16 << 20
#: Maximum length of a key; characters.
MAX_KEY = 512
#: Maximum nesting of mappings and lists, with aliases expanded.
MAX_DEPTH = 50

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = "\0<<"  # stands for the plain key `<<`; no text of a document is equal to it


def parse(
    source: Source, environment: EnvironmentValues, collector: ProblemCollector
) -> Node | None:
    """Build the tree of *source*; None if it is empty, or if a problem left nothing to build."""
    composer = _Composer(source, environment, collector)
    try:
        for event in yaml.parse(source.text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        line, column = _place(error.problem_mark or error.context_mark)
        said = " ".join(filter(None, (error.problem, error.context)))
        collector.error_at(source.name, "", line, column, f"not valid YAML: {said}")
        return None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        reason, at = getattr(error, "reason", "unreadable"), getattr(error, "position", 0)
        line = source.text.count("\n", 0, at) + 1
        collector.error_at(source.name, "", line, 1, f"not valid YAML: {reason}")
        return None
    except _StopError:
        return None
    return composer.root


class _Mark(Protocol):
    line: int
    column: int


def _place(mark: _Mark | None) -> tuple[int, int]:
    """Return line and column, from 1."""
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


class _StopError(Exception):
    """Parsing cannot continue; the reason has been reported."""


class _Frame:
    """A mapping or list that is being parsed."""

    __slots__ = ("anchor", "anchored", "before", "height", "key", "key_at", "merged", "node")

    def __init__(
        self, node: Mapping | Sequence, anchor: str | None, before: tuple[int, int]
    ) -> None:
        self.node, self.anchor, self.before = node, anchor, before  # before: nodes, characters
        self.anchored = anchor is not None  # the node, or a node inside it
        self.height = 1
        self.key: str | None = None
        self.key_at = (0, 0)  # line and column
        self.merged: list[Mapping] = []


class _Composer:
    def __init__(
        self, source: Source, environment: EnvironmentValues, collector: ProblemCollector
    ) -> None:
        self.root: Node | None = None
        self._source, self._environment, self._collector = source, environment, collector
        self._stack: list[_Frame] = []
        self._count = self._size = 0
        self._documents = 0
        # node, nodes in it, characters in it, height
        self._anchors: dict[str, tuple[Node, int, int, int]] = {}

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "expected one document, found a second (`---`)")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._spend(event, 1, len(event.value))
        frame = self._stack[-1] if self._stack else None
        text = hide_escapes(event.value)
        line, column = _place(event.start_mark)
        node = Scalar(
            source=self._source,
            line=line,
            column=column,
            end_line=_place(event.end_mark)[0],
            text=text,
            value=text,
            plain=event.style is None or event.style == "",
            block=event.style == "|",
        )
        if not text.isascii() or "\0" in text:
            self._check_text(node)
        node.value = self._meaning(event, node)
        if frame is not None and isinstance(frame.node, Mapping) and frame.key is None:
            self._key(frame, node, event)
        else:
            self._attach(node, event.anchor, (1, len(event.value)), 0)

    def _check_text(self, node: Scalar) -> None:
        if "\0" in node.text:
            self._collector.error(node, self._path(), "a NUL character is not allowed here")
            node.text = node.text.replace("\0", "")
        for reference, why in self._environment.problems(node.text):
            place = self._source.find(reference, node.line, node.end_line)
            line, column = place or (node.line, node.column)
            self._collector.error_at(self._source.name, self._path(), line, column, why)

    def _meaning(self, event: yaml.ScalarEvent, node: Scalar) -> Value:
        if event.tag is None or event.tag == "!":
            if not node.plain or event.tag == "!":
                return node.text
            value = resolve(node.text if node.text.isascii() else self._filled(node.text))
            return node.text if isinstance(value, str) else value
        return self._tagged(event, node)

    def _filled(self, text: str) -> str:
        return self._environment.fill(text).strip()

    def _tagged(self, event: yaml.ScalarEvent, node: Scalar) -> Value:
        tag = event.tag or ""
        kind = tag.removeprefix(_TAG)
        value = resolve(self._filled(node.text))
        if kind == "str":
            return node.text
        if kind == "null":
            return None
        if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if (kind == "int" and isinstance(value, int) and not isinstance(value, bool)) or (
            kind == "bool" and isinstance(value, bool)
        ):
            return value
        what = f"!!{kind}" if tag.startswith(_TAG) else tag
        known = kind in ("int", "float", "bool")
        why = "its value does not fit" if known else "only !!str, !!int, !!float, !!bool, !!null do"
        self._collector.error(node, self._path(), f"the tag {what} cannot be used here: {why}")
        return node.text

    def _key(self, frame: _Frame, node: Scalar, event: yaml.ScalarEvent) -> None:
        frame.key_at = _place(event.start_mark)
        self._check_key(event, event.value)
        if node.plain and node.text == "<<":
            frame.key = _MERGE
            return
        key = self._environment.fill(event.value)
        if not isinstance(node.value, str):
            key = "" if node.value is None and not node.text else key
            what = type(node.value).__name__ if node.value is not None else "null"
            message = f"the key {key!r} is not a text ({what}): it is read as one; quote it"
            self._collector.warning(node, self._path(), message)
        frame.key = key
        if event.anchor:
            self._anchors[event.anchor] = (node, 1, len(event.value), 0)

    def _check_key(self, event: yaml.Event, key: str) -> None:
        if len(key) > MAX_KEY:
            self._stop(event, f"expected keys of at most {MAX_KEY} characters, found {len(key)}")

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._spend(event, 1)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.node, Mapping) and frame.key is None:
            self._stop(event, "expected a text as key, found a mapping or a list")
        if len(self._stack) >= MAX_DEPTH:
            self._stop(event, f"expected at most {MAX_DEPTH} levels of nesting, found more")
        mapping = isinstance(event, yaml.MappingStartEvent)
        tag = event.tag or "!"
        if tag not in ("!", f"{_TAG}map" if mapping else f"{_TAG}seq"):
            self._stop(event, f"the tag {tag.replace(_TAG, '!!')} cannot be used here")
        line, column = _place(event.start_mark)
        make = Mapping if mapping else Sequence
        node = make(source=self._source, line=line, column=column, end_line=line)
        if event.anchor:
            self._anchors.pop(event.anchor, None)  # an alias may refer to it once it is complete
        self._stack.append(_Frame(node, event.anchor, (self._count - 1, self._size)))

    def _close(self, event: yaml.MappingEndEvent | yaml.SequenceEndEvent) -> None:
        frame = self._stack.pop()
        node = frame.node
        node.end_line = _place(event.end_mark)[0]
        if isinstance(node, Mapping):
            for other in frame.merged:
                for key, item in other.items.items():
                    if key not in node.items:
                        node.items[key] = item
                        node.places[key] = other.places[key]
        inside = (self._count - frame.before[0], self._size - frame.before[1])
        self._attach(node, frame.anchor, inside, frame.height, anchored=frame.anchored)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if any(frame.anchor == event.anchor for frame in self._stack):
            self._stop(event, f"the alias *{event.anchor} is inside what it stands for")
        found = self._anchors.get(event.anchor or "")
        if found is None:
            self._stop(event, f"the alias *{event.anchor} stands for nothing in this file")
        node, count, size, height = found
        self._spend(event, count, size)
        if len(self._stack) + height > MAX_DEPTH:
            self._stop(event, f"expected at most {MAX_DEPTH} levels of nesting, found more")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.node, Mapping) and frame.key is None:
            if not isinstance(node, Scalar):
                self._stop(event, "expected a text as key, found a mapping or a list")
            else:
                self._check_key(event, node.text)
                frame.key = self._environment.fill(node.text)
                frame.key_at = _place(event.start_mark)
            return
        self._attach(node, None, (count, size), height)

    def _attach(
        self, node: Node, anchor: str | None, inside: tuple[int, int], height: int, *,
        anchored: bool = False,
    ) -> None:  # fmt: skip
        if anchor:
            self._anchors[anchor] = (node, *inside, height)
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, height + 1)
        frame.anchored |= anchored or anchor is not None
        if isinstance(frame.node, Sequence):
            frame.node.items.append(node)
        elif frame.key == _MERGE:
            self._merge(frame, node)
        else:
            self._put(frame, frame.node, node, anchored or anchor is not None)
        frame.key = None

    def _put(self, frame: _Frame, parent: Mapping, node: Node, anchored: bool) -> None:
        key, (line, column) = frame.key, frame.key_at
        if key is None:  # a mapping's parts come in pairs
            raise AssertionError(node)
        if key in parent.items:
            message = f"the key is defined twice; the first time in line {parent.places[key][1]}"
            self._collector.error_at(self._source.name, self._path(), line, column, message)
            return
        parent.items[key] = node
        parent.places[key] = (self._source, line, column)
        if anchored:
            parent.anchored.add(key)

    def _merge(self, frame: _Frame, node: Node) -> None:
        for part in node.items if isinstance(node, Sequence) else [node]:
            if isinstance(part, Mapping):
                frame.merged.append(part)
            else:
                message = "expected a mapping or a list of mappings after `<<`"
                self._collector.error(node, self._path(), message)

    def _path(self) -> str:
        parts: list[str] = []
        for frame in self._stack:
            if isinstance(frame.node, Sequence):
                parts.append(f"[{len(frame.node.items)}]")
            elif frame.key is not None:
                parts.append(".<<" if frame.key == _MERGE else f".{frame.key}")
        return "".join(parts).lstrip(".")

    def _spend(self, event: yaml.Event, count: int, size: int = 0) -> None:
        self._count += count
        self._size += size
        if self._size > MAX_TEXT:
            message = f"expected at most {MAX_TEXT} characters, aliases written out; got more"
            self._stop(event, message)
        if self._count > MAX_NODES:
            self._stop(event, f"expected at most {MAX_NODES} values, aliases written out; got more")

    def _stop(self, event: yaml.Event, message: str) -> NoReturn:
        line, column = _place(event.start_mark)
        self._collector.error_at(self._source.name, self._path(), line, column, message)
        raise _StopError
