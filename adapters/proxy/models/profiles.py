"""Profiles: names that mean something else while one of them is active."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .definitions import ProfileDefinition


class Profiles:
    """All profiles, at most one of them active; none at first.

    Attributes:
        active: Its name, or None.
    """

    def __init__(self, cards: Iterable[ProfileDefinition] = ()) -> None:
        self._cards = {card.id: card for card in sorted(cards, key=lambda card: card.id)}
        self.active: str | None = None
        self._pins: Mapping[str, str | None] = {}

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a profile of that name."""
        return name in self._cards

    def activate(self, name: str | None) -> None:
        """Make *name* the active one; None: none is.

        Raises:
            KeyError: There is no such profile.
        """
        self._pins = {} if name is None else self._cards[name].pins
        self.active = name

    @property
    def pins(self) -> Mapping[str, str | None]:
        """Those of the active profile."""
        return self._pins

    def listing(self) -> dict[str, Any]:
        """Build the answer of ``/api/profiles``."""
        profiles = [
            {"id": card.id, "description": card.description, "pins": dict(card.pins)}
            for card in self._cards.values()
        ]
        return {"active": self.active, "profiles": profiles}
