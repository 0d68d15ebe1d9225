"""Checks of arguments that embedding programs pass: a wrong one is an error at once.

The text of the error says where the argument is, what was expected, what was found, and what to
do where that is not obvious. Commands, headers and environments may hold secrets, so their values
are not shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..machine import Document, Machine
from .errors import ConfigError

T = TypeVar("T")

_LONGEST = 80


def shown(found: object) -> str:
    """Return *found* as an error text shows it, at most 80 characters."""
    try:
        text = repr(found)
    except Exception:  # noqa: BLE001 - an object whose repr is broken must not hide the error
        text = f"a {type(found).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def guess(found: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for a name close to *found*, else the known names."""
    from difflib import get_close_matches  # slow to import, and needed for errors only

    names = sorted(known)
    close = get_close_matches(found, names, n=1) if isinstance(found, str) else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names) or 'none'}"


def require(where: str, found: object, is_valid: bool, expected: str, do: str = "") -> None:
    """Raise the error of an argument unless *is_valid*.

    Args:
        where: The argument, such as ``web.restart``.
        found: Its value.
        is_valid: It is as expected.
        expected: The expected values, in words.
        do: What to do, in words; may be empty.

    Raises:
        ConfigError: *is_valid* is false.
    """
    if not is_valid:
        raise ConfigError(where, f"expected {expected}, got {shown(found)}{do and f'; {do}'}")


def require_kind(
    where: str, found: object, kinds: type | tuple[type, ...], expected: str, *,
    or_none: bool = False, do: str = "",
) -> None:  # fmt: skip
    """Check that *found* is an instance of one of *kinds*.

    Raises:
        ConfigError: It is not.
    """
    is_valid = isinstance(found, kinds) or (or_none and found is None)
    require(where, found, is_valid, f"{expected} or None" if or_none else expected, do)


def require_document(where: str, found: object) -> None:
    """Check that *found* is a chart document or None.

    Raises:
        ConfigError: It is not.
    """
    do = "use swapchart.machine.read(text)"
    require_kind(where, found, Document, "a Document", or_none=True, do=do)


def require_report(where: str, found: object, chart: Document | None) -> None:
    """Check that *found* is a report of `check` for *chart*, or None.

    Raises:
        ConfigError: It is not, or there is no chart.
    """
    if found is None:
        return
    from ..machine import Report

    do = "pass what swapchart.machine.check(chart) returns"
    require_kind(where, found, Report, "a Report", or_none=True, do=do)
    require(where, found, chart is not None, "None without a chart")


def require_chart_source(where: str, found: object) -> None:
    """Check that *found* is a machine, a chart document or a python-statemachine class.

    Raises:
        ConfigError: It is none of these.
    """
    is_valid = isinstance(found, (Machine, Document))
    if not is_valid and isinstance(found, type):
        from statemachine import StateChart

        is_valid = issubclass(found, StateChart)
    expected = "a Machine, a Document or a subclass of StateChart"
    require(where, found, is_valid, expected, "use swapchart.machine.read(text) for a text")


def require_flag(where: str, found: object) -> None:
    """Check that *found* is True or False.

    Raises:
        ConfigError: It is not.
    """
    require(where, found, isinstance(found, bool), "True or False")


def require_text(where: str, found: object, *, or_none: bool = False) -> None:
    """Check that *found* is a text, which may be empty.

    Raises:
        ConfigError: It is not.
    """
    require_kind(where, found, str, "a text", or_none=or_none)


def require_name(where: str, found: object) -> None:
    """Check that *found* is a text that is not empty.

    Raises:
        ConfigError: It is not.
    """
    require(where, found, isinstance(found, str) and bool(found.strip()), "a name")


def require_one_of(where: str, found: object, known: Sequence[str]) -> None:
    """Check that *found* is one of *known*.

    Raises:
        ConfigError: It is not.
    """
    is_valid = isinstance(found, str) and found in known
    require(where, found, is_valid, f"one of {', '.join(map(repr, known))}")


def require_count(where: str, found: object, least: int = 0, *, or_none: bool = False) -> None:
    """Check that *found* is a whole number >= *least*.

    Raises:
        ConfigError: It is not.
    """
    is_whole = isinstance(found, int) and not isinstance(found, bool) and found >= least
    expected = f">= {least}, a whole number"
    is_valid = is_whole or (or_none and found is None)
    require(where, found, is_valid, f"{expected}, or None" if or_none else expected)


def require_whole(where: str, found: object) -> None:
    """Check that *found* is a whole number, which may be negative.

    Raises:
        ConfigError: It is not.
    """
    is_whole = isinstance(found, int) and not isinstance(found, bool)
    require(where, found, is_whole, "a whole number")


