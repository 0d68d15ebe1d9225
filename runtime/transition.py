"""What a supervisor tells the world: one record for each transition. Values."""

from __future__ import annotations

from dataclasses import dataclass

from .hooks import HookResult
from .ports import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A service went from one configuration to another.

    Attributes:
        service: Its name.
        at: When; seconds on the loop's clock, which has no known origin.
        event: The event that was taken.
        cause: Why it came, in words: an exit code, a probe's answer, who asked.
        source: Atomic state before.
        target: Atomic state after.
        configuration: All active states after, outermost first.
        seconds: How long the source lasted.
        incarnation: Which run of the service, counted from 1; 0 before the first.
        pid: Process id of the leader, or None.
        exit: How the process ended, when that was the event.
        hooks: Results of the hooks that ended in the source state.
    """

    service: str
    at: float
    event: str
    cause: str
    source: str
    target: str
    configuration: tuple[str, ...]
    seconds: float
    incarnation: int
    pid: int | None = None
    exit: Exit | None = None
    hooks: tuple[HookResult, ...] = ()
