"""Values of scheduling: queued requests, service entries, limits and decisions.

The scheduler works on these; the supervisor carries the decisions out, and the HTTP API shows
the requests and entries. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .arguments import require_count, require_seconds
from .errors import RequestError
from .median import median
from .memory import Amounts, MemoryNeed
from .request_wait import RequestWait
from .waiter import PendingRequest

#: stopped: holds no resources. failed: rejects requests. reviving: rejects requests too, but will
#: restart by itself, so its resources stay reserved. asleep: holds next to nothing.
Phase: TypeAlias = Literal[
    "stopped", "failed", "reviving", "asleep", "starting", "ready", "stopping"
]

#: How phase ``stopping`` ends: with a service that has stopped, with one that sleeps, or not at
#: all, because the process cannot be killed.
Ending: TypeAlias = Literal["stop", "sleep", "stuck"]

#: (target, services that hold resources) -> services to evict before the target may run.
#: The target is among the second argument if it runs already.
EvictionPolicy: TypeAlias = Callable[[str, frozenset[str]], frozenset[str]]

#: Phases in which a service holds resources, or is about to.
HOLDING: frozenset[Phase] = frozenset({"starting", "ready", "stopping", "reviving"})
_STARTS = 5  # earlier starts whose durations are kept

#: Phases in which a service rejects requests.
REJECTING: frozenset[Phase] = frozenset({"failed", "reviving"})

#: rule: the eviction policy names it. memory: another service needs its memory. pressure: a pool
#: was too full. yield: another program gets the pool.
EvictionCause: TypeAlias = Literal["memory", "rule", "pressure", "yield"]
EVICTION_CAUSES: tuple[EvictionCause, ...] = ("memory", "rule", "pressure", "yield")


def one_at_a_time(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return all other services: the policy for a single GPU, and the default."""
    return running - {target}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Limits of the request queue.

    Attributes:
        length: Maximum number of queued requests over all services, >= 0. Requests that wait
            for a start which is under way do not count.
        timeout_s: Maximum time in the queue in seconds; None means unlimited.
        max_wait_s: Time in the queue in seconds after which a request is overdue: no later
            request for a service that excludes its own is granted before it.
        min_residency_s: Time in seconds from the last use of a service until it may be evicted,
            at most the time that its last start took, unless the waiting request is overdue; 0
            disables it.
    """

    length: int = 512
    timeout_s: float | None = 300.0
    max_wait_s: float = 30.0
    min_residency_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or is out of range.
        """
        require_count("queue.length", self.length)
        require_seconds("queue.timeout_s", self.timeout_s, or_none=True)
        require_seconds("queue.max_wait_s", self.max_wait_s)
        require_seconds("queue.min_residency_s", self.min_residency_s)


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request, as the scheduler sees it.

    Attributes:
        service: Name of the service that it needs.
        waiter: Gets the decision.
        priority: Higher priorities are granted first.
        since: Time of arrival in seconds.
        number: Order of arrival.
        client: Identity of the client, for turns between clients.
        may_start: It may start its service; if not, it is refused unless the service is ready.
        is_queued: It is in the queue.
        was_granted: It was handed to its lifecycle.
        was_retried: It was taken back once, after a start that ran out of memory.
        why: Reason why it waits, in words.
        wait: How it has waited so far.
    """

    service: str
    waiter: PendingRequest
    priority: int
    since: float
    number: int
    client: str = ""
    may_start: bool = True
    is_queued: bool = False
    was_granted: bool = False
    was_retried: bool = False
    why: str = ""
    wait: RequestWait = field(default_factory=RequestWait)

    def explain(self, why: str, now: float) -> None:
        """Record why it waits from now on; empty if it need not."""
        if why != self.why:
            self.why = why
            self.wait.note_reason(now, why)


@dataclass(slots=True)
class ServiceEntry:
    """One service, as the scheduler sees it.

    Attributes:
        name: Name of the service.
        limit: Maximum number of granted requests at a time; None means unlimited.
        is_pinned: It is never evicted.
        phase: Phase of its lifecycle.
        ending: How its phase ``stopping`` ends.
        granted: Number of requests that were granted and have not ended: they wait for the start
            or are in flight.
        starting_at: Time when its last start began, in seconds.
        start_s: Duration of its last start that succeeded, in seconds >= 0.
        starts_s: Durations of its last starts that succeeded, at most six, in seconds.
        earlier_load_s: Time that a start took in earlier runs of the program, in seconds; 0 means
            that it is not known.
        used_at: Time of its last use in seconds: it became ready, or its last request ended.
        is_open: A request may be granted without asking the scheduler: the hot path.
        closed_reason: Change of the service that its requests wait for, in words; else empty.
        recovery_reason: Hooks of an earlier run that its requests wait for, in words; else empty.
        leaving_reason: Why it has to leave its memory to other programs, in words; else empty.
        turns: Client -> number of its last grant, which grows over time; kept only for a service
            with a limit.
        need: Memory that it needs; None if memory is no condition for it.
        claim: Bytes by pool that it was granted; see `MemoryLedger`.
        seen: Bytes by pool that it was measured to hold.
        free_before: Bytes by pool of its claim that were free for it when its start began.
        at_risk_s: Time in seconds to compute again what an eviction loses.
    """

    name: str
    limit: int | None = None
    is_pinned: bool = False
    phase: Phase = "stopped"
    ending: Ending = "stop"
    granted: int = 0
    starting_at: float = 0.0
    start_s: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    earlier_load_s: float = 0.0
    used_at: float = 0.0
    is_open: bool = False
    closed_reason: str = ""
    recovery_reason: str = ""
    leaving_reason: str = ""
    turns: dict[str, int] = field(default_factory=dict)
    need: MemoryNeed | None = None
    claim: Amounts = field(default_factory=dict)
    seen: Amounts = field(default_factory=dict)
    free_before: Amounts = field(default_factory=dict)
    at_risk_s: float = 0.0

    @property
    def blocked_reason(self) -> str:
        """Reason why no request is granted at the moment, in words; empty if there is none."""
        return self.recovery_reason or self.closed_reason or self.leaving_reason

    @property
    def is_rejecting(self) -> bool:
        """True if the lifecycle rejects requests, with an error of its own."""
        return self.phase in REJECTING and not self.closed_reason

    def note_start(self, seconds: float) -> None:
        """Record the duration of a start that succeeded."""
        self.start_s = seconds
        self.starts_s = [*self.starts_s[-_STARTS:], seconds]

    def note_adoption(self, start_s: float, now: float) -> None:
        """Record the duration of the start of a run that was adopted, not of its adoption."""
        self.starting_at = now - start_s
        if self.phase == "ready":
            self.starts_s.clear()
            self.note_start(start_s)

    @property
    def load_s(self) -> float:
        """Time in seconds that a start takes: the median of the last five, >= 0.

        The first one is left out as soon as there is another: it reads the model from the disk,
        and took 3.7 to 5.1 s where the others took 0.3 to 0.8 s. Before the first one it is that of
        earlier runs of the program, or 1.
        """
        starts = self.starts_s[1:] if len(self.starts_s) > 1 else self.starts_s
        return median(starts) if starts else self.earlier_load_s or 1.0

    @property
    def has_load_time(self) -> bool:
        """True if it is known how long a start takes."""
        return bool(self.starts_s) or self.earlier_load_s > 0

    def stays_until(self, min_residency_s: float) -> float:
        """Return the time until which it is kept for its next request while idle; seconds.

        To wait longer than its start took would cost the waiting request more than the swap back
        costs the next one.
        """
        return self.used_at + min(min_residency_s, self.start_s)

    @property
    def has_room(self) -> bool:
        """True if one more request keeps within the limit."""
        return self.limit is None or self.granted < self.limit


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand *request* to its lifecycle."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop *service* so that *target* can start."""

    service: str
    target: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Reject *request* with *error*; None means the error that its lifecycle gives now."""

    request: QueuedRequest
    error: RequestError | None


Decision: TypeAlias = Grant | Evict | Refuse
