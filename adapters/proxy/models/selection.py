"""Chooses the model behind a selector. Pure: what runs comes in, a place in the list comes out.

Unlike llama-swap, a model that failed and is not tried for now
comes last, and one that sleeps is preferred to one that has to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: cold: not running. going: on its way out. failed: refuses for now. remote: of a peer.
Readiness: TypeAlias = Literal["ready", "starting", "asleep", "cold", "going", "failed", "remote"]

_RUNNING = frozenset({"ready", "starting"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target, at this moment.

    Attributes:
        warmth: Where its process is.
        reserved: Requests that went to it by this selector and have not ended.
    """

    warmth: Readiness
    reserved: int = 0


def pick_warm(candidates: Sequence[Candidate]) -> int:
    """Return the place of the target that answers soonest; the first, if none runs.

    Args:
        candidates: In the order of the selector; at least one.
    """
    for wanted in ("ready", "starting", "asleep"):
        for place, candidate in enumerate(candidates):
            if candidate.warmth == wanted:
                return place
    sound = (place for place, item in enumerate(candidates) if item.warmth != "failed")
    return next(sound, 0)


def pick_spillover(candidates: Sequence[Candidate], limit: int, turn: int) -> int | None:
    """Return the place of the target that has room, or is the next to start.

    Args:
        candidates: In the order of the selector; at least one.
        limit: Requests a target takes before the next is used.
        turn: Counts choices; breaks ties between equally busy ones in turn.

    Returns:
        None when all of them are on their way out or refuse.
    """
    active = [place for place, item in enumerate(candidates) if _is_active(item)]
    cold = [
        place
        for place, item in enumerate(candidates)
        if place not in active and item.warmth in ("cold", "asleep", "remote")
    ]
    if not active:
        return cold[0] if cold else None
    least = min(candidates[place].reserved for place in active)
    if least >= limit and cold:
        return cold[0]
    ties = [place for place in active if candidates[place].reserved == least]
    return ties[turn % len(ties)]


def _is_active(item: Candidate) -> bool:
    if item.warmth in ("going", "failed"):
        return False
    return item.warmth in _RUNNING or item.reserved > 0
