"""YAML and JSON text of a chart document: its value, and the line and column of each part.

Source: YAML 1.1 as PyYAML reads it, but ``on``, ``yes`` and ``no`` stay words, as in
python-statemachine's own reader. Duplicate keys and keys that are no text are problems.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import yaml

from ..errors import ChartError
from .bounds import check_text, require_text

#: Line and column of a part, both from 1.
Position: TypeAlias = tuple[int, int]

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
#: Numbers that mean the same to readers, YAML 1.1 and JSON.
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)?(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
_INDEX = re.compile(r"\[(\d+)\]")


class _Loader(_Base):  # type: ignore[misc]  # one of two classes of the same interface
    """A safe loader that keeps ``on`` a word and collects duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[ChartError] = []


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        at = (line, key_node.start_mark.column + 1)
        if not isinstance(key, str):
            why = f"expected a text as key, got {key!r}"
            loader.problems.append(ChartError("chart document", why, position=at))
        elif key in seen:
            why = f"duplicate key {key!r}, first on line {seen[key]}"
            loader.problems.append(ChartError("chart document", why, position=at))
        else:
            seen[key] = line
    pairs = loader.construct_pairs(node, deep=True)
    return {key: value for key, value in pairs if isinstance(key, str)}


def _odd(loader: _Loader, node: yaml.ScalarNode, value: object) -> None:
    """Note that YAML 1.1 takes what is written in *node* for another value."""
    at = (node.start_mark.line + 1, node.start_mark.column + 1)
    why = f"YAML reads {node.value!r} as {value}; put it in quotes if it is a text"
    other = f", else write {value}" if isinstance(value, (int, float)) else ""
    loader.problems.append(ChartError("chart document", why + other, position=at))


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Return a number; 12:30, 0x1f and 017 are problems, since YAML 1.1 counts them otherwise."""
    is_float = node.tag.endswith("float")
    value = getattr(loader, f"construct_yaml_{'float' if is_float else 'int'}")(node)
    if not _DECIMAL.fullmatch(node.value):
        _odd(loader, node, value)
    return value


def _date(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return the text of a date, which is a problem without quotes."""
    loader.construct_yaml_timestamp(node)  # of one that does not exist, an error as before
    _odd(loader, node, "a date")
    return str(node.value)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _kind, _constructor in (("int", _number), ("float", _number), ("timestamp", _date)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _constructor)


class Source:
    """A text and its value.

    Args:
        text: YAML or JSON.
        file: Its name, for errors; empty if it has none.

    Attributes:
        value: The value, as YAML gives it.
        problems: Duplicate keys, and keys that are no text.

    Raises:
        ChartError: It is not YAML, or too large.
    """

    def __init__(self, text: str, file: str = "") -> None:
        self.file = file
        require_text("chart document", text)
        try:
            check_text(text, _Loader)
            loader = _Loader(text)
            try:
                self._root = loader.get_single_node()
                self.value = None if self._root is None else loader.construct_document(self._root)
            finally:
                loader.dispose()
        except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
            # PyYAML raises the last three for scalars that do not fit their type: 2024-99-99.
            mark = getattr(error, "problem_mark", None)
            at = None if mark is None else (mark.line + 1, mark.column + 1)
            raise ChartError("chart document", f"not YAML: {error}", position=at) from error
        self.problems = loader.problems

    def position(self, path: str) -> Position:
        """Return where the part at *path* is; of one that is missing, the part around it.

        Args:
            path: Such as ``chart.states.open.transitions[0].target``.
        """
        node, at = self._root, (1, 1)
        rest = path
        while rest:
            if isinstance(node, yaml.MappingNode):
                found = _longest(node, rest)
                if found is None:
                    break
                key, value = found
                at = (key.start_mark.line + 1, key.start_mark.column + 1)
                node, rest = value, rest[len(key.value) :].removeprefix(".")
            elif isinstance(node, yaml.SequenceNode) and (index := _INDEX.match(rest)):
                if int(index[1]) >= len(node.value):
                    break
                node = node.value[int(index[1])]
                at = (node.start_mark.line + 1, node.start_mark.column + 1)
                rest = rest[index.end() :].removeprefix(".")
            elif index := _INDEX.match(rest):  # one item may stand for a list of one
                rest = rest[index.end() :].removeprefix(".")
            else:
                break
        return at

    def placed(self, problem: ChartError) -> ChartError:
        """Return *problem* with the file, and the line and column of its path."""
        at = problem.position or self.position(problem.where)
        return problem.at(self.file, at)


def _longest(node: yaml.MappingNode, rest: str) -> tuple[yaml.ScalarNode, yaml.Node] | None:
    """Return the key of *node*, with its value, that is the longest beginning of *rest*."""
    best: tuple[yaml.ScalarNode, yaml.Node] | None = None
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not rest.startswith(key.value):
            continue
        tail = rest[len(key.value) :]
        if (not tail or tail[0] in ".[") and (best is None or len(key.value) > len(best[0].value)):
            best = key, value
    return best


def load_yaml(text: str) -> Any:
    """Return the value of *text*; ``on`` and ``yes`` are words, and duplicate keys are rejected.

    Raises:
        ChartError: It is not YAML, too large, or has duplicate keys.
    """
    source = Source(text)
    if source.problems:
        raise source.problems[0]
    return source.value
