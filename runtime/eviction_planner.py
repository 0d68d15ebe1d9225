"""Eviction planner: which services hold resources, and which must be evicted for which.

A *swap* is under way while services are being evicted for a target. Two swaps run side by side
when they have no service in common. The eviction policy is asked once for each target and set
of running services, and its result is cached. With a memory ledger, memory is a further condition
for each start: what goes is the union of what the policy and the memory plan evict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from .memory import Plan
from .memory_ledger import MemoryLedger
from .scheduling import (
    HOLDING,
    REJECTING,
    EvictionCause,
    EvictionPolicy,
    Phase,
    QueuedRequest,
    QueueLimits,
    ServiceEntry,
)

_Swaps: TypeAlias = dict[str, frozenset[str]]


class EvictionPlanner:
    """The services that hold resources, the swaps under way, and the eviction policy.

    Args:
        policy: Returns the services to evict for a target.
        services: Entries of all services, by name; shared with the scheduler.
        memory: Claims on memory; None means that memory is no condition.

    Attributes:
        memory: Claims on memory, or None.
        policy: May be replaced at any time.
        holding: Entries of the services that hold resources, by name.
        swaps: Target -> services that are being evicted for it.
        evictions: (service, cause) -> number of evictions.
    """

    __slots__ = (
        "_cached_policy", "_evictions", "_running", "_services", "evictions", "holding", "memory",
        "policy", "swaps",
    )  # fmt: skip

    def __init__(
        self, policy: EvictionPolicy, services: Mapping[str, ServiceEntry],
        memory: MemoryLedger | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.memory = policy, memory
        if memory is not None:
            memory.attach(services)
        self.holding: dict[str, ServiceEntry] = {}
        self.swaps: _Swaps = {}
        self.evictions: Counter[tuple[str, EvictionCause]] = Counter()
        self._services = services
        self._running: frozenset[str] | None = None  # None: to be computed anew
        self._evictions: _Swaps = {}  # target -> result of ...
        self._cached_policy: EvictionPolicy | None = None  # ... this policy for that running set

    # ---- services that hold resources
    def running(self) -> frozenset[str]:
        """Return the services that hold resources, or are about to."""
        if self._running is None:
            self._running = frozenset((*self.holding, *self.swaps))
            self._cached_policy = None
        return self._running

    def set_phase(self, entry: ServiceEntry, phase: Phase) -> None:
        """Move *entry* to *phase*; it is closed to the hot path until the next decision."""
        if self.memory is not None and entry.need is not None:
            self.memory.phase_changed(entry, phase)
        entry.phase = phase
        entry.is_open = False
        if (phase in HOLDING) != (entry.name in self.holding):
            self._running = None
            if phase in HOLDING:
                self.holding[entry.name] = entry
            else:
                del self.holding[entry.name]

    # ---- results of the policy
    def evictions_for(self, target: str) -> frozenset[str]:
        """Return the services to evict before *target* may run."""
        if self._services[target].phase in REJECTING:
            return frozenset()  # it rejects the request, so nothing needs to be evicted for it
        running = self.running()
        if self._cached_policy is not self.policy:
            self._cached_policy = self.policy
            self._evictions.clear()
        found = self._evictions.get(target)
        if found is None:
            found = self._evictions[target] = self.policy(target, running) & running - {target}
        return found

    def rivals_of(self, service: str) -> frozenset[str]:
        """Return the running services that *service* may not run beside."""
        return self.policy(service, self.running()) & self.running() - {service}

    def excludes(self, one: str, other: str) -> bool:
        """Return True if starting either service evicts the other."""
        if one == other:
            return False
        beside = self.running() - {one, other}
        return other in self.policy(one, beside | {other}) or one in self.policy(
            other, beside | {one}
        )

    # ---- memory
    def begin_round(self) -> None:
        """Make memory plans anew: services may have changed since the last decisions."""
        if self.memory is not None:
            self.memory.begin_round()

    def with_memory(
        self, request: QueuedRequest, evict: frozenset[str], now: float, limits: QueueLimits,
        overdue: Mapping[str, int],
    ) -> tuple[frozenset[str], Plan | None]:  # fmt: skip
        """Return what to evict for *request* by policy and memory, and the memory plan.

        The plan is None where memory is no condition: the service holds its memory already.

        Args:
            request: A request that needs its service to run.
            evict: Services that the eviction policy evicts for it.
            now: Time in seconds.
            limits: Limits of the queue.
            overdue: Service -> number of its first overdue request.
        """
        memory, entry = self.memory, self._services[request.service]
        if memory is None or entry.need is None:
            return evict, None
        if entry.name in self.swaps:
            return evict, None
        if entry.phase in HOLDING:
            if entry.phase != "stopping" or entry.ending == "stuck":  # that one is rejected
                return evict, None
            if memory.covers(entry) or not memory.decides:
                return evict, None
            # It was evicted or stopped while it slept, so it holds too little to start again.
            why = f"{entry.name} must have stopped"
            return evict, Plan(kind="wait", place={}, waits_for=(entry.name,), why=why)
        plan = memory.plan(
            entry, now, min_residency_s=limits.min_residency_s, gone=evict,
            ahead=self._needs_ahead(request, now, limits, overdue),
            is_overdue=now >= request.since + limits.max_wait_s,
        )  # fmt: skip
        if plan is not None and plan.kind == "evict":
            evict |= frozenset(plan.evict)
        return evict, plan

    def _needs_ahead(
        self, request: QueuedRequest, now: float, limits: QueueLimits, overdue: Mapping[str, int]
    ) -> dict[str, int]:
        """Return the bytes by pool that overdue requests before *request* need."""
        assert self.memory is not None
        ahead: dict[str, int] = {}
        for name, first in overdue.items():
            other = self._services[name]
            if first >= request.number or name == request.service or name in self.swaps:
                continue
            if other.phase in HOLDING or not self._is_making_room(other, now, limits):
                continue
            for pool, amount in self.memory.needs(other).items():
                more = max(amount - other.claim.get(pool, 0), 0)  # a sleeping one holds some
                ahead[pool] = ahead.get(pool, 0) + more
        return ahead

    def _is_making_room(self, entry: ServiceEntry, now: float, limits: QueueLimits) -> bool:
        """Return True if an overdue request for *entry* waits for services, not other programs."""
        plan = self._overdue_plan(entry, now, limits)
        return plan is not None and (plan.kind != "wait" or bool(plan.waits_for or plan.evict))

    def _overdue_plan(self, entry: ServiceEntry, now: float, limits: QueueLimits) -> Plan | None:
        assert self.memory is not None
        return self.memory.plan(entry, now, min_residency_s=limits.min_residency_s, is_overdue=True)

    def blocks(self, overdue: str, other: str, now: float, limits: QueueLimits) -> bool:
        """Return True if an overdue request for one service must have *other* gone first."""
        if overdue == other:
            return False
        if self.excludes(overdue, other):
            return True
        entry = self._services[overdue]
        if self.memory is None or entry.need is None or entry.phase in HOLDING:
            return False
        plan = self._overdue_plan(entry, now, limits)
        return plan is not None and (other in plan.evict or other in plan.waits_for)

    # ---- swaps
    def begin_swap(self, target: str, evicted: frozenset[str], plan: Plan | None) -> None:
        """Record that *evicted* are being evicted for *target* by *plan*, and count them."""
        by_rule = self.evictions_for(target)
        for name in evicted:
            if self._services[name].phase in ("starting", "ready", "asleep"):  # not one that stops
                self.evictions[name, "rule" if name in by_rule else "memory"] += 1
        self.swaps[target] = evicted
        self._running = None
        if self.memory is not None and plan is not None:
            self.memory.reserve(target, plan.place)

    def cancel_swap(self, target: str) -> None:
        """Forget the swap to *target*, if any: evicted services stop, but nothing starts."""
        if target in self.swaps:
            del self.swaps[target]
            self._running = None
            if self.memory is not None:
                self.memory.cancel(target)

    def cancel_evictions_of(self, service: str) -> None:
        """Forget all swaps that *service* was being evicted for: it holds its resources again."""
        for target, gone in list(self.swaps.items()):
            if service in gone:
                self.cancel_swap(target)

    def end_swaps(self) -> None:
        """End the swaps whose evicted services are all gone."""
        for target, evicted in list(self.swaps.items()):
            if evicted.isdisjoint(self.holding):
                self.cancel_swap(target)

    def leaving(self) -> set[str]:
        """Return the services that are being evicted."""
        return {name for evicted in self.swaps.values() for name in evicted}

    def conflict(self, service: str, evict: frozenset[str]) -> str:
        """Return the swap that a swap to *service* has to wait for, in words; else empty."""
        if service in self.swaps:
            return f"evicting {', '.join(sorted(self.swaps[service]))}"
        for target, evicted in self.swaps.items():
            if service in evicted:
                return f"{service} is being evicted for {target}"
            if target in evict or evicted & evict:
                return f"the swap to {target} is under way"
        return ""
