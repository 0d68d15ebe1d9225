"""Profiles: sets of model names with other meanings, of which at most one is active."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .definitions import ProfileDefinition


class Profiles:
    """All profiles, and the active one; none is active at first.

    Attributes:
        active: Id of the active profile, or None.
    """

    def __init__(self, definitions: Iterable[ProfileDefinition] = ()) -> None:
        self._definitions = {item.id: item for item in sorted(definitions, key=lambda d: d.id)}
        self.active: str | None = None
        self._pins: Mapping[str, str | None] = {}

    def __contains__(self, name: object) -> bool:
        """Return True if *name* is the id of a profile."""
        return name in self._definitions

    def activate(self, name: str | None) -> None:
        """Activate the profile *name*; None deactivates the active one.

        Raises:
            KeyError: There is no such profile.
        """
        self._pins = {} if name is None else self._definitions[name].pins
        self.active = name

    @property
    def pins(self) -> Mapping[str, str | None]:
        """Pins of the active profile: name -> name of the model, or None for a disabled name."""
        return self._pins

    @property
    def definitions(self) -> tuple[ProfileDefinition, ...]:
        """All profiles, sorted by id."""
        return tuple(self._definitions.values())
