"""From the name in a request to the model that answers it: profile, then selector, then model."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Protocol

from ....runtime import Supervisor, SwapchartError
from ..body.model_name import shown_name
from .catalog import ModelCatalog, PeerModel, Target
from .definitions import SelectorDefinition
from .profiles import Profiles
from .selection import Candidate, Readiness, pick_spillover, pick_warm

_WARMTH: dict[str, Readiness] = {
    "ready": "ready", "starting": "starting", "asleep": "asleep", "stopped": "cold",
    "stopping": "going", "failed": "failed",
}  # fmt: skip


class UnknownModelError(SwapchartError):
    """No model answers to the name.

    Attributes:
        wanted: The name.
    """

    def __init__(self, wanted: str) -> None:
        super().__init__(f"model not found: {shown_name(wanted)}")
        self.wanted = wanted


class NoTargetError(SwapchartError):
    """A selector has no target that could answer now."""


class Reservation(Protocol):
    """A place that a request takes up behind a selector."""

    def release(self) -> None:
        """The request has ended; once."""
        ...


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What a request's name means at this moment.

    Attributes:
        target: The model.
        selector: By which it was chosen, or None.
        reservation: To be released when the request has ended, or None.
    """

    target: Target
    selector: SelectorDefinition | None = None
    reservation: Reservation | None = None


class _SpilloverReservation:
    """One request's place behind a selector."""

    def __init__(self, counts: Counter[str], key: str) -> None:
        self._counts, self._key = counts, key
        counts[key] += 1

    def release(self) -> None:
        self._counts[self._key] -= 1


class Resolver:
    """Finds models by the names in requests.

    Attributes:
        profiles: Which of them is active counts.
    """

    def __init__(self, supervisor: Supervisor, catalogue: ModelCatalog, profiles: Profiles) -> None:
        self._supervisor = supervisor
        self._reserved: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._turns: Counter[str] = Counter()
        self.renew(catalogue, profiles)

    def renew(self, catalogue: ModelCatalog, profiles: Profiles) -> None:
        """Find other models from now on; places behind selectors stay taken."""
        self._catalogue, self.profiles = catalogue, profiles
        self._plain = {name: ResolvedModel(target) for name, target in catalogue.targets.items()}

    def plain(self, wanted: str) -> ResolvedModel | None:
        """Return what *wanted* means where nothing is to be chosen, else None."""
        return None if self.profiles.pins else self._plain.get(wanted)

    def resolve(self, wanted: str) -> ResolvedModel:
        """Return what *wanted* means; takes a place behind a selector that spills over.

        Raises:
            UnknownModelError: Nothing, or a name that the active profile disables.
            NoTargetError: A selector has none now.
        """
        pins = self.profiles.pins
        name: str | None = wanted
        if pins and wanted in pins:
            name = pins[wanted]
            if not name:
                raise UnknownModelError(wanted)
        assert name is not None, "checked"
        plain = self._plain.get(name)
        if plain is not None:
            return plain
        selector = self._catalogue.selectors.get(name)
        if selector is None:
            raise UnknownModelError(wanted)
        return self._select(selector)

    def readiness(self, target: Target) -> Readiness:
        """Return where the process of *target* is."""
        if isinstance(target, PeerModel):
            return "remote"
        return _WARMTH[self._supervisor.scheduler.services[target.card.id].phase]

    def targets_of(self, selector: SelectorDefinition) -> list[Target]:
        """Return the targets of *selector* that exist, in its order."""
        found = (self._catalogue.targets.get(name) for name in selector.targets)
        return [target for target in found if target is not None]

    def _select(self, selector: SelectorDefinition) -> ResolvedModel:
        targets = self.targets_of(selector)
        if not targets:
            raise NoTargetError(f"selector {selector.id!r} has no target that exists")
        if selector.strategy == "pin":
            return ResolvedModel(targets[0], selector)
        counts = self._reserved[selector.id]
        candidates = [Candidate(self.readiness(item), counts[item.id]) for item in targets]
        if selector.strategy == "warm":
            return ResolvedModel(targets[pick_warm(candidates)], selector)
        turn = self._turns[selector.id]
        self._turns[selector.id] += 1
        place = pick_spillover(candidates, selector.spillover, turn)
        if place is None:
            message = f"selector {selector.id!r} has no available spillover targets"
            raise NoTargetError(message)
        chosen = targets[place]
        return ResolvedModel(chosen, selector, _SpilloverReservation(counts, chosen.id))
