"""Transition: the record of one change of a service's configuration."""

from __future__ import annotations

from ..dataclass import dataclass
from .hooks import HookResult
from .ports import Exit
from .request_wait import Swap


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of a service from one configuration to another.

    Attributes:
        service: Name of the service.
        at: Time in seconds on the loop's clock, whose origin is arbitrary.
        event: The event that caused it.
        cause: Reason of the event in words: an exit code, the result of a probe, a command.
        source: Innermost state before.
        target: Innermost state after.
        configuration: All active states after, outermost first.
        seconds: Duration of the source state.
        incarnation: Number of this run of the service, counted from 1; 0 before the first.
        pid: Process id of the leader, or None.
        exit: How the process ended, if that was the event.
        hooks: Results of the hooks that ended in the source state.
        node: Node of the process, for launchers that know nodes; else empty.
        swap: The swap that it is part of; None if it is of none.
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
    node: str = ""
    swap: Swap | None = None
