"""Settings of a model as they are in force, each with the file and line that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .nodes import Mapping, Node, Scalar, Sequence
from .source import shown


class Setting(NamedTuple):
    """One value of a model.

    Attributes:
        key: Dotted path below the model, such as ``filters.stripParams``.
        value: The value with macros expanded, and ``${env.X}`` for variables of the environment.
        file: File that it comes from.
        line: Line in the file, from 1.
    """

    key: str
    value: str
    file: str
    line: int


def settings_of(model: Mapping) -> tuple[Setting, ...]:
    """Return the settings of a model whose macros are expanded, in the order of the file."""
    return tuple(_settings(model, ""))


def _settings(node: Node, path: str) -> Iterator[Setting]:
    if isinstance(node, Mapping) and node.items:
        for key, item in node.items.items():
            yield from _settings(item, f"{path}.{key}" if path else key)
    elif isinstance(node, Sequence) and any(not isinstance(item, Scalar) for item in node.items):
        for index, item in enumerate(node.items):
            yield from _settings(item, f"{path}[{index}]")
    else:
        yield Setting(shown(path), _text(node), node.source.name, node.line)


def _text(node: Node) -> str:
    if isinstance(node, Scalar):
        return shown(node.value if isinstance(node.value, str) else node.text)
    if isinstance(node, Sequence):
        return f"[{', '.join(map(_text, node.items))}]"
    return "{}"
