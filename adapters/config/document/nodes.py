"""Tree of the document, whose nodes know their file, line and column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from ....dataclass import dataclass, field
from .scalars import Value
from .source import Source


@dataclass(slots=True, eq=False, kw_only=True)
class _Placed:
    source: Source
    line: int
    column: int
    end_line: int


@dataclass(slots=True, eq=False, kw_only=True)
class Scalar(_Placed):
    """A text, number, boolean or null.

    Attributes:
        text: As written, with tokens of ``source`` inside.
        value: Its value; a text may hold tokens.
        plain: Written without quotes.
        block: Written as a literal block (``|``), whose lines are lines of the file.
        written: Text before macros were expanded, if that changed it.
    """

    text: str
    value: Value
    plain: bool = False
    block: bool = False
    written: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence(_Placed):
    """A list; ``items`` in order."""

    items: list[Node] = field(default_factory=list)


@dataclass(slots=True, eq=False, kw_only=True)
class Mapping(_Placed):
    """A mapping with text keys, in order of definition.

    Attributes:
        items: Key -> node.
        places: Key -> (source, line, column) of the key itself; lines and columns from 1.
        anchored: Keys whose values hold an anchor, to which another place refers.
    """

    items: dict[str, Node] = field(default_factory=dict)
    places: dict[str, tuple[Source, int, int]] = field(default_factory=dict)
    anchored: set[str] = field(default_factory=set)


Node: TypeAlias = Scalar | Sequence | Mapping


def scalar_at(node: Node, value: Value, text: str | None = None) -> Scalar:
    """Return a scalar at the position of *node*."""
    old = node if isinstance(node, Scalar) else None
    return Scalar(
        source=node.source,
        line=node.line,
        column=node.column,
        end_line=node.end_line,
        text=str(value) if text is None else text,
        value=value,
        block=old is not None and old.block,
        written=None if old is None else old.text if old.written is None else old.written,
    )


def sequence_at(node: Node, items: list[Node]) -> Sequence:
    """Return a list of *items* at the position of *node*."""
    return Sequence(
        source=node.source,
        line=node.line,
        column=node.column,
        end_line=node.end_line,
        items=items,
    )


def mapping_at(node: Node, items: dict[str, Node]) -> Mapping:
    """Return a mapping of *items* at the position of *node*."""
    old = node if isinstance(node, Mapping) else None
    return Mapping(
        source=node.source,
        line=node.line,
        column=node.column,
        end_line=node.end_line,
        items=items,
        places=dict(old.places) if old else {},
        anchored=set(old.anchored) if old else set(),
    )


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield (dotted path, scalar) for every scalar in *node*, in order."""
    if isinstance(node, Scalar):
        yield path, node
    elif isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from walk(item, f"{path}[{index}]")
    else:
        for key, item in node.items.items():
            yield from walk(item, f"{path}.{key}" if path else key)
