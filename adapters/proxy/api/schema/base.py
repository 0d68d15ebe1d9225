"""Base classes of all bodies."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, TypeVar

from msgspec import Struct, UnsetType

T = TypeVar("T")
#: A field that may be absent.
Maybe: TypeAlias = T | UnsetType


class Part(Struct, kw_only=True, forbid_unknown_fields=True):
    """An object inside a body."""


class Body(Part, kw_only=True, forbid_unknown_fields=True):
    """The whole JSON body of a response.

    Attributes:
        STATUS: HTTP status of the response.
    """

    STATUS: ClassVar[int] = 200
