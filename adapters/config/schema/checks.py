"""Checks of values against the fields of sections; finds all errors of a section at once."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from ....dataclass import dataclass, field
from .section import (
    AfterValidator,
    BeforeValidator,
    FieldInfo,
    RefusedError,
    SecretStr,
    Section,
    field_types,
)

S = TypeVar("S", bound=Section)
Location = tuple[int | str, ...]
_Check = Callable[[object, Location, "list[FieldError]"], object]

_SECTIONS: dict[type[Section], _Check] = {}
#: Result of a check of an invalid value.
INVALID: Final = object()


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid value.

    Attributes:
        location: Keys and indices that lead to it from the section.
        message: What was expected there.
        is_missing: It is a required key that is not there; the last of *location*.
        is_refused: A rule of the field refused it, rather than its type.
    """

    location: Location
    message: str
    is_missing: bool = field(default=False, kw_only=True)
    is_refused: bool = field(default=False, kw_only=True)


def check_section(kind: type[S], data: object) -> tuple[S | None, list[FieldError]]:
    """Return *data* as a section of *kind*, or None with all errors."""
    errors: list[FieldError] = []
    found = _section(kind)(data, (), errors)
    return (None if errors else found), errors  # type: ignore[return-value]


def _section(kind: type[Section]) -> _Check:
    if (check := _SECTIONS.get(kind)) is None:
        check = _SECTIONS[kind] = _fields(kind)
    return check


def _fields(kind: type[Section]) -> _Check:
    kinds = field_types(kind)
    plan = {
        name: (field.alias, field.is_required, _check_of(kinds[name], field))
        for name, field in kind.model_fields.items()
    }

    def check(data: object, at: Location, errors: list[FieldError]) -> object:
        if isinstance(data, kind):
            return data
        if not isinstance(data, dict):
            return _wrong(errors, at, "expected a mapping")
        before, values = len(errors), {}
        for name, (key, is_required, check_field) in plan.items():
            given = key if key in data else name
            if given in data:
                values[name] = check_field(data[given], (*at, key), errors)
            elif is_required:
                errors.append(FieldError((*at, key), f"{key} is required", is_missing=True))
        if len(errors) > before:
            return INVALID
        try:
            return kind(**values)
        except RefusedError as error:
            return _refused(errors, at, error)

    return check


def check_value(annotation: Any, value: object) -> object:
    """Return *value* as a field of type *annotation* would hold it.

    Raises:
        RefusedError: It is invalid.
    """
    errors: list[FieldError] = []
    found = _check_of(annotation)(value, (), errors)
    if errors:
        raise RefusedError(errors[0].message)
    return found


