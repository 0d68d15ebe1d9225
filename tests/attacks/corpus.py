"""All attacks, in the order of their modules."""

from __future__ import annotations

from . import bodies, http, limits, processes, rights, sockets, state
from .entry import Attack

ATTACKS: tuple[Attack, ...] = (
    *bodies.ATTACKS,
    *http.ATTACKS,
    *limits.ATTACKS,
    *processes.ATTACKS,
    *rights.ATTACKS,
    *sockets.ATTACKS,
    *state.ATTACKS,
)
