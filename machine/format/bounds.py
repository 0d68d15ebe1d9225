"""Size limits of chart documents, checked before anything is built of them.

A document of a few bytes can stand for a large one: by aliases and merges of aliases (an "alias
bomb"), and by numbers that take quadratic time to read. Every count includes expanded aliases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from ..errors import ChartError

#: Maximum size of a document in bytes, number of values, nesting, and number of states.
MAX_TEXT = 4 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 60
MAX_STATES = 500
_LONGEST_SCALAR = 1000  # PyYAML takes quadratic time for numbers such as 1:59:59:..


def require_text(where: str, text: object) -> None:
    """Require a text, or its bytes, of at most 4 MiB.

    Args:
        where: Kind of document, for errors.
        text: The text.

    Raises:
        ChartError: It is none, or larger.
    """
    if not isinstance(text, (str, bytes)):
        found = "nothing" if text is None else type(text).__name__
        raise ChartError(where, f"expected the text of a document, got {found}")
    if len(text) > MAX_TEXT:
        raise ChartError(where, f"expected at most {MAX_TEXT >> 20} MiB, found more")


def check_text(text: str, loader: Any) -> None:
    """Check the size of *text*, before PyYAML builds anything of it.

    Args:
        text: YAML or JSON.
        loader: PyYAML loader class.

    Raises:
        ChartError: It is nested too deeply, or holds too many values with all aliases expanded.
        yaml.YAMLError: It is not YAML.
    """
    open_: list[tuple[str | None, int]] = []  # anchor, values before it
    weights: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            count += weights.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                weights[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            is_typed = event.implicit[0] or event.tag is not None
            if is_typed and len(event.value) > _LONGEST_SCALAR:
                _too_large(event, f"plain values of at most {_LONGEST_SCALAR} characters")
        if len(open_) > MAX_DEPTH:
            _too_large(event, f"at most {MAX_DEPTH} levels of nesting")
        if count > MAX_VALUES:
            _too_large(event, f"at most {MAX_VALUES} values, aliases written out")


def _too_large(event: yaml.Event, bound: str) -> NoReturn:
    line = event.start_mark.line + 1 if event.start_mark is not None else 0
    raise ChartError(f"line {line}", f"expected {bound}; found more")


def check_values(raw: Any, where: str) -> None:
    """Check the size of *raw*, as YAML or JSON gives it; it may share or contain itself.

    Raises:
        ChartError: It is nested too deeply, or holds too many values.
    """
    level, depth, count = [raw], 0, 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH:
            raise ChartError(where, f"expected at most {MAX_DEPTH} levels of nesting, found more")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner.extend(value.values())
            elif isinstance(value, (list, tuple)):
                inner.extend(value)
            if count + len(inner) > MAX_VALUES:
                raise ChartError(where, f"expected at most {MAX_VALUES} values, found more")
        level = inner
