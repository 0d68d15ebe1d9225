"""Which request goes when, and what must go for it. Pure: time comes in, decisions come out.

A request for a service that runs is granted at once. For one that does not, the eviction policy
names what must go first; if that is idle a *swap* begins, else the request waits in one queue,
ordered by priority and arrival. Two swaps run side by side when they touch nothing in common.

Unlike llama-swap, nothing starves: once the head of the queue has waited *max_wait_s*, services
that stand in its way get no new request until it was served.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .errors import RequestError
from .waiters import Waiter

#: stopped: holds nothing. failed: refuses by itself. asleep: holds next to nothing.
Phase: TypeAlias = Literal["stopped", "failed", "asleep", "starting", "ready", "stopping"]

#: (target, services that hold resources) -> those that must go before the target may run.
#: The target is among the second if it runs already.
EvictionPolicy: TypeAlias = Callable[[str, frozenset[str]], frozenset[str]]

_HOLDING = frozenset({"starting", "ready", "stopping"})


def one_at_a_time(target: str, running: frozenset[str]) -> frozenset[str]:
    """Everything else must go: what a single GPU wants, and the default."""
    return running - {target}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What the queue bears.

    Attributes:
        length: Requests that may wait for a service at a time, all services together.
        timeout_s: Longest wait in the queue; None is without limit.
        max_wait_s: After so long at the head, what stands in the way gets no new requests.
        min_residency_s: A service that became ready stays at least so long, unless the head of
            the queue is overdue; 0 is off.
    """

    length: int = 512
    timeout_s: float | None = 300.0
    max_wait_s: float = 30.0
    min_residency_s: float = 0.0


@dataclass(eq=False, slots=True)
class Ticket:
    """One request, as the scheduler sees it.

    Attributes:
        service: What it wants.
        waiter: Who is told.
        priority: Higher goes first.
        since: When it came; seconds.
        number: Order of arrival.
        is_queued: It waits here.
        was_granted: It was handed to its lifecycle.
        why: What it waits for, in words.
    """

    service: str
    waiter: Waiter
    priority: int
    since: float
    number: int
    is_queued: bool = False
    was_granted: bool = False
    why: str = ""


