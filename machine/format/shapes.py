"""Shapes of values in a chart document, of which `keys` makes its table.

A shape says what a value may be. `check_shape.clean` reads documents by it, `json_schema` writes it
as JSON Schema, and the reference prints its `words`.
"""

from __future__ import annotations

from typing import TypeAlias

from ...dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not empty.

    Attributes:
        words: What the text is, for the reference.
        is_free: True if a whole number may stand for it too, as YAML reads a bare 2 or true.
    """

    words: str = "text"
    is_free: bool = False

    @property
    def is_expression(self) -> bool:
        """True if it may be an expression, whose numbers are checked with the others."""
        return "expression" in self.words


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    words: str = "true or false"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of a datum: text, whole number, true or false."""

    words: str = "text, number, true or false"


@dataclass(frozen=True, slots=True)
class Scalars:
    """A list of values of a datum."""

    words: str = "list of values"


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration such as ``2d``, ``1h30m`` or ``500ms``, or a number of seconds."""

    words: str = "duration"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def words(self) -> str:
        """The options, for the reference."""
        return ", ".join(f"`{option}`" for option in self.options)


@dataclass(frozen=True, slots=True)
class EffectShape:
    """An effect: its kind under ``effect``, and the arguments of that kind."""

    words: str = "effect"


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping with the keys of one object of the table.

    Attributes:
        kind: Name of the object in the table.
    """

    kind: str

    @property
    def words(self) -> str:
        """The object, for the reference."""
        return f"[{self.kind}](#{self.kind.replace(' ', '-')})"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; one item may stand for a list of one, unless the list is strict.

    Attributes:
        items: Shapes that an item may have; told apart by their YAML type.
        is_strict: True if one item may not stand for a list.
    """

    items: tuple[Shape, ...]
    is_strict: bool = False

    @property
    def words(self) -> str:
        """The items, for the reference."""
        names = " or ".join(item.words for item in self.items)
        return f"list of {names}" if self.is_strict else f"{names}, or a list of them"


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping of names that the author chooses.

    Attributes:
        key: What the names are, for the reference.
        values: Shapes that a value may have.
    """

    key: str
    values: tuple[Shape, ...]

    @property
    def words(self) -> str:
        """Names and values, for the reference."""
        return f"{self.key}: {' or '.join(value.words for value in self.values)}"


Shape: TypeAlias = (
    Text | Flag | Scalar | Scalars | Duration | Choice | EffectShape | Entry | ListOf | MapOf
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object.

    Attributes:
        shapes: Shapes that its value may have, told apart by their YAML type.
        about: Meaning of the key, as a sentence of the reference.
        is_required: True if it must be there.
        is_sugar: True if reading replaces it by other keys.
    """

    shapes: tuple[Shape, ...]
    about: str
    is_required: bool = False
    is_sugar: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """One kind of mapping with fixed keys.

    Attributes:
        about: Meaning of the object, as a sentence.
        keys: Key -> its shape and meaning, in the order of the reference.
        missing: What to say of a key of another name.
    """

    about: str
    keys: dict[str, Key]
    missing: str = "unknown key"
