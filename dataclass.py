"""Slotted dataclasses whose methods are made when they are needed.

`dataclass` behaves as the one of the standard library with ``slots=True``, and type checkers take
it for that one. The standard library compiles six methods for each class while its module is
imported: of 265 ms of CPU time that importing the proxy took, 95 ms went into 231 classes, and most
of these belong to features that a process never uses. Here ``__init__`` is compiled when the first
instance is made, the other methods are functions that all classes share, and the fields are
collected when something asks for them.

Modules that mypyc compiles take the standard library's: a compiled class has no methods to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, FrozenInstanceError, field, fields
from dataclasses import dataclass as _stdlib_dataclass
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "field"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        cls=None, /, *, frozen=False, eq=True, kw_only=False, slots=True, weakref_slot=False
    ):
        """Return *cls*, or a decorator of classes, as a slotted dataclass."""
        assert slots, "a dataclass without slots is one of the standard library"

        def decorate(cls):
            return _slotted(cls, frozen, eq, kw_only, weakref_slot)

        return decorate if cls is None else decorate(cls)


def _slotted(cls: type, frozen: bool, eq: bool, kw_only: bool, weakref_slot: bool) -> type:
    """Return a class like *cls* with slots, and with methods that are made later."""
    names = [name for name, kind in cls.__annotations__.items() if not _is_classvar(kind)]
    parts = dict(cls.__dict__)
    for name in (*names, "__dict__", "__weakref__"):
        parts.pop(name, None)
    inherited = {name for base in cls.__mro__[1:] for name in base.__dict__.get("__slots__", ())}
    slots = [name for name in names if name not in inherited]
    parts["__slots__"] = (*slots, "__weakref__") if weakref_slot else tuple(slots)
    declared = _Declared(cls, kw_only)
    for name in _COLLECTED:
        parts[name] = _Later(declared, name)
    parts.setdefault("__init__", _first_init)
    parts.setdefault("__repr__", _repr)
    if eq:
        parts.setdefault("__eq__", _first_equals)
        if parts.get("__hash__") is None:  # a class with its own __eq__ has the entry None
            parts["__hash__"] = _first_hash if frozen else None
    if frozen:
        parts["__setattr__"], parts["__delattr__"] = _refuse_set, _refuse_delete
        parts.setdefault("__getstate__", _get_state)
        parts.setdefault("__setstate__", _set_state)
    declared.made = made = type(cls)(cls.__name__, cls.__bases__, parts)
    made.__qualname__ = cls.__qualname__
    return made


def _is_classvar(kind: object) -> bool:
    return "ClassVar" in str(kind)


#: Attributes of a dataclass that the standard library computes from its declaration.
_COLLECTED = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")


class _Declared:
    """A class as its author wrote it.

    Attributes:
        made: The class with slots that took its place.
    """

    __slots__ = ("_kw_only", "_written", "made")
    made: Any

    def __init__(self, written: type, kw_only: bool) -> None:
        self._written, self._kw_only = written, kw_only

    def collect(self) -> None:
        """Let the standard library collect the fields, which needs no compiler."""
        options = {"init": False, "repr": False, "eq": False, "kw_only": self._kw_only}
        done: Any = _stdlib_dataclass(**options)(self._written)
        for name in _COLLECTED:
            setattr(self.made, name, done.__dict__[name])


class _Later:
    """Attribute of a dataclass that is computed when it is first read."""

    __slots__ = ("_declared", "_name")

    def __init__(self, declared: _Declared, name: str) -> None:
        self._declared, self._name = declared, name

    def __get__(self, instance: object, owner: type) -> Any:
        self._declared.collect()
        return getattr(self._declared.made, self._name)


# ---- methods of all classes
def _first_init(self: Any, *args: Any, **values: Any) -> None:
    """Compile the ``__init__`` of the class, put it in place of this function, and call it."""
    cls = _owner(self, "__init__", _first_init)
    _make_init(cls)
    cls.__init__(self, *args, **values)


def _owner(self: object, name: str, method: object) -> Any:
    """Return the class of *self* that has *method* under *name*."""
    return next(each for each in type(self).__mro__ if each.__dict__.get(name) is method)


def _make_init(cls: Any) -> None:
    """Compile ``__init__`` for the fields of *cls*."""
    positional, keyword = ["self"], list[str]()
    lines: list[str] = []
    scope: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    is_frozen = cls.__setattr__ is _refuse_set
    for each in fields(cls):
        name = value = each.name
        argument = name
        if each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
            argument += f"=_default_{name}"
            value = name if each.init else f"_default_{name}"
        elif each.default_factory is not MISSING:
            scope[f"_factory_{name}"] = each.default_factory
            argument += "=_missing"
            made = f"_factory_{name}()"
            value = f"{made} if {name} is _missing else {name}" if each.init else made
        elif not each.init:
            continue
        if each.init:
            (keyword if each.kw_only else positional).append(argument)
        lines.append(f"_set(self, {name!r}, {value})" if is_frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    arguments = [*positional, "*", *keyword] if keyword else positional
    body = "\n ".join(lines or ["pass"])
    exec(f"def __init__({', '.join(arguments)}):\n {body}", scope)  # as the standard library does
    init = scope.pop("__init__")
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    cls.__init__ = init


def _first_equals(self: Any, other: Any) -> Any:
    _compare_by_fields(_owner(self, "__eq__", _first_equals))
    return self.__eq__(other)


def _first_hash(self: Any) -> int:
    _compare_by_fields(_owner(self, "__hash__", _first_hash))
    return hash(self)


def _compare_by_fields(cls: Any) -> None:
    """Give *cls* the methods that it has not got from its author."""
    names = [each.name for each in fields(cls) if each.compare]

    values: Any = attrgetter(*names) if len(names) > 1 else _tuple_getter(names)

    def equals(self: Any, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return values(self) == values(other)
        return NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    if cls.__dict__.get("__eq__") is _first_equals:
        cls.__eq__ = equals
    if cls.__dict__.get("__hash__") is _first_hash:
        cls.__hash__ = hashed


def _tuple_getter(names: Sequence[str]) -> Callable[[object], tuple[Any, ...]]:
    return lambda each: tuple([getattr(each, name) for name in names])


@recursive_repr()
def _repr(self: Any) -> str:
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_set(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