@dataclass(slots=True)
class Seat:
    """One service, as the scheduler sees it.

    Attributes:
        name: Its name.
        limit: Requests granted at a time; None is without limit.
        is_pinned: Never evicted.
        phase: Where its lifecycle is.
        granted: Requests handed over and not ended: waiting for the start or in flight.
        ready_at: When it last became ready; seconds.
        is_open: A request may be granted without asking any further: the hot path.
    """

    name: str
    limit: int | None = None
    is_pinned: bool = False
    phase: Phase = "stopped"
    granted: int = 0
    ready_at: float = 0.0
    is_open: bool = False

    @property
    def has_room(self) -> bool:
        """Tell whether one more request keeps within the limit."""
        return self.limit is None or self.granted < self.limit


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand the request to its lifecycle."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop *service* so that *target* can start."""

    service: str
    target: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send the request away."""

    ticket: Ticket
    error: RequestError


Decision: TypeAlias = Grant | Evict | Refuse


@dataclass(slots=True)
class Scheduler:
    """Decides for all services of a supervisor.

    Attributes:
        policy: What must go for what.
        limits: What the queue bears.
        seats: Every service, by name.
        queue: Requests that wait, in order.
        swaps: Target -> services that are going for it and are not gone yet.
    """

    policy: EvictionPolicy = one_at_a_time
    limits: QueueLimits = field(default_factory=QueueLimits)
    seats: dict[str, Seat] = field(default_factory=dict)
    queue: list[Ticket] = field(default_factory=list)
    swaps: dict[str, frozenset[str]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    # ---- what comes in
    def add(self, name: str, *, limit: int | None = None, is_pinned: bool = False) -> Seat:
        """Make *name* known, or change its limits."""
        seat = self.seats.get(name)
        if seat is None:
            seat = self.seats[name] = Seat(name)
        seat.limit, seat.is_pinned = limit, is_pinned
        return seat

    def remove(self, name: str) -> list[Decision]:
        """Forget *name*, which must have stopped; its waiting requests are refused."""
        del self.seats[name]
        self.swaps.pop(name, None)
        gone = [ticket for ticket in self.queue if ticket.service == name]
        error = RequestError("model_removed", f"{name} was removed", status_hint=503)
        return [self._refuse(ticket, error) for ticket in gone]

    def submit(
        self, service: str, waiter: Waiter, now: float, *, priority: int = 0
    ) -> tuple[Ticket, list[Decision]]:
        """Take a request for *service*; it is granted, queued or refused."""
        ticket = Ticket(service, waiter, priority, now, next(self._numbers))
        seat = self.seats[service]
        if not seat.has_room and seat.phase == "ready":
            error = RequestError(
                "concurrency_limit", "Too many requests", status_hint=429, retry_after_s=1.0
            )
            return ticket, [Refuse(ticket, error)]
        if len(self.queue) >= self.limits.length and not seat.is_open:
            error = RequestError(
                "queue_full", f"{len(self.queue)} requests are waiting already", retry_after_s=5.0
            )
            return ticket, [Refuse(ticket, error)]
        self._enqueue(ticket)
        return ticket, self._drain(now)

    def cancel(self, ticket: Ticket, now: float) -> list[Decision]:
        """Take back a request that is queued; a no-op when it is not."""
        if not ticket.is_queued:
            return []
        self.queue.remove(ticket)
        ticket.is_queued = False
        if not any(other.service == ticket.service for other in self.queue):
            self.swaps.pop(ticket.service, None)
        return self._drain(now)

    def finished(self, service: str, now: float) -> list[Decision]:
        """A granted request has ended, or was refused by its lifecycle."""
        seat = self.seats.get(service)
        if seat is None:
            return []
        assert seat.granted > 0, f"{service}: more requests ended than were granted"
        seat.granted -= 1
        if self.queue and (seat.granted == 0 or seat.limit is not None):
            return self._drain(now)
        return []

    def phase_changed(self, service: str, phase: Phase, now: float) -> list[Decision]:
        """The lifecycle of *service* is in another phase."""
        seat = self.seats[service]
        if phase == "ready" and seat.phase != "ready":
            seat.ready_at = now
        seat.phase = phase
        return self._drain(now)

    def tick(self, now: float) -> list[Decision]:
        """Time has passed: refuse what waited too long, close what stands in the way."""
        timeout = self.limits.timeout_s
        decisions: list[Decision] = []
        if timeout is not None:
            for ticket in [t for t in self.queue if now - t.since >= timeout]:
                error = RequestError(
                    "queue_timeout", f"waited {timeout:g} s: {ticket.why}", retry_after_s=5.0
                )
                decisions.append(self._refuse(ticket, error))
        return decisions + self._drain(now)

    def next_tick(self, now: float) -> float | None:
        """When `tick` has something to do; seconds, or None."""
        if not self.queue:
            return None
        oldest = min(ticket.since for ticket in self.queue)
        times = [t for t in (oldest + self.limits.max_wait_s,) if t > now]
        if self.limits.timeout_s is not None:
            times.append(oldest + self.limits.timeout_s)
        residency = self.limits.min_residency_s
        if residency:
            ends = [seat.ready_at + residency for seat in self._holding_seats()]
            times += [end for end in ends if end > now]
        return min(times, default=None)

    # ---- what others may read
    def running(self) -> frozenset[str]:
        """Services that hold resources, or are about to."""
        return frozenset(seat.name for seat in self._holding_seats()) | self.swaps.keys()

    def explain(self, service: str, now: float) -> tuple[frozenset[str], str]:
        """Say what a request for *service* would evict now, and what it would wait for."""
        evict = self._must_go(service)
        ticket = Ticket(service, Waiter(), 0, now, -1)
        return evict, self._obstacle(ticket, evict, now)

    # ---- deciding
    def _holding_seats(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if seat.phase in _HOLDING]

    def _enqueue(self, ticket: Ticket) -> None:
        place = len(self.queue)
        while place and self.queue[place - 1].priority < ticket.priority:
            place -= 1
        self.queue.insert(place, ticket)
        ticket.is_queued = True

    def _refuse(self, ticket: Ticket, error: RequestError) -> Refuse:
        self.queue.remove(ticket)
        ticket.is_queued = False
        if not any(other.service == ticket.service for other in self.queue):
            self.swaps.pop(ticket.service, None)
        return Refuse(ticket, error)

    def _must_go(self, target: str) -> frozenset[str]:
        seat = self.seats[target]
        if seat.phase == "failed":
            return frozenset()  # it refuses by itself: nothing must go for that
        return self.policy(target, self.running()) - {target}

    def _drain(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        gone = {s.name for s in self.seats.values() if s.phase not in _HOLDING}
        for target, evicted in list(self.swaps.items()):
            if evicted <= gone:
                del self.swaps[target]
        closed = self._closed(now)
        for ticket in list(self.queue):
            if not ticket.is_queued:
                continue
            evict = self._must_go(ticket.service)
            ticket.why = self._obstacle(ticket, evict, now, closed)
            if ticket.why:
                continue
            if evict:
                self.swaps[ticket.service] = evict
                ticket.why = f"evicting {', '.join(sorted(evict))}"
                decisions += [
                    Evict(name, ticket.service)
                    for name in sorted(evict)
                    if self.seats[name].phase != "stopping"
                ]
                continue
            self.queue.remove(ticket)
            ticket.is_queued = False
            self.seats[ticket.service].granted += 1
            decisions.append(Grant(ticket))
            # Granting changes who holds what: the lifecycle will say so, but the next
            # ticket of this very loop must know it already.
            seat = self.seats[ticket.service]
            if seat.phase in ("stopped", "asleep"):
                seat.phase = "starting"
        self._open_seats(closed)
        return decisions

    def _obstacle(
        self, ticket: Ticket, evict: frozenset[str], now: float,
        closed: Mapping[str, int] | None = None,
    ) -> str:  # fmt: skip
        """Say what *ticket* waits for; empty when it may go on."""
        seat = self.seats[ticket.service]
        if not seat.has_room:
            return f"{seat.name} is at its concurrency limit of {seat.limit}"
        if ticket.service in self.swaps:
            return f"evicting {', '.join(sorted(self.swaps[ticket.service]))}"
        for target, evicted in self.swaps.items():
            if ticket.service in evicted:
                return f"{seat.name} is being evicted for {target}"
            if target in evict or evicted & evict:
                return f"the swap to {target} is under way"
        blocked_by = (closed or {}).get(ticket.service)
        if blocked_by is not None and ticket.number > blocked_by:
            return "a request that waited too long goes first"
        for name in sorted(evict):
            other = self.seats[name]
            if other.is_pinned:
                return f"{name} is pinned"
            if other.granted:
                return f"{name} has {other.granted} requests in flight"
            stays = other.ready_at + self.limits.min_residency_s
            is_young = other.phase == "ready" and now < stays
            if is_young and now - ticket.since < self.limits.max_wait_s:
                return f"{name} stays for another {stays - now:.1f} s"
        return ""

    def _closed(self, now: float) -> dict[str, int]:
        """Services that get no new requests -> number of the overdue request they block."""
        closed: dict[str, int] = {}
        for ticket in self.queue:
            if now - ticket.since >= self.limits.max_wait_s:
                for name in self._must_go(ticket.service):
                    closed.setdefault(name, ticket.number)
        return closed

    def _open_seats(self, closed: Iterable[str]) -> None:
        shut = {*closed, *(name for evicted in self.swaps.values() for name in evicted)}
        queued = {ticket.service for ticket in self.queue}
        for seat in self.seats.values():
            seat.is_open = (
                seat.phase == "ready"
                and seat.name not in shut
                and seat.name not in queued
                and not self._must_go(seat.name)
            )