def _check_of(annotation: Any, rules: FieldInfo | None = None) -> _Check:
    """Return the check of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _list(_check_of(arguments[0]), rules or FieldInfo())
    if origin is dict:
        return _mapping(_check_of(arguments[1]))
    if origin is Literal:
        return _literal(arguments)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return lambda data, at, errors: _section(annotation)(data, at, errors)
    if annotation in (int, float):
        return _number(annotation, rules or FieldInfo())
    if annotation is str:
        return _text(rules or FieldInfo())
    return _PLAIN.get(annotation) or _instance(annotation)


def _annotated(kind: Any, extras: tuple[object, ...]) -> _Check:
    rules = next((extra for extra in extras if isinstance(extra, FieldInfo)), None)
    check_kind = _check_of(kind, rules)
    before = [e.function for e in reversed(extras) if isinstance(e, BeforeValidator)]
    after = [extra.function for extra in extras if isinstance(extra, AfterValidator)]

    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        try:
            for function in before:
                value = function(value)
            value = check_kind(value, at, errors)
            if value is not INVALID:
                for function in after:
                    value = function(value)
        except RefusedError as error:
            return _refused(errors, at, error)
        return value

    return check


def _union(kinds: tuple[Any, ...]) -> _Check:
    checks = [_check_of(kind) for kind in kinds if kind is not type(None)]
    takes_null = len(checks) < len(kinds)

    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if value is None and takes_null:
            return None
        found: list[FieldError] = []
        for each in checks:
            tried: list[FieldError] = []
            result = each(value, at, tried)
            if not tried:
                return result
            found += tried
        errors += found
        return INVALID

    return check


def _list(check_item: _Check, rules: FieldInfo) -> _Check:
    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if not isinstance(value, (list, tuple)):
            return _wrong(errors, at, "expected a list")
        if len(value) < rules.min_length:
            return _wrong(errors, at, "expected a list that is not empty")
        before = len(errors)
        items = tuple(check_item(item, (*at, i), errors) for i, item in enumerate(value))
        return INVALID if len(errors) > before else items

    return check


def _mapping(check_item: _Check) -> _Check:
    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if not isinstance(value, dict):
            return _wrong(errors, at, "expected a mapping")
        before = len(errors)
        items = {key: check_item(item, (*at, key), errors) for key, item in value.items()}
        return INVALID if len(errors) > before else items

    return check


def _literal(values: tuple[object, ...]) -> _Check:
    shown = [repr(value) for value in values]
    expected = " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))

    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if isinstance(value, str) and value in values:
            return value
        return _wrong(errors, at, f"expected {expected}")

    return check


def _number(kind: type[int] | type[float], rules: FieldInfo) -> _Check:
    expected = "expected an integer" if kind is int else "expected a number"
    accepted = (int,) if kind is int else (int, float)

    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if not isinstance(value, accepted) or isinstance(value, bool):
            return _wrong(errors, at, expected)
        try:
            number = kind(value)
        except OverflowError:
            return _wrong(errors, at, "expected a finite number")
        if kind is float and not rules.allow_inf_nan and not math.isfinite(number):
            return _wrong(errors, at, "expected a finite number")
        if rules.gt is not None and not number > rules.gt:
            return _wrong(errors, at, f"expected > {rules.gt:g}")
        if rules.ge is not None and not number >= rules.ge:
            return _wrong(errors, at, f"expected >= {rules.ge:g}")
        if rules.le is not None and not number <= rules.le:
            return _wrong(errors, at, f"expected <= {rules.le:g}")
        return number

    return check


def _text(rules: FieldInfo) -> _Check:
    # In Python `$` also matches before a last newline, which JSON Schema does not mean.
    pattern = re.compile(re.sub(r"\$\Z", r"\\Z", rules.pattern))

    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        if not isinstance(value, str):
            return _wrong(errors, at, "expected a text")
        if len(value) < rules.min_length:
            return _wrong(errors, at, "expected a text that is not empty")
        if pattern.search(value) is None:
            return _wrong(errors, at, f"expected a text that matches {rules.pattern}")
        return value

    return check


def _bool(value: object, at: Location, errors: list[FieldError]) -> object:
    return value if isinstance(value, bool) else _wrong(errors, at, "expected true or false")


def _secret(value: object, at: Location, errors: list[FieldError]) -> object:
    if isinstance(value, SecretStr):
        return value
    return SecretStr(value) if isinstance(value, str) else _wrong(errors, at, "expected a text")


def _any(value: object, _at: Location, _errors: list[FieldError]) -> object:
    return value


def _instance(kind: type) -> _Check:
    def check(value: object, at: Location, errors: list[FieldError]) -> object:
        return value if isinstance(value, kind) else _wrong(errors, at, f"expected {kind.__name__}")

    return check


_PLAIN: dict[Any, _Check] = {bool: _bool, SecretStr: _secret, Any: _any}


def _wrong(errors: list[FieldError], at: Location, message: str) -> object:
    errors.append(FieldError(at, message))
    return INVALID


def _refused(errors: list[FieldError], at: Location, error: RefusedError) -> object:
    errors.append(FieldError(at, str(error), is_refused=True))
    return INVALID
