"""Which request goes when, and what must go for it. Pure: time comes in, decisions come out.

A request for a service that runs is granted at once. For one that does not, the eviction policy
names what must go first; if that is idle a *swap* begins, else the request waits in one queue,
ordered by priority and arrival. Two swaps run side by side when they touch nothing in common.

Unlike llama-swap, nothing starves: once a request has waited *max_wait_s*, no later one for a
service that cannot run beside its own is granted before it, whatever their priorities. And where
a limit makes requests wait for one service, clients take turns: who asks for much waits for it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .errors import RequestError
from .waiter import PendingRequest

#: stopped: holds nothing. failed: refuses by itself. reviving: the same, but it will start again
#: without being asked, so that its place is taken. asleep: holds next to nothing.
Phase: TypeAlias = Literal[
    "stopped", "failed", "reviving", "asleep", "starting", "ready", "stopping"
]

#: (target, services that hold resources) -> those that must go before the target may run.
#: The target is among the second if it runs already.
EvictionPolicy: TypeAlias = Callable[[str, frozenset[str]], frozenset[str]]

_HOLDING = frozenset({"starting", "ready", "stopping", "reviving"})
_REFUSING = frozenset({"failed", "reviving"})


def one_at_a_time(target: str, running: frozenset[str]) -> frozenset[str]:
    """Everything else must go: what a single GPU wants, and the default."""
    return running - {target}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What the queue bears.

    Attributes:
        length: Requests that may wait here at a time, all services together; those that only
            wait for a start which is under way do not count.
        timeout_s: Longest wait in the queue; None is without limit.
        max_wait_s: After so long in the queue, what stands in the way gets no new requests.
        min_residency_s: A service that became ready stays at least so long, unless the head of
            the queue is overdue; 0 is off.
    """

    length: int = 512
    timeout_s: float | None = 300.0
    max_wait_s: float = 30.0
    min_residency_s: float = 0.0


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request, as the scheduler sees it.

    Attributes:
        service: What it wants.
        waiter: Who is told.
        priority: Higher goes first.
        since: When it came; seconds.
        number: Order of arrival.
        client: Whose it is; anything that tells those apart who shall take turns.
        is_queued: It waits here.
        was_granted: It was handed to its lifecycle.
        why: What it waits for, in words.
    """

    service: str
    waiter: PendingRequest
    priority: int
    since: float
    number: int
    client: str = ""
    is_queued: bool = False
    was_granted: bool = False
    why: str = ""


@dataclass(slots=True)
class ServiceEntry:
    """One service, as the scheduler sees it.

    Attributes:
        name: Its name.
        limit: Requests granted at a time; None is without limit.
        is_pinned: Never evicted.
        phase: Where its lifecycle is.
        granted: Requests handed over and not ended: waiting for the start or in flight.
        ready_at: When it last became ready; seconds.
        is_open: A request may be granted without asking any further: the hot path.
        closed_reason: What change of the service requests wait for, in words; see `blocked_reason`.
        recovery_reason: What an earlier run left undone and comes first, in words; see
            `blocked_reason`.
        turns: Client -> when it was last granted one here, as a number that grows; kept only
            where there is a limit.
    """

    name: str
    limit: int | None = None
    is_pinned: bool = False
    phase: Phase = "stopped"
    granted: int = 0
    ready_at: float = 0.0
    is_open: bool = False
    closed_reason: str = ""
    recovery_reason: str = ""
    turns: dict[str, int] = field(default_factory=dict)

    @property
    def blocked_reason(self) -> str:
        """Why no request is granted for now, in words; empty: they are."""
        return self.recovery_reason or self.closed_reason

    @property
    def has_room(self) -> bool:
        """Tell whether one more request keeps within the limit."""
        return self.limit is None or self.granted < self.limit


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand the request to its lifecycle."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop *service* so that *target* can start."""

    service: str
    target: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send the request away; without an error, with what its lifecycle says just now."""

    request: QueuedRequest
    error: RequestError | None


Decision: TypeAlias = Grant | Evict | Refuse


@dataclass(slots=True)
class Scheduler:
    """Decides for all services of a supervisor.

    Attributes:
        policy: What must go for what.
        limits: What the queue bears.
        services: Every service, by name.
        queue: Requests that wait, in order.
        swaps: Target -> services that are going for it and are not gone yet.
        is_held: Nothing is granted or evicted for now.
    """

    policy: EvictionPolicy = one_at_a_time
    limits: QueueLimits = field(default_factory=QueueLimits)
    services: dict[str, ServiceEntry] = field(default_factory=dict)
    queue: list[QueuedRequest] = field(default_factory=list)
    swaps: dict[str, frozenset[str]] = field(default_factory=dict)
    is_held: bool = False
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _is_dealt: bool = False  # the queue may be in another order than that of arrival
    _turns: itertools.count[int] = field(default_factory=itertools.count)
    _holding: dict[str, ServiceEntry] = field(default_factory=dict)
    _running: frozenset[str] | None = None  # None: it changed, and nobody has asked since
    _evictions: dict[str, frozenset[str]] = field(default_factory=dict)  # for that very set ...
    _asked: EvictionPolicy | None = None  # ... and by this policy

    # ---- what comes in
    def add(self, name: str, *, limit: int | None = None, is_pinned: bool = False) -> ServiceEntry:
        """Make *name* known, or change its limits."""
        entry = self.services.get(name)
        if entry is None:
            entry = self.services[name] = ServiceEntry(name)
        entry.limit, entry.is_pinned = limit, is_pinned
        return entry

    def remove(self, name: str, now: float) -> list[Decision]:
        """Forget *name*, which must have stopped; its waiting requests are refused."""
        error = RequestError("model_removed", f"{name} was removed")
        decisions: list[Decision] = [
            self._refuse(request, error) for request in list(self.queue) if request.service == name
        ]
        self._set_phase(self.services[name], "stopped")
        del self.services[name]
        return decisions + self._drain(now)

    def submit(
        self,
        service: str,
        waiter: PendingRequest,
        now: float,
        *,
        priority: int = 0,
        client: str = "",
    ) -> tuple[QueuedRequest, list[Decision]]:
        """Take a request for *service*; it is granted, queued or refused."""
        request = QueuedRequest(service, waiter, priority, now, next(self._numbers), client)
        entry = self.services[service]
        if not entry.has_room and entry.phase == "ready":
            error = RequestError(
                "concurrency_limit", "Too many requests", status_hint=429, retry_after_s=1.0
            )
            return request, [Refuse(request, error)]
        overdue = self._overdue(now)
        waiting = len(self.queue)
        self._enqueue(request)
        decisions = self._advance(request, now, overdue, may_wait=waiting < self.limits.length)
        self._open_ready(overdue)
        self._take_turns()
        return request, decisions

    def cancel(self, request: QueuedRequest, now: float) -> list[Decision]:
        """Take back a request that is queued; a no-op when it is not."""
        if not request.is_queued:
            return []
        self._dequeue(request)
        return self._drain(now)

    def take_back(self, request: QueuedRequest) -> None:
        """Let a request that was granted, but not admitted, wait here again, in its old place."""
        self.services[request.service].granted -= 1
        request.was_granted = False
        self._enqueue(request)
        self._take_turns()

    def clear(self, service: str | None = None) -> list[QueuedRequest]:
        """Take back all requests that are queued, or those for *service*; the caller tells them.

        What they leave free is given away by the next decision, such as a `tick`.
        """
        gone = [request for request in self.queue if service in (None, request.service)]
        for request in gone:
            self._dequeue(request)
        self._take_turns()
        return gone

    def finished(self, service: str, now: float) -> list[Decision]:
        """A granted request has ended, or was refused by its lifecycle."""
        entry = self.services.get(service)
        if entry is None:
            return []
        assert entry.granted > 0, f"{service}: more requests ended than were granted"
        entry.granted -= 1
        if self.queue and (entry.granted == 0 or entry.limit is not None):
            return self._drain(now)
        return []

    def phase_changed(self, service: str, phase: Phase, now: float) -> list[Decision]:
        """The lifecycle of *service* is in another phase."""
        entry = self.services[service]
        before = entry.phase
        if phase == before:
            return []
        if phase == "ready":
            entry.ready_at = now
        self._set_phase(entry, phase)
        if before == "stopping" and phase in _HOLDING:  # it did not go after all
            self.swaps = {to: gone for to, gone in self.swaps.items() if service not in gone}
            self._running = None
            if not entry.granted and (rivals := self._rivals(service)):
                # It slept, and its place was given away; dead, it means to come back by itself.
                return [Evict(service, min(rivals))]
        return self._drain(now)

    def tick(self, now: float) -> list[Decision]:
        """Time has passed: refuse what waited too long, close what stands in the way."""
        timeout = self.limits.timeout_s
        decisions: list[Decision] = []
        if timeout is not None:
            for request in [t for t in self.queue if now >= t.since + timeout]:
                error = RequestError(
                    "queue_timeout", f"waited {timeout:g} s: {request.why}", retry_after_s=5.0
                )
                decisions.append(self._refuse(request, error))
        return decisions + self._drain(now)

    def next_tick(self, now: float) -> float | None:
        """When `tick` has something to do; seconds, or None."""
        if not self.queue:
            return None
        times = [request.since + self.limits.max_wait_s for request in self.queue]
        times += [entry.ready_at + self.limits.min_residency_s for entry in self._holding.values()]
        times = [at for at in times if at > now]
        if self.limits.timeout_s is not None:
            times.append(min(request.since for request in self.queue) + self.limits.timeout_s)
        return min(times, default=None)

    # ---- what others may read
    def running(self) -> frozenset[str]:
        """Services that hold resources, or are about to."""
        if self._running is None:
            self._running = frozenset((*self._holding, *self.swaps))
            self._asked = None
        return self._running

    def explain(self, service: str, now: float) -> tuple[frozenset[str], str]:
        """Say what a request for *service* would evict now, and what it would wait for."""
        evict = self._must_go(service)
        request = QueuedRequest(service, PendingRequest(), 0, now, next(self._numbers))
        return evict, self._obstacle(request, evict, now, self._overdue(now))

    # ---- bookkeeping
    def _set_phase(self, entry: ServiceEntry, phase: Phase) -> None:
        entry.phase = phase
        entry.is_open = False  # until somebody looks again
        if (phase in _HOLDING) != (entry.name in self._holding):
            self._running = None
            if phase in _HOLDING:
                self._holding[entry.name] = entry
            else:
                del self._holding[entry.name]

    def _enqueue(self, request: QueuedRequest) -> None:
        place, rank = len(self.queue), (request.priority, -request.number)
        while place and (self.queue[place - 1].priority, -self.queue[place - 1].number) < rank:
            place -= 1
        self.queue.insert(place, request)
        request.is_queued = True

    def _take_turns(self) -> None:
        """Deal the places of requests that a limit makes wait anew, so that clients take turns.

        Of one service and priority comes first the first request of each client, beginning with
        who was granted one longest ago, then the second of each, and so on. Which places a
        service has is a matter of arrival alone: what others wait for is not touched by it.
        """
        is_limited = any(self.services[request.service].limit is not None for request in self.queue)
        if is_limited or self._is_dealt:
            self.queue.sort(key=lambda request: (-request.priority, request.number))
        self._is_dealt = is_limited
        places: dict[tuple[str, int], list[int]] = {}
        for place, request in enumerate(self.queue if is_limited else ()):
            if self.services[request.service].limit is not None:
                places.setdefault((request.service, request.priority), []).append(place)
        for (service, _), shared in places.items():
            dealt = _dealt([self.queue[place] for place in shared], self.services[service].turns)
            for place, request in zip(shared, dealt, strict=True):
                self.queue[place] = request

    def _dequeue(self, request: QueuedRequest) -> None:
        self.queue.remove(request)
        request.is_queued = False
        if request.service in self.swaps and not any(
            other.service == request.service for other in self.queue
        ):
            del self.swaps[request.service]  # what is going goes, but nothing starts for it
            self._running = None

    def _refuse(self, request: QueuedRequest, error: RequestError | None) -> Refuse:
        self._dequeue(request)
        return Refuse(request, error)

    # ---- deciding
    def _rivals(self, service: str) -> frozenset[str]:
        """Services that hold what *service* may not share with them."""
        return self.policy(service, self.running()) & self.running() - {service}

    def _must_go(self, target: str) -> frozenset[str]:
        if self.services[target].phase in _REFUSING:
            return frozenset()  # it refuses by itself: nothing must go for that
        running = self.running()
        if self._asked is not self.policy:
            self._asked = self.policy
            self._evictions.clear()
        found = self._evictions.get(target)
        if found is None:
            found = self._evictions[target] = self.policy(target, running) & running - {target}
        return found

    def _drain(self, now: float) -> list[Decision]:
        if self.is_held:
            return []
        for target, evicted in list(self.swaps.items()):
            if evicted.isdisjoint(self._holding):
                del self.swaps[target]
                self._running = None
        overdue = self._overdue(now)
        decisions: list[Decision] = []
        self._take_turns()
        for request in list(self.queue):
            if request.is_queued:
                decisions += self._advance(request, now, overdue)
        self._open_ready(overdue)
        self._take_turns()
        return decisions

    def _advance(
        self,
        request: QueuedRequest,
        now: float,
        overdue: Mapping[str, int],
        *,
        may_wait: bool = True,
    ) -> list[Decision]:
        """Grant *request*, begin a swap for it, refuse it, or let it wait and note why."""
        entry = self.services[request.service]
        if entry.phase in _REFUSING and not entry.closed_reason:
            return [self._refuse(request, None)]  # not left to the lifecycle: it may have moved on
        evict = self._must_go(entry.name)
        for name in sorted(evict):
            if self.services[name].is_pinned and self.services[name].phase != "stopping":
                text = f"{entry.name} cannot run beside {name}, which is pinned"
                return [self._refuse(request, RequestError("pinned", text))]
        request.why = self._obstacle(request, evict, now, overdue)
        if (request.why or evict) and not may_wait:
            text = f"{self.limits.length} requests are waiting already"
            return [self._refuse(request, RequestError("queue_full", text, retry_after_s=5.0))]
        if request.why:
            return []
        if evict:
            self.swaps[entry.name] = evict
            self._running = None
            request.why = f"evicting {', '.join(sorted(evict))}"
            return [Evict(name, entry.name) for name in sorted(evict)]
        self._dequeue(request)
        entry.granted += 1
        if entry.limit is not None:
            entry.turns[request.client] = next(self._turns)
        if entry.phase in ("stopped", "asleep"):
            # Its lifecycle will say so, but the next request of this very loop must know already.
            self._set_phase(entry, "starting")
        return [Grant(request)]

    def _obstacle(
        self, request: QueuedRequest, evict: frozenset[str], now: float, overdue: Mapping[str, int]
    ) -> str:
        """Say what *request* waits for; empty when it may go on."""
        entry = self.services[request.service]
        if entry.blocked_reason:
            return entry.blocked_reason
        if not entry.has_room:
            return f"{entry.name} is at its concurrency limit of {entry.limit}"
        if entry.name in self.swaps:
            return f"evicting {', '.join(sorted(self.swaps[entry.name]))}"
        for target, evicted in self.swaps.items():
            if entry.name in evicted:
                return f"{entry.name} is being evicted for {target}"
            if target in evict or evicted & evict:
                return f"the swap to {target} is under way"
        for name, number in overdue.items():
            if number < request.number and self._excludes(name, entry.name):
                return f"a request for {name} has waited too long and goes first"
        for name in sorted(evict):
            why = self._why_it_stays(self.services[name], request, now)
            if why:
                return why
        return ""

    def _why_it_stays(self, other: ServiceEntry, request: QueuedRequest, now: float) -> str:
        if other.granted:
            return f"{other.name} has {other.granted} requests in flight"
        if other.is_pinned:
            return f"{other.name} is pinned, and on its way out"
        stays_until = other.ready_at + self.limits.min_residency_s
        is_patient = now < request.since + self.limits.max_wait_s
        if other.phase == "ready" and now < stays_until and is_patient:
            return f"{other.name} stays for another {stays_until - now:.1f} s"
        return ""

    def _overdue(self, now: float) -> dict[str, int]:
        """Services for which somebody has waited too long -> number of the first such request."""
        overdue: dict[str, int] = {}
        for request in self.queue:
            if now >= request.since + self.limits.max_wait_s:
                first = overdue.get(request.service, request.number)
                overdue[request.service] = min(first, request.number)
        return overdue

    def _excludes(self, one: str, other: str) -> bool:
        """Tell whether starting either makes the other go."""
        if one == other:
            return False
        beside = self.running() - {one, other}
        return other in self.policy(one, beside | {other}) or one in self.policy(
            other, beside | {one}
        )

    def _open_ready(self, overdue: Iterable[str]) -> None:
        going = {name for evicted in self.swaps.values() for name in evicted}
        queued = {request.service for request in self.queue}
        for entry in self._holding.values():
            entry.is_open = (
                entry.phase == "ready"
                and not entry.blocked_reason
                and entry.name not in going
                and entry.name not in queued
                and not self._must_go(entry.name)
                and not any(self._excludes(name, entry.name) for name in overdue)
            )


def _dealt(requests: Sequence[QueuedRequest], turns: Mapping[str, int]) -> list[QueuedRequest]:
    """Return *requests* in the order in which their clients take turns.

    Args:
        requests: Of one service and priority, the oldest first.
        turns: Client -> its last turn; who never had one comes first.
    """
    rounds: Counter[str] = Counter()
    ranks: dict[QueuedRequest, tuple[int, int]] = {}
    for request in requests:
        ranks[request] = rounds[request.client], turns.get(request.client, -1)
        rounds[request.client] += 1
    return sorted(requests, key=ranks.__getitem__)
