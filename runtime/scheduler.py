"""Scheduler: decides which request is admitted next and which services are evicted for it.

A request for a running service is granted at once. For any other service, the eviction planner
names the services that must go first. If these are idle a *swap* begins, else the request waits
in one queue, ordered by priority and arrival. Two swaps run side by side if they have no service
in common.

No request starves: once a request has waited *max_wait_s*, no later one for a service that
excludes its own is granted before it, whatever their priorities. Where a concurrency limit makes
requests wait for one service, clients take turns.

The scheduler is pure: time is an argument, decisions are the result. `RequestQueue` keeps the
order, `EvictionPlanner` the running services and the swaps; the grant is decided here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from .arguments import require_function, require_kind
from .errors import RequestError
from .eviction_planner import EvictionPlanner
from .memory import MemoryNeed, Plan
from .memory_ledger import MemoryLedger
from .request_queue import RequestQueue
from .request_wait import RequestWait
from .scheduling import (
    HOLDING,
    Decision,
    Ending,
    Evict,
    EvictionPolicy,
    Grant,
    Phase,
    QueuedRequest,
    QueueLimits,
    Refuse,
    ServiceEntry,
    one_at_a_time,
)
from .waiter import PendingRequest


class Scheduler:
    """Decides for all services of a supervisor.

    Args:
        policy: Returns the services to evict for a target.
        limits: Limits of the queue.
        memory: Claims on memory; None means that memory is no condition.

    Attributes:
        limits: Limits of the queue; may be replaced.
        services: Entry of every service, by name.
        queue: Requests that wait, in order.
        is_paused: No request is granted and no service evicted for now.
        evictions: (service, cause) -> number of evictions.
    """

    __slots__ = (
        "_numbers", "_planner", "_requests", "evictions", "is_paused", "limits", "queue",
        "services",
    )  # fmt: skip

    def __init__(
        self, policy: EvictionPolicy = one_at_a_time, limits: QueueLimits | None = None,
        memory: MemoryLedger | None = None,
    ) -> None:  # fmt: skip
        self.limits = _checked(policy, limits, memory)
        self.services: dict[str, ServiceEntry] = {}
        self._requests = RequestQueue(self.services)
        self.queue: list[QueuedRequest] = self._requests.requests
        self._planner = EvictionPlanner(policy, self.services, memory)
        self.is_paused = False
        self.evictions = self._planner.evictions
        self._numbers = itertools.count()

    @property
    def policy(self) -> EvictionPolicy:
        """Policy that names the services to evict for a target; may be replaced."""
        return self._planner.policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        self._planner.policy = policy

    @property
    def memory(self) -> MemoryLedger | None:
        """Claims on memory; None means that memory is no condition."""
        return self._planner.memory

    @property
    def swaps(self) -> Mapping[str, frozenset[str]]:
        """Target -> services that are being evicted for it and are not gone yet."""
        return self._planner.swaps

    # ---- events
    def add(
        self, name: str, *, limit: int | None = None, is_pinned: bool = False,
        need: MemoryNeed | None = None,
    ) -> ServiceEntry:  # fmt: skip
        """Add *name*, or change its limits."""
        entry = self.services.get(name)
        if entry is None:
            entry = self.services[name] = ServiceEntry(name)
        entry.limit, entry.is_pinned = limit, is_pinned
        if self.memory is not None:
            self.memory.adopt(entry, need)
        return entry

    def remove(self, name: str, now: float) -> list[Decision]:
        """Remove *name*, which must have stopped; its queued requests are refused."""
        error = RequestError("model_removed", f"{name} was removed")
        decisions: list[Decision] = [
            self._refuse(request, error) for request in self._requests.of(name)
        ]
        entry = self.services[name]
        self._planner.set_phase(entry, "stopped")
        if self.memory is not None:
            self.memory.adopt(entry, None)
        del self.services[name]
        return decisions + self._drain(now)

    def submit(
        self, service: str, waiter: PendingRequest, now: float, *, priority: int = 0,
        client: str = "", may_start: bool = True, wait: RequestWait | None = None,
    ) -> tuple[QueuedRequest, list[Decision]]:  # fmt: skip
        """Grant, queue or refuse a new request for *service*."""
        number = next(self._numbers)
        request = QueuedRequest(
            service, waiter, priority, now, number, client, may_start, wait=wait or RequestWait()
        )
        entry = self.services[service]
        if not entry.has_room and entry.phase == "ready":
            return request, [Refuse(request, _too_many())]
        self._planner.begin_round()
        overdue = self._overdue(now)
        waiting = len(self.queue)
        self._requests.add(request)
        decisions = self._advance(request, now, overdue, may_wait=waiting < self.limits.length)
        self._open_ready(overdue, now)
        self._requests.take_turns()
        return request, decisions

    def cancel(self, request: QueuedRequest, now: float) -> list[Decision]:
        """Remove *request* from the queue; a no-op if it is not queued."""
        if not request.is_queued:
            return []
        self._dequeue(request)
        return self._drain(now)

    def requeue(self, request: QueuedRequest) -> None:
        """Put a request that was granted but not admitted back into its old place."""
        self.services[request.service].granted -= 1
        request.was_granted = False
        self._requests.add(request)
        self._requests.take_turns()

    def clear(self, service: str | None = None) -> list[QueuedRequest]:
        """Remove and return the queued requests for *service*, or all; the caller refuses them.

        The next decision, such as a `tick`, grants what becomes free.
        """
        removed = self._requests.of(service)
        for request in removed:
            self._dequeue(request)
        self._requests.take_turns()
        return removed

    def finished(self, service: str, now: float) -> list[Decision]:
        """Count a granted request of *service* as ended or as refused by its lifecycle."""
        entry = self.services.get(service)
        if entry is None:
            return []
        assert entry.granted > 0, f"{service}: more requests ended than were granted"
        entry.granted -= 1
        if not entry.granted:
            entry.used_at = now
        if self.queue and (entry.granted == 0 or entry.limit is not None):
            return self._drain(now)
        return []

    def phase_changed(
        self, service: str, phase: Phase, now: float, ending: Ending = "stop"
    ) -> list[Decision]:
        """Take the new phase of the lifecycle of *service*, and how it ends."""
        entry = self.services[service]
        before = entry.phase
        if phase == before and ending == entry.ending:
            return []
        entry.ending = ending
        if ending == "stuck":
            self._planner.cancel_evictions_of(service)  # its resources do not come free
        if phase == before:
            return self._drain(now)
        if phase == "ready":
            entry.used_at = now
            if before == "starting":
                entry.note_start(now - entry.starting_at)
        elif phase == "starting":
            entry.starting_at = now
        planner = self._planner
        planner.set_phase(entry, phase)
        if before == "stopping" and phase in HOLDING:  # the stop was refused or overtaken
            planner.cancel_evictions_of(service)
            if not entry.granted and (rivals := planner.rivals_of(service)):
                # While it slept or was dead its resources were given to another service.
                return [Evict(service, min(rivals))]
        return self._drain(now)

    def tick(self, now: float) -> list[Decision]:
        """Refuse requests that have waited too long, and decide again on the others."""
        timeout = self.limits.timeout_s
        decisions: list[Decision] = []
        if timeout is not None:
            for request in [r for r in self.queue if now >= r.since + timeout]:
                error = RequestError(
                    "queue_timeout", f"waited {timeout:g} s: {request.why}", retry_after_s=5.0
                )
                decisions.append(self._refuse(request, error))
        return decisions + self._drain(now)

    def next_tick(self, now: float) -> float | None:
        """Return the time in seconds when `tick` has something to do, or None."""
        if not self.queue:
            return None
        limits, holding = self.limits, self._planner.holding
        times = [request.since + limits.max_wait_s for request in self.queue]
        times += [entry.stays_until(limits.min_residency_s) for entry in holding.values()]
        times = [at for at in times if at > now]
        if limits.timeout_s is not None:
            times.append(min(request.since for request in self.queue) + limits.timeout_s)
        return min(times, default=None)

    # ---- queries
    def running(self) -> frozenset[str]:
        """Return the services that hold resources, or are about to."""
        return self._planner.running()

    def explain(self, service: str, now: float) -> tuple[frozenset[str], str, RequestError | None]:
        """Return what `submit` would decide on a request for *service*.

        Returns:
            The services that it would evict, why it would wait (empty if it would not), and the
            error with which it would be refused. A phase in which the lifecycle itself refuses
            requests (`ServiceEntry.is_rejecting`) is not among these errors.
        """
        entry = self.services[service]
        if not entry.has_room and entry.phase == "ready":
            return frozenset(), "", _too_many()
        self._planner.begin_round()
        evict = self._planner.evictions_for(service)
        if (error := self._pinned_rival(service, evict)) is not None:
            return frozenset(), "", error
        request = QueuedRequest(service, PendingRequest(), 0, now, next(self._numbers))
        overdue = self._overdue(now)
        evict, plan = self._planner.with_memory(request, evict, now, self.limits, overdue)
        if plan is not None and plan.kind == "refuse":
            return frozenset(), "", _no_memory(service, plan)
        why = self._obstacle(request, evict, plan, now, overdue)
        if (why or evict) and len(self.queue) >= self.limits.length:
            return frozenset(), "", self._queue_full()
        return evict, why, None

    # ---- decisions
    def _drain(self, now: float) -> list[Decision]:
        if self.is_paused:
            return []
        self._planner.begin_round()
        self._planner.end_swaps()
        overdue = self._overdue(now)
        decisions: list[Decision] = []
        self._requests.take_turns()
        for request in list(self.queue):
            if request.is_queued:
                decisions += self._advance(request, now, overdue)
        self._open_ready(overdue, now)
        self._requests.take_turns()
        return decisions

    def _advance(
        self, request: QueuedRequest, now: float, overdue: Mapping[str, int], *,
        may_wait: bool = True,
    ) -> list[Decision]:  # fmt: skip
        """Grant *request*, begin a swap for it, refuse it, or record why it waits."""
        entry = self.services[request.service]
        if not request.may_start and entry.phase != "ready":
            return [self._refuse(request, _not_loaded(entry))]
        if entry.is_rejecting:
            return [self._refuse(request, None)]  # by the lifecycle's present error: it may move on
        evict = self._planner.evictions_for(entry.name)
        if evict and (error := self._pinned_rival(entry.name, evict)) is not None:
            return [self._refuse(request, error)]
        evict, plan = self._planner.with_memory(request, evict, now, self.limits, overdue)
        if plan is not None and plan.kind == "refuse":
            return [self._refuse(request, _no_memory(entry.name, plan))]
        request.explain(self._obstacle(request, evict, plan, now, overdue), now)
        if (request.why or evict) and not may_wait:
            return [self._refuse(request, self._queue_full())]
        if request.why:
            return []
        if evict:
            self._planner.begin_swap(entry.name, evict, plan)
            request.explain(f"evicting {', '.join(sorted(evict))}", now)
            return [Evict(name, entry.name) for name in sorted(evict)]
        grant = self._grant(request, entry, now)
        if self.memory is not None and plan is not None:
            self.memory.grant(entry, plan.place)
        return [grant]

    def _pinned_rival(self, service: str, evict: frozenset[str]) -> RequestError | None:
        """Return the error for a request that would evict a pinned service, or None."""
        for name in sorted(evict):
            if self.services[name].is_pinned and self.services[name].phase != "stopping":
                text = f"{service} cannot run beside {name}, which is pinned"
                return RequestError("pinned", text, can_retry=False)
        return None

    def _queue_full(self) -> RequestError:
        text = f"{self.limits.length} requests are waiting already"
        return RequestError("queue_full", text, retry_after_s=5.0)

    def _grant(self, request: QueuedRequest, entry: ServiceEntry, now: float) -> Grant:
        self._dequeue(request)
        entry.granted += 1
        if entry.limit is not None:
            self._requests.note_turn(request)
        if entry.phase in ("stopped", "asleep"):
            # The lifecycle will report this phase, but the next request of this loop needs it now.
            self._planner.set_phase(entry, "starting")
            entry.starting_at = now
        return Grant(request)

    def _refuse(self, request: QueuedRequest, error: RequestError | None) -> Refuse:
        self._dequeue(request)
        return Refuse(request, error)

    def _dequeue(self, request: QueuedRequest) -> None:
        self._requests.remove(request)
        service = request.service
        if service in self._planner.swaps and not self._requests.has_any_for(service):
            self._planner.cancel_swap(service)

    def _obstacle(
        self, request: QueuedRequest, evict: frozenset[str], plan: Plan | None, now: float,
        overdue: Mapping[str, int],
    ) -> str:  # fmt: skip
        """Return why *request* has to wait, in words; empty if it need not."""
        entry = self.services[request.service]
        if entry.blocked_reason:
            return entry.blocked_reason
        if not entry.has_room:
            return f"{entry.name} is at its concurrency limit of {entry.limit}"
        if conflict := self._planner.conflict(entry.name, evict):
            return conflict
        for name, number in overdue.items():
            if number < request.number and self._planner.blocks(name, entry.name, now, self.limits):
                return f"a request for {name} has waited too long and goes first"
        for name in sorted(evict):
            why = self._why_it_stays(self.services[name], request, now)
            if why:
                return why
        return plan.why if plan is not None and plan.kind == "wait" else ""

    def _why_it_stays(self, other: ServiceEntry, request: QueuedRequest, now: float) -> str:
        """Return why *other* cannot be evicted for *request*, in words; else empty."""
        if other.granted:
            return f"{other.name} has {other.granted} requests in flight"
        if other.is_pinned:
            return f"{other.name} is pinned, and already stopping"
        stays_until = other.stays_until(self.limits.min_residency_s)
        is_overdue = now >= request.since + self.limits.max_wait_s
        if other.phase == "ready" and now < stays_until and not is_overdue:
            return f"{other.name} stays for another {stays_until - now:.1f} s"
        return ""

    def _overdue(self, now: float) -> dict[str, int]:
        return self._requests.overdue(now, self.limits.max_wait_s)

    def _open_ready(self, overdue: Iterable[str], now: float) -> None:
        """Open the hot path of each service that no other request has a claim on."""
        planner = self._planner
        leaving = planner.leaving()
        queued = {request.service for request in self.queue}
        for entry in planner.holding.values():
            entry.is_open = (
                entry.phase == "ready"
                and not entry.blocked_reason
                and entry.name not in leaving
                and entry.name not in queued
                and not planner.evictions_for(entry.name)
                and not any(planner.blocks(name, entry.name, now, self.limits) for name in overdue)
            )


def _no_memory(service: str, plan: Plan) -> RequestError:
    text = f"{service} does not fit: {plan.why}"
    return RequestError("memory_infeasible", text, can_retry=False)


def _not_loaded(entry: ServiceEntry) -> RequestError:
    return RequestError("model_not_loaded", f"{entry.name} is not loaded ({entry.phase})")


def _too_many() -> RequestError:
    return RequestError(
        "concurrency_limit", "Too many requests", status_hint=429, retry_after_s=1.0
    )


def _checked(
    policy: EvictionPolicy, limits: QueueLimits | None, memory: MemoryLedger | None
) -> QueueLimits:
    """Check the arguments of a scheduler and return its limits."""
    require_function("policy", policy)
    require_kind("limits", limits, QueueLimits, "QueueLimits", or_none=True)
    require_kind("memory", memory, MemoryLedger, "a MemoryLedger", or_none=True)
    return limits or QueueLimits()