def require_seconds(
    where: str, found: object, *, above_zero: bool = False, or_none: bool = False
) -> None:
    """Check that *found* is a number of seconds, >= 0 or > 0; infinity means unlimited.

    Raises:
        ConfigError: It is not.
    """
    is_valid = or_none and found is None
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        is_valid = found > 0 if above_zero else found >= 0  # false for nan
    expected = f"{'>' if above_zero else '>='} 0 seconds"
    require(where, found, is_valid, f"{expected} or None" if or_none else expected)


def require_url(where: str, found: object, *, or_none: bool = False) -> None:
    """Check that *found* is an absolute URL of HTTP.

    Raises:
        ConfigError: It is not.
    """
    if or_none and found is None:
        return
    is_valid = isinstance(found, str) and _is_url(found)
    expected = "an http:// or https:// URL"
    do = "write it as 'http://127.0.0.1:5800'"
    require(where, found, is_valid, f"{expected} or None" if or_none else expected, do)


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        is_placed = "${" in text or url.port is None or url.port >= 0  # raises ValueError
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname) and is_placed


def texts(
    where: str, found: object, *, least: int = 0, do: str = "write ('program', 'argument')"
) -> tuple[str, ...]:
    """Return *found* as a tuple of texts; it may be another sequence, but no text.

    Raises:
        ConfigError: It is not, or has fewer than *least* items.
    """
    many = {0: "texts", 1: "at least one text"}[least]
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes, bytearray)):
        kind = f"a {type(found).__name__}"
        raise ConfigError(where, f"expected a tuple of {many}, got {kind}; {do}")
    for index, item in enumerate(found):
        if not isinstance(item, str):
            kind = f"a {type(item).__name__}"
            raise ConfigError(f"{where}[{index}]", f"expected a text, got {kind}")
    if len(found) < least or (least and not found[0]):
        raise ConfigError(where, f"expected a tuple of {many}, got an empty one; {do}")
    return tuple(found)


def require_mapping(where: str, found: object, expected: str) -> None:
    """Check that *found* is a mapping whose keys are names; *expected* describes it.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(where, f"expected {expected}, got a {type(found).__name__}")
    for name in found:
        require_name(f"a key of {where}", name)


def require_texts_by_name(where: str, found: object) -> None:
    """Check that *found* is a mapping of names to texts; the texts are not shown.

    Raises:
        ConfigError: It is not.
    """
    require_mapping(where, found, "a mapping of names to texts")
    assert isinstance(found, Mapping)
    for name, text in found.items():
        if not isinstance(text, str):
            kind = f"a {type(text).__name__}"
            raise ConfigError(f"{where}.{name}", f"expected a text, got {kind}")


def names(where: str, found: object) -> frozenset[str]:
    """Return *found*, a collection of names, as a set.

    Raises:
        ConfigError: It is none.
    """
    is_valid = isinstance(found, Collection) and not isinstance(found, (str, bytes, Mapping))
    require(where, found, is_valid, "a set of names", "write frozenset({'a', 'b'})")
    for name in found:  # type: ignore[attr-defined]
        require_name(f"an item of {where}", name)
    return frozenset(found)  # type: ignore[call-overload, no-any-return]


def require_function(where: str, found: object, *, or_none: bool = False) -> None:
    """Check that *found* is a function that is called at once and does not wait.

    Raises:
        ConfigError: It is not a function, or it is an async one, which would never run.
    """
    if or_none and found is None:
        return
    expected = "a function or None" if or_none else "a function"
    require(where, found, callable(found), expected)
    inner = getattr(found, "__call__", None)  # noqa: B004 - of an object that is callable
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(inner)
    require(where, found, not is_async, f"{expected} that is not async", "it is not awaited")


def require_items(where: str, found: object, kind: type[T]) -> tuple[T, ...]:
    """Return *found*, an iterable of instances of *kind*, as a tuple.

    Raises:
        ConfigError: It is none.
    """
    is_valid = isinstance(found, Iterable) and not isinstance(found, (str, bytes, Mapping))
    require(where, found, is_valid, f"a list of {kind.__name__}", "write [item]")
    items: tuple[T, ...] = tuple(found)  # type: ignore[arg-type]
    for index, item in enumerate(items):
        require_kind(f"{where}[{index}]", item, kind, f"a {kind.__name__}")
    return items


def require_methods(where: str, found: Any, methods: Sequence[str], expected: str) -> None:
    """Check that *found* has *methods*, as the protocol *expected* demands.

    Raises:
        ConfigError: It has not.
    """
    is_valid = not isinstance(found, type) and all(
        callable(getattr(found, name, None)) for name in methods
    )
    require(where, found, is_valid, expected)
