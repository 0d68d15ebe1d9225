"""The models as clients see them: which name means what."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..body.json_edit import NO_EDITS, Edits
from .definitions import (
    BodyFilters,
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
)

_MATCHED_BYTES = 1024
_ALIKE = 0.6  # as difflib.get_close_matches has it
_COMPARED_CHARS = 256
_MOST_COMPARED = 2000  # by their letters: some 10 us each
_CLOSELY_COMPARED = 10


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What one name of a model of ours means.

    Attributes:
        card: The model.
        wanted: The name.
        edits: What is changed in bodies of requests by that name.
    """

    card: ModelDefinition
    wanted: str
    edits: Edits = NO_EDITS

    @property
    def id(self) -> str:
        """Name under which it is counted."""
        return self.card.id

    @property
    def sent_model(self) -> str:
        """What its server gets as ``model``."""
        return self.card.use_model_name or self.wanted


@dataclass(frozen=True, slots=True)
class PeerModel:
    """What one name of a peer's model means.

    Attributes:
        card: The peer.
        wanted: The name.
        sent_model: What the peer calls it.
        edits: What is changed in bodies of requests by that name.
    """

    card: PeerDefinition
    wanted: str
    sent_model: str
    edits: Edits = NO_EDITS

    @property
    def id(self) -> str:
        """Name under which it is counted."""
        return f"{self.card.id}/{self.sent_model}"


Target: TypeAlias = LocalModel | PeerModel


class ModelCatalog:
    """All names of a configuration.

    Args:
        cards: The models, in the order of the configuration.
        peers: Other servers.
        selectors: Names for one of several.
        profiles: Names that may mean something else.
        ignored: Paths below ``/upstream`` that never start a model.

    Attributes:
        cards: Id -> model.
        peers: Id -> peer.
        selectors: Id -> selector.
        profiles: In the order of the configuration.
        targets: Name -> what it means, selectors aside.
        most_slashes: In a name.
    """

    def __init__(
        self, cards: Sequence[ModelDefinition], *, peers: Sequence[PeerDefinition] = (),
        selectors: Sequence[SelectorDefinition] = (), profiles: Sequence[ProfileDefinition] = (),
        ignored: Sequence[re.Pattern[str]] = (),
    ) -> None:  # fmt: skip
        self.cards = {card.id: card for card in cards}
        self.peers = {card.id: card for card in peers}
        self.selectors = {card.id: card for card in selectors}
        self.profiles = tuple(profiles)
        self._ignored = tuple(ignored)
        self.targets: dict[str, Target] = {}
        self.targets.update(_remote_names(peers))
        for card in cards:
            for name in card.aliases:
                self.targets[name] = LocalModel(card, name, _edits(card.filters, name))
        for card in cards:  # an id comes before an alias of another
            self.targets[card.id] = LocalModel(card, card.id, _edits(card.filters, card.id))
        pinned = (name for profile in self.profiles for name in profile.pins)
        names = (*self.targets, *self.selectors, *pinned)
        self.most_slashes = max((name.count("/") for name in names), default=0)

    def local(self, wanted: str) -> LocalModel | None:
        """Return the model of ours called *wanted*, by id or alias, or None."""
        found = self.targets.get(wanted)
        return found if isinstance(found, LocalModel) else None

    def real_name(self, wanted: str) -> str | None:
        """Return the id of the model of ours that *wanted* names, by id or alias, or None."""
        found = self.local(wanted)
        return None if found is None else found.card.id

    def closest(self, wanted: str) -> str | None:
        """Return the known name that looks most like *wanted*, or None.

        To compare two names takes time that grows with the square of their lengths, so a long
        one has no answer, and only those are compared whose letters are nearly the same.
        """
        if len(wanted) > _COMPARED_CHARS:
            return None
        matcher = difflib.SequenceMatcher()
        matcher.set_seq2(wanted)
        close = []
        for name in [*self.targets, *self.selectors][:_MOST_COMPARED]:
            matcher.set_seq1(name)
            if matcher.real_quick_ratio() >= _ALIKE and (near := matcher.quick_ratio()) >= _ALIKE:
                close.append((near, name))
        best, found = _ALIKE, None
        for _, name in heapq.nlargest(_CLOSELY_COMPARED, close):
            matcher.set_seq1(name)
            if (ratio := matcher.ratio()) >= best and (found is None or ratio > best):
                best, found = ratio, name
        return found

    def is_ignored(self, path: bytes) -> bool:
        """Return True if *path* below ``/upstream`` never starts a model.

        The patterns are of the configuration and written for Go, whose expressions take linear
        time; llama-swap's default takes 1.3 s for 16,000 dots here. So only the end of a long path
        is looked at.
        """
        text = path[-_MATCHED_BYTES:].decode("utf-8", "replace")
        return any(pattern.search(text) for pattern in self._ignored)


def _remote_names(peers: Sequence[PeerDefinition]) -> Iterable[tuple[str, PeerModel]]:
    """Yield the bare names that only one peer offers, then all full ones."""
    offered: dict[str, list[PeerDefinition]] = {}
    for peer in peers:
        for model in dict.fromkeys(peer.models):
            offered.setdefault(model, []).append(peer)
    for model, offering in offered.items():
        if len(offering) == 1:
            yield model, PeerModel(offering[0], model, model, _edits(offering[0].filters, model))
    for peer in peers:
        for model in peer.models:
            name = f"{peer.id}/{model}"
            yield name, PeerModel(peer, name, model, _edits(peer.filters, name))


def _edits(filters: BodyFilters, name: str) -> Edits:
    by_id = filters.set_params_by_id.get(name, {})
    if not (filters.strip or filters.set_params or by_id):
        return NO_EDITS
    return Edits.compile(filters.strip, filters.set_params, by_id)
