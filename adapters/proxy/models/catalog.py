"""Catalog of model names: the local model, or that of a peer, which each name means."""

from __future__ import annotations

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
_MIN_SIMILARITY = 0.6  # the default of difflib.get_close_matches
_MAX_NAME_CHARS = 256
_MAX_NAMES = 2000  # a comparison by letters takes about 10 us
_MAX_CANDIDATES = 10
_MIN_PART_CHARS = 3  # fewer are in too many names


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A local model under one of its names.

    Attributes:
        definition: The model.
        requested_name: The name.
        edits: Changes to the body of a request by that name.
    """

    definition: ModelDefinition
    requested_name: str
    edits: Edits = NO_EDITS

    @property
    def id(self) -> str:
        """Id of the model."""
        return self.definition.id

    @property
    def recorded_name(self) -> str:
        """Name of the model in records of requests and in metrics."""
        return self.definition.id

    @property
    def sent_model(self) -> str:
        """Value of ``model`` that its server gets."""
        return self.definition.use_model_name or self.requested_name


@dataclass(frozen=True, slots=True)
class PeerModel:
    """A peer's model under one of its names.

    Attributes:
        definition: The peer.
        requested_name: The name.
        sent_model: Value of ``model`` that the peer gets.
        edits: Changes to the body of a request by that name.
    """

    definition: PeerDefinition
    requested_name: str
    sent_model: str
    edits: Edits = NO_EDITS

    @property
    def id(self) -> str:
        """Full name of the model."""
        return f"{self.definition.id}/{self.sent_model}"

    @property
    def recorded_name(self) -> str:
        """Name of the model in records of requests and in metrics: as in llama-swap, as given."""
        return self.requested_name


Target: TypeAlias = LocalModel | PeerModel


class ModelCatalog:
    """All names of a configuration.

    Args:
        models: Local models in the order of the configuration.
        peers: Other servers whose models can be used.
        selectors: Names that stand for one of several models.
        profiles: Sets of names with other meanings.
        ignored: Patterns of paths below ``/upstream`` that never start a model.

    Attributes:
        models: Id -> local model.
        peers: Id -> peer.
        selectors: Id -> selector.
        profiles: Profiles in the order of the configuration.
        targets: Name -> model; without selectors and profiles.
        most_slashes: Maximum number of slashes in a name.
    """

    def __init__(
        self, models: Sequence[ModelDefinition], *, peers: Sequence[PeerDefinition] = (),
        selectors: Sequence[SelectorDefinition] = (), profiles: Sequence[ProfileDefinition] = (),
        ignored: Sequence[re.Pattern[str]] = (),
    ) -> None:  # fmt: skip
        self.models = {model.id: model for model in models}
        self.peers = {peer.id: peer for peer in peers}
        self.selectors = {selector.id: selector for selector in selectors}
        self.profiles = tuple(profiles)
        self._ignored = tuple(ignored)
        self.targets: dict[str, Target] = {}
        self.targets.update(_remote_names(peers))
        for model in models:
            for name in model.aliases:
                self.targets[name] = LocalModel(model, name, _edits(model.filters, name))
        for model in models:  # an id takes precedence over an alias of another model
            self.targets[model.id] = LocalModel(model, model.id, _edits(model.filters, model.id))
        pinned = (name for profile in self.profiles for name in profile.pins)
        names = (*self.targets, *self.selectors, *pinned)
        self.most_slashes = max((name.count("/") for name in names), default=0)

    def local(self, name: str) -> LocalModel | None:
        """Return the local model with the id or alias *name*, or None."""
        found = self.targets.get(name)
        return found if isinstance(found, LocalModel) else None

    def real_name(self, name: str) -> str | None:
        """Return the id of the local model with the id or alias *name*, or None."""
        found = self.local(name)
        return None if found is None else found.definition.id

    def closest(self, name: str) -> str | None:
        """Return the known name that is most similar to *name*, else one that contains it, or None.

        A comparison takes time that grows with the square of the length, so that the result for a
        long name is None, and only names with nearly the same letters are compared.
        """
        if len(name) > _MAX_NAME_CHARS:
            return None
        import difflib  # slow to import, and needed for errors only

        matcher = difflib.SequenceMatcher()
        matcher.set_seq2(name)
        close = []
        for known in [*self.targets, *self.selectors][:_MAX_NAMES]:
            matcher.set_seq1(known)
            if matcher.real_quick_ratio() < _MIN_SIMILARITY:
                continue
            if (ratio := matcher.quick_ratio()) >= _MIN_SIMILARITY:
                close.append((ratio, known))
        best, found = _MIN_SIMILARITY, None
        for _, known in heapq.nlargest(_MAX_CANDIDATES, close):
            matcher.set_seq1(known)
            if (ratio := matcher.ratio()) >= best and (found is None or ratio > best):
                best, found = ratio, known
        return found or self._containing(name)

    def _containing(self, name: str) -> str | None:
        """Return the first known name that *name*, which is in any case, begins or is a part of."""
        part = name.casefold()
        if len(part) < _MIN_PART_CHARS:
            return None
        names = [*self.targets, *self.selectors][:_MAX_NAMES]
        containing = [known for known in names if part in known.casefold()]
        begun = (known for known in containing if known.casefold().startswith(part))
        return next(begun, containing[0] if containing else None)

    def is_ignored(self, path: bytes) -> bool:
        """Return True if *path* below ``/upstream`` never starts a model.

        The configuration has patterns for Go, where matching takes linear time; llama-swap's
        default pattern takes 1.3 s for 16,000 dots in Python. So only the last kilobyte of a path
        is matched.
        """
        text = path[-_MATCHED_BYTES:].decode("utf-8", "replace")
        return any(pattern.search(text) for pattern in self._ignored)


def _remote_names(peers: Sequence[PeerDefinition]) -> Iterable[tuple[str, PeerModel]]:
    """Yield bare names that only one peer offers, then the names with the peer's id."""
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
