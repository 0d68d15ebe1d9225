"""Resolver of model names: profile first, then selector, then model."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Protocol

from ....runtime import Supervisor, SwapchartError
from ..body.model_name import quoted_name
from .catalog import ModelCatalog, PeerModel, Target
from .definitions import SelectorDefinition
from .profiles import Profiles
from .selection import Candidate, Readiness, pick_spillover, pick_warm

_READINESS: dict[str, Readiness] = {  # by phase of the service in the scheduler
    "ready": "ready", "starting": "starting", "asleep": "asleep", "stopped": "stopped",
    "stopping": "stopping", "failed": "failed",
}  # fmt: skip


class UnknownModelError(SwapchartError):
    """No model has the name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"model not found: {quoted_name(name)}")
        self.name = name


class NoTargetError(SwapchartError):
    """No target of a selector can serve a request at present."""


class Reservation(Protocol):
    """Counts one request towards the limit of a selector's target."""

    def release(self) -> None:
        """Stop counting the request; call it once, when the request has ended."""
        ...


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The model that serves a request.

    Attributes:
        target: The model.
        selector: Selector that selected it, or None.
        reservation: Reservation to release when the request has ended, or None.
    """

    target: Target
    selector: SelectorDefinition | None = None
    reservation: Reservation | None = None


class _SpilloverReservation:
    """Reservation at a target of a selector with the strategy ``spillover``."""

    def __init__(self, counts: Counter[str], key: str) -> None:
        self._counts, self._key = counts, key
        counts[key] += 1

    def release(self) -> None:
        self._counts[self._key] -= 1


class Resolver:
    """Finds the model that serves a request, by the name in the request.

    Attributes:
        profiles: Profiles, of which the active one changes the meaning of names.
    """

    def __init__(self, supervisor: Supervisor, catalog: ModelCatalog, profiles: Profiles) -> None:
        self._supervisor = supervisor
        self._reserved: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._turns: Counter[str] = Counter()
        self.renew(catalog, profiles)

    def renew(self, catalog: ModelCatalog, profiles: Profiles) -> None:
        """Use the models of another configuration; reservations stay in force."""
        self._catalog, self.profiles = catalog, profiles
        self._plain = {name: ResolvedModel(target) for name, target in catalog.targets.items()}
        self._fast = {name: each for name, each in self._plain.items() if _is_unchanged(name, each)}

    def plain(self, requested: str) -> ResolvedModel | None:
        """Return the local model called *requested* if the fast path may serve it.

        No profile and no selector is involved, its requests are sent unchanged, and their slots are
        not chosen here.
        """
        return None if self.profiles.pins else self._fast.get(requested)

    def resolve(self, requested: str) -> ResolvedModel:
        """Return the model for the name *requested*; reserves a target with ``spillover``.

        Raises:
            UnknownModelError: The name is unknown, or disabled by the active profile.
            NoTargetError: No target of the selector can serve a request at present.
        """
        pins = self.profiles.pins
        name: str | None = requested
        if pins and requested in pins:
            name = pins[requested]
            if not name:
                raise UnknownModelError(requested)
        assert name is not None, "checked"
        plain = self._plain.get(name)
        if plain is not None:
            return plain
        selector = self._catalog.selectors.get(name)
        if selector is None:
            raise UnknownModelError(requested)
        return self._select(selector)

    def readiness(self, target: Target) -> Readiness:
        """Return the readiness of *target*."""
        if isinstance(target, PeerModel):
            return "remote"
        return _READINESS[self._supervisor.scheduler.services[target.definition.id].phase]

    def targets_of(self, selector: SelectorDefinition) -> list[Target]:
        """Return the existing targets of *selector*, in its order."""
        found = (self._catalog.targets.get(name) for name in selector.targets)
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


def _is_unchanged(name: str, found: ResolvedModel) -> bool:
    """Return True if requests for *name* go to a local server as they are, to any of its slots."""
    target = found.target
    if isinstance(target, PeerModel) or target.definition.has_library:
        return False
    return not target.edits and target.sent_model == name
