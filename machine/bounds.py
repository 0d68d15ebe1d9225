"""Bounds of chart documents, checked before anything is built of them.

A document of some bytes can stand for a large one: by aliases and merges of aliases (an "alias
bomb"), and by numbers that take quadratic time to read. Every count takes aliases as written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from .errors import ChartError

#: Most bytes of a document, most values in it, deepest nesting, and most states.
MAX_TEXT = 4 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 60
MAX_STATES = 500
_LONGEST_SCALAR = 1000  # what PyYAML makes of numbers such as 1:59:59:.. takes quadratic time


def check_text(text: str, loader: Any) -> None:
    """Raise unless *text* is small, before PyYAML builds anything of it.

    Args:
        text: YAML or JSON.
        loader: As PyYAML wants it.

    Raises:
        ChartError: It is too deep, or holds too many values with every alias written out.
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
    """Raise unless *raw*, as YAML or JSON gives it, is small, whatever it shares or holds itself.

    Raises:
        ChartError: It is too deep, or holds too many values.
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
