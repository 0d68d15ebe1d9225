"""Selection policies: the index of the target that serves a request of a selector. Pure.

Unlike llama-swap, a model that failed and is not tried for now
comes last, and one that sleeps is preferred to one that has to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ....dataclass import dataclass

#: failed: requests are rejected at present. remote: a peer's model, whose state is unknown.
Readiness: TypeAlias = Literal[
    "ready", "starting", "asleep", "stopped", "stopping", "failed", "remote"
]

_RUNNING = frozenset({"ready", "starting"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target of a selector at one moment.

    Attributes:
        readiness: State of its service.
        reserved: Requests of this selector that it is serving.
    """

    readiness: Readiness
    reserved: int = 0


def pick_warm(candidates: Sequence[Candidate]) -> int:
    """Return the index of the target that can serve soonest; the first one if none is loaded.

    Args:
        candidates: Targets in the order of the selector; at least one.
    """
    for preferred in ("ready", "starting", "asleep"):
        for index, candidate in enumerate(candidates):
            if candidate.readiness == preferred:
                return index
    usable = (index for index, item in enumerate(candidates) if item.readiness != "failed")
    return next(usable, 0)


def pick_spillover(candidates: Sequence[Candidate], limit: int, turn: int) -> int | None:
    """Return the index of the least busy loaded target, or of the next one to load.

    Args:
        candidates: Targets in the order of the selector; at least one.
        limit: Requests that a target gets before the next is used.
        turn: Number of earlier selections; equally busy targets take turns by it.

    Returns:
        The index, or None if all targets are stopping or failed.
    """
    active = [index for index, item in enumerate(candidates) if _is_active(item)]
    idle = [
        index
        for index, item in enumerate(candidates)
        if index not in active and item.readiness in ("stopped", "asleep", "remote")
    ]
    if not active:
        return idle[0] if idle else None
    least = min(candidates[index].reserved for index in active)
    if least >= limit and idle:
        return idle[0]
    ties = [index for index in active if candidates[index].reserved == least]
    return ties[turn % len(ties)]


def _is_active(item: Candidate) -> bool:
    if item.readiness in ("stopping", "failed"):
        return False
    return item.readiness in _RUNNING or item.reserved > 0
