"""Validation: reads nodes as sections and reports errors with their locations.

The conversion follows the types of the section, because the same scalar means different things to
different keys: ``3.10`` is a text in ``name`` and a number in ``metadata``, ``yes`` is true where
a boolean is expected and a text elsewhere. Unknown keys are dropped here, with a warning.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from .document.nodes import Mapping, Node, Scalar, Sequence
from .document.scalars import as_bool, as_text
from .document.source import EnvironmentValues
from .hints import MOST_HINTS, key_hint
from .macros import display
from .problem_collector import ProblemCollector
from .schema.checks import FieldError, check_section
from .schema.section import SecretStr, Section, field_types

S = TypeVar("S", bound=Section)
_Convert = Callable[["Reader", Node, str], object]

_PLANS: dict[type[Section], dict[str, _Convert]] = {}
#: Paths whose values are never shown in messages.
_SECRET = re.compile(r"apiKeys\b|peers\..*\.apiKey\Z|models\..*\.env(?:\[\d+\])?\Z", re.DOTALL)
_HEADERS = re.compile(r"\.headers\b")


class Reader:
    """Reads sections from nodes.

    Args:
        environment: Values for ``${env.X}``.
        collector: Receives the problems.
    """

    def __init__(self, environment: EnvironmentValues, collector: ProblemCollector) -> None:
        self.environment, self.collector = environment, collector
        self._hints = 0

    def read(self, kind: type[S], node: Mapping, path: str) -> tuple[S | None, set[str]]:
        """Return *node* as a section of *kind*, and the keys that are invalid.

        Invalid keys are reported and get their defaults, so that the rest can be checked too. The
        section is None if a key without a default is invalid.
        """
        data = self.section(kind, node, path)
        broken: set[str] = set()
        while True:
            section, errors = check_section(kind, data)
            if not errors:
                return section, broken
            for error in errors:
                if error.location[:1] not in {(key,) for key in broken}:  # else reported before
                    self._complain(error, node, path)
            wrong = {str(error.location[0]) for error in errors if error.location} & data.keys()
            if not wrong:
                return None, broken
            broken |= wrong
            data = {key: value for key, value in data.items() if key not in wrong}

    def plain(self, node: Node) -> Any:
        """Return *node* as plain lists, dicts and scalars."""
        if isinstance(node, Scalar):
            value = node.value
            return self.environment.fill(value) if isinstance(value, str) else value
        if isinstance(node, Sequence):
            return [self.plain(item) for item in node.items]
        return {key: self.plain(item) for key, item in node.items.items()}

    def text(self, node: Node) -> object:
        """Return a scalar as text with variables filled in; anything else as it is."""
        if not isinstance(node, Scalar) or node.value is None:
            return self.plain(node)
        if isinstance(node.value, str):
            return self.environment.fill(node.value)
        return self.environment.fill(as_text(node.value, node.text))

    def section(self, kind: type[Section], node: Mapping, path: str) -> dict[str, object]:
        """Return the data of a section by key; unknown keys are reported."""
        plan = _plan(kind)
        data = {}
        for key, item in node.items.items():
            convert = plan.get(key)
            if convert is None:
                self._unknown(kind, node, key, path)
            elif not (isinstance(item, Scalar) and item.value is None):
                data[key] = convert(self, item, f"{path}.{key}" if path else key)
        return data

    def _unknown(self, kind: type[Section], node: Mapping, key: str, path: str) -> None:
        if key in node.anchored or key.startswith("x-"):
            return  # a place for anchors, or a key of another program
        self._hints += 1
        hint = key_hint(kind, key) if self._hints <= MOST_HINTS else ""
        source, line, column = node.places[key]
        where = f"{path}.{key}" if path else key
        message = f"unknown key {key!r} is ignored{hint}"
        self.collector.warning_at(source.name, where, line, column, message)

    def _complain(self, error: FieldError, node: Mapping, path: str) -> None:
        place, where = locate(node, path, error.location)
        if error.is_missing:
            key = error.location[-1]
            self.collector.error(place, f"{where}.{key}".lstrip("."), error.message)
            return
        message = error.message
        says_found = ", found" in message or (error.is_refused and not isinstance(place, Scalar))
        if not says_found and not is_secret(where):
            message = f"{message}, found {display(place)}"
        self.collector.error(place, where, message)


def is_secret(path: str) -> bool:
    """Return True if the value at the dotted *path* must not be shown."""
    return (_SECRET.match(path) or _HEADERS.search(path)) is not None


def locate(node: Node, path: str, loc: tuple[int | str, ...]) -> tuple[Node, str]:
    """Follow *loc* and return the node it leads to, with its dotted path.

    Parts that are not in the document are skipped, such as the index of the only item of a list
    that was written without the list.
    """
    for part in loc:
        if isinstance(node, Mapping) and part in node.items:
            node = node.items[str(part)]
            path = f"{path}.{part}" if path else str(part)
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node, path = node.items[part], f"{path}[{part}]"
    return node, path


def _plan(kind: type[Section]) -> dict[str, _Convert]:
    if (plan := _PLANS.get(kind)) is None:
        kinds = field_types(kind)
        plan = {field.alias: _converter(kinds[name]) for name, field in kind.model_fields.items()}
        _PLANS[kind] = plan
    return plan


def _converter(annotation: Any) -> _Convert:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _converter(arguments[0])
    if origin in (Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) == 1:
            return _or_null(_converter(kinds[0]))
        return _command
    if origin is tuple:
        return _items(_converter(arguments[0]))
    if origin is dict:
        return _values(_converter(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _plain if annotation.is_free_form else _section_of(annotation)
    if annotation in (str, SecretStr) or origin is Literal:
        return lambda reader, node, _: reader.text(node)
    if annotation is bool:
        return _bool
    if annotation is int:
        return _int
    return _plain


def _plain(reader: Reader, node: Node, _: str) -> object:
    return reader.plain(node)


def _command(reader: Reader, node: Node, _: str) -> object:
    if isinstance(node, Sequence):
        return tuple(reader.text(item) for item in node.items)
    return reader.text(node)


def _or_null(convert: _Convert) -> _Convert:
    def converted(reader: Reader, node: Node, path: str) -> object:
        is_null = isinstance(node, Scalar) and node.value is None
        return None if is_null else convert(reader, node, path)

    return converted


def _items(convert: _Convert) -> _Convert:
    def converted(reader: Reader, node: Node, path: str) -> object:
        if isinstance(node, Sequence):
            parts = enumerate(node.items)
            return tuple(convert(reader, item, f"{path}[{index}]") for index, item in parts)
        return convert(reader, node, path)  # a single item, for keys that accept one

    return converted


def _values(convert: _Convert) -> _Convert:
    def converted(reader: Reader, node: Node, path: str) -> object:
        if not isinstance(node, Mapping):
            return reader.plain(node)
        return {key: convert(reader, item, f"{path}.{key}") for key, item in node.items.items()}

    return converted


def _section_of(kind: type[Section]) -> _Convert:
    def converted(reader: Reader, node: Node, path: str) -> object:
        if isinstance(node, Mapping):
            return reader.section(kind, node, path)
        if kind.takes_text:
            return reader.text(node)
        is_null = isinstance(node, Scalar) and node.value is None
        return {} if is_null else reader.plain(node)

    return converted


def _bool(reader: Reader, node: Node, _: str) -> object:
    value = reader.plain(node)
    if isinstance(value, str):
        word = as_bool(value)
        return value if word is None else word
    return value


def _int(reader: Reader, node: Node, _: str) -> object:
    value = reader.plain(node)
    return int(value) if isinstance(value, float) and value.is_integer() else value
