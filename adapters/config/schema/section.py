"""Classes of sections, with what their fields may hold.

A field is an annotation in the body of a section, with a default or without one::

    class Drain(Section):
        timeout: Annotated[float, Field(gt=0)] = 30.0
        members: tuple[str, ...] = Field(default=(), alias="in")

Types are resolved when the first section of a class is read, so a class costs little at a start.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Final, dataclass_transform, get_type_hints

from ....dataclass import dataclass

#: Default of a field that must be given.
REQUIRED: Final = object()
_WORD = re.compile(r"_(.)")


class RefusedError(ValueError):
    """A value is invalid; the message says what was expected."""


def refuse(message: str) -> RefusedError:
    """Return the error to raise for an invalid value; *message* says what was expected."""
    return RefusedError(message)


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """Key, default and bounds of a field.

    Attributes:
        alias: Its key; empty means its name in camelCase.
        default: Its default, or `REQUIRED`.
        default_factory: Makes the default; None means that `default` is it.
        gt: Exclusive lower bound of a number.
        ge: Lower bound of a number.
        le: Upper bound of a number.
        min_length: Least length of a text or a list.
        pattern: Regular expression that is searched in a text.
        allow_inf_nan: Numbers need not be finite.
        exclude: The field is no key of the file.
    """

    alias: str = ""
    default: Any = REQUIRED
    default_factory: Callable[[], Any] | None = None
    gt: float | None = None
    ge: float | None = None
    le: float | None = None
    min_length: int = 0
    pattern: str = ""
    allow_inf_nan: bool = False
    exclude: bool = False

    @property
    def is_required(self) -> bool:
        """True if the field has no default."""
        return self.default is REQUIRED and self.default_factory is None

    def make_default(self) -> Any:
        """Return the default."""
        return self.default if self.default_factory is None else self.default_factory()


def Field(  # noqa: N802  # reads as the class, and fits any annotation
    *, default: Any = REQUIRED, default_factory: Callable[[], Any] | None = None, **rules: Any
) -> Any:
    """Return a `FieldInfo`: the default of a field, or bounds for `Annotated`."""
    return FieldInfo(default=default, default_factory=default_factory, **rules)


@dataclass(frozen=True, slots=True)
class BeforeValidator:
    """Changes or refuses a value before its type is checked.

    Attributes:
        function: Returns the value to check; raises `RefusedError`.
        json_schema_input_type: Type of the values that it accepts, for the JSON Schema.
    """

    function: Callable[[Any], Any]
    json_schema_input_type: Any = None


@dataclass(frozen=True, slots=True)
class AfterValidator:
    """Changes or refuses a value of the right type; raises `RefusedError`."""

    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class WithJsonSchema:
    """JSON Schema of a type that has none of its own."""

    schema: dict[str, Any]


class SecretStr:
    """A text that is shown as ``**********``; `get_secret_value` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "**********" if self._text else ""

    def __repr__(self) -> str:
        return f"SecretStr({str(self)!r})"

    def __len__(self) -> int:
        return len(self._text)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class Section:
    """A mapping of the configuration; keys are in camelCase, and unknown ones are rejected.

    In code, fields have their own names and values are not checked: ``Restart(backoff_max=5.0)``.

    Attributes:
        takes_text: A scalar in place of the mapping is passed on as text.
        is_free_form: The mapping is passed on as it is, with unknown keys.
        model_fields: Name -> field, those of base classes first.
        model_fields_set: Names of the fields that were given.
        json_schema_extra: Further rules of the JSON Schema.
    """

    takes_text: ClassVar[bool] = False
    is_free_form: ClassVar[bool] = False
    model_fields: ClassVar[dict[str, FieldInfo]] = {}
    model_fields_set: ClassVar[frozenset[str]]
    json_schema_extra: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        found: dict[str, FieldInfo] = {}
        for base in reversed(cls.__mro__[1:]):
            found |= vars(base).get("model_fields", {})
        for name, annotation in vars(cls).get("__annotations__", {}).items():
            if not str(annotation).startswith("ClassVar"):
                found[name] = _field(name, vars(cls).get(name, REQUIRED))
        cls.model_fields = found

    def __init__(self, **values: Any) -> None:
        fields = type(self).model_fields
        if unknown := values.keys() - fields.keys():
            raise TypeError(f"unexpected fields of {type(self).__name__}: {sorted(unknown)}")
        for name, field in fields.items():
            if name not in values and field.is_required:
                raise TypeError(f"{type(self).__name__} needs {name}")
            self.__dict__[name] = values[name] if name in values else field.make_default()
        self.__dict__["model_fields_set"] = frozenset(values)
        for kind in reversed(type(self).__mro__):
            if (check := vars(kind).get("_check_fields")) is not None:
                check(self)

    def _check_fields(self) -> None:
        """Raise a `RefusedError` if fields that are valid alone do not fit together."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def _values(self) -> tuple[object, ...]:
        return tuple(self.__dict__[name] for name in type(self).model_fields)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = (f"{name}={self.__dict__[name]!r}" for name in type(self).model_fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def _field(name: str, default: Any) -> FieldInfo:
    """Return the field *name* of a class in whose body it has *default*."""
    camel = _WORD.sub(lambda match: match[1].upper(), name)
    if not isinstance(default, FieldInfo):
        return FieldInfo(alias=camel, default=default)
    return default if default.alias else replace(default, alias=camel)


def field_types(kind: type[Section]) -> dict[str, Any]:
    """Return the types of the fields of *kind*, by name, with what `Annotated` adds to them."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.model_fields}
