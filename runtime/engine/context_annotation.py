"""Which activity functions take an `ActivityContext`, by the annotation of their first parameter.

An annotation is resolved by `typing.get_type_hints`, so aliases, unions, ``Annotated`` and texts
count by what they mean.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

_FREE = (
    inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)  # fmt: skip


class AnnotationError(Exception):
    """An annotation cannot be resolved."""


def takes(function: Any, kind: type) -> bool:
    """Return True if the first free parameter of *function* is annotated as *kind*.

    Raises:
        AnnotationError: The annotation names something that does not exist at run time.
        TypeError: *function* cannot be called with one argument.
    """
    try:
        signature = _signature(function)
    except ValueError:  # of a function that is not written in Python
        return False
    signature.bind(None)
    first = next(p for p in signature.parameters.values() if p.kind in _FREE)
    if first.annotation is first.empty:
        return False
    return _means(_resolved(function, first, kind), kind)


def _signature(function: Any) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _resolved(function: Any, parameter: inspect.Parameter, kind: type) -> Any:
    """Return the type that the annotation of *parameter* means."""
    plain = _plain(function)
    names = getattr(plain, "__globals__", {})

    def holder() -> None:
        """Hold the annotation of one parameter."""

    holder.__annotations__ = {"first": parameter.annotation}
    try:
        return get_type_hints(holder, globalns=names, localns=_local(plain), include_extras=True)[
            "first"
        ]
    except Exception as error:  # an annotation is code, which may raise anything
        text = parameter.annotation
        written = text if isinstance(text, str) else getattr(text, "__forward_arg__", repr(text))
        first = re.match(r"[\w.]+", written)
        if first and first[0].rpartition(".")[2] == kind.__name__:
            return kind
        why = f"the annotation {written!r} of parameter {parameter.name!r} cannot be resolved"
        raise AnnotationError(
            f"{why} ({error}); import its names at run time, or annotate the parameter as "
            f"`{kind.__name__}` itself"
        ) from error


def _plain(function: Any) -> Any:
    """Return the function as it was written, whose names its annotations use."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isfunction(function) or not inspect.isfunction(type(function).__call__):
            return function
        else:
            function = type(function).__call__


def _local(function: Any) -> Mapping[str, Any]:
    """Return the names around a function that was defined in another one, as far as it has them."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    found = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it is not assigned yet
            continue
    return found


def _means(hint: Any, kind: type) -> bool:
    """Return True if *hint* is *kind*, or may be."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _means(get_args(hint)[0], kind)
    if origin in (Union, UnionType):
        return any(_means(part, kind) for part in get_args(hint))
    if isinstance(hint, TypeVar):
        return any(_means(part, kind) for part in (hint.__bound__, *hint.__constraints__))
    for alias in ("__supertype__", "__value__"):  # of `NewType`, and of `type X = ...`
        if hasattr(hint, alias):
            return _means(getattr(hint, alias), kind)
    found = origin or hint
    return isinstance(found, type) and issubclass(found, kind)
