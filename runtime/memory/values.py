"""Values of the memory decision: pools, holders, what a service wants, and the plan for it.

All amounts are bytes, by name of the pool. An amount of 0 or an absent pool means that the pool is
not a condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from ...dataclass import dataclass, field

#: Pool -> bytes, >= 0.
Amounts: TypeAlias = Mapping[str, int]
#: Origin of an amount, the most reliable first.
Source: TypeAlias = Literal["declared", "learned", "estimated", "unknown"]
#: start: there is room. evict: there is room once `Plan.evict` are gone. wait: nothing can be done
#: now. refuse: there can never be room.
PlanKind: TypeAlias = Literal["start", "evict", "wait", "refuse"]

NOTHING: Amounts = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One memory that services share, such as that of a GPU.

    Attributes:
        name: Name, such as ``GPU0`` or ``RAM``.
        capacity: Size in bytes.
        reserve: Bytes of it that are never given to services.
        limit: Maximum number of bytes that services may hold; None means that only the reserve
            and other programs limit them.
        foreign: Bytes that other programs hold, by the last reading.
        keep: Maximum number of bytes that services may hold while the pool is left to other
            programs; None while it is not.
        left_because: Why it is left to other programs, in words; empty while it is not.
    """

    name: str
    capacity: int
    reserve: int = 0
    limit: int | None = None
    foreign: int = 0
    keep: int | None = None
    left_because: str = ""

    @property
    def budget(self) -> int:
        """Bytes that services could hold if there were no other programs, >= 0."""
        most = self.capacity - self.reserve
        return max(most if self.limit is None else min(most, self.limit), 0)

    @property
    def room(self) -> int:
        """Bytes that services can hold beside other programs; negative if those use the reserve."""
        left = self.capacity - self.reserve - self.foreign
        return left if self.limit is None else min(left, self.limit)

    @property
    def available(self) -> int:
        """Bytes that services may hold: no more than `keep` while it is left to other programs."""
        return self.room if self.keep is None else min(self.room, self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A service that holds memory, or is about to.

    Attributes:
        name: Name of the service.
        phase: What it does; a ``reviving`` one restarts by itself.
        claim: Bytes that it was granted, held from the grant until it has settled.
        seen: Bytes that it was measured to hold.
        keeps: Bytes that it holds still when its stop has ended, because it goes to sleep.
        is_stuck: It stops, and its process cannot be killed, so nothing of it comes back.
        source: Origin of the claim.
        granted: Number of its requests that wait for its start or are in flight.
        is_pinned: It is never evicted.
        used_at: Time of its last use in seconds.
        ready_at: Time in seconds when it last became ready.
        stays_until: Time in seconds until which it is kept for its next request, unless the
            request that needs its memory is overdue.
        load_s: Time in seconds that its start takes.
        at_risk_s: Time in seconds to compute again what an eviction loses.
        weight: Factor of its cost of eviction, > 0.
    """

    name: str
    phase: Literal["starting", "ready", "stopping", "asleep", "reviving"] = "ready"
    claim: Amounts = field(default_factory=dict)
    seen: Amounts = field(default_factory=dict)
    keeps: Amounts = field(default_factory=dict)
    is_stuck: bool = False
    source: Source = "declared"
    granted: int = 0
    is_pinned: bool = False
    used_at: float = 0.0
    ready_at: float = -math.inf
    stays_until: float = 0.0
    load_s: float = 1.0
    at_risk_s: float = 0.0
    weight: float = 1.0

    def holds(self, pool: str) -> int:
        """Return the bytes of *pool* that it holds: never less than granted, nor than seen."""
        return max(self.claim.get(pool, 0), self.seen.get(pool, 0))

    def frees(self, pool: str) -> int:
        """Return the bytes of *pool* that come back by themselves, since it stops."""
        if self.phase != "stopping" or self.is_stuck:
            return 0
        return max(self.holds(pool) - self.keeps.get(pool, 0), 0)

    @property
    def can_go(self) -> bool:
        """True if an eviction, now or later, gives back more than its own stop does."""
        if self.phase == "stopping" and not any(self.keeps.values()):
            return False
        return not self.is_pinned

    def busy_reason(self, now: float, *, is_overdue: bool) -> str:
        """Return why it cannot be evicted at *now*, in words; empty if it can be."""
        if self.phase == "stopping" and any(self.keeps.values()):
            return f"{self.name} is going to sleep"
        if self.phase in ("starting", "reviving"):
            return f"{self.name} is starting"
        if self.granted:
            requests = "request" if self.granted == 1 else "requests"
            return f"{self.name} has {self.granted} {requests} in flight"
        if self.phase == "ready" and now < self.stays_until and not is_overdue:
            return f"{self.name} stays for another {self.stays_until - now:.1f} s"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """The memory that one service needs, as its specification says.

    Attributes:
        options: Places where it can run, the preferred one first: bytes by pool. Pools that do not
            exist are no condition.
        source: Origin of the amounts.
        asleep: Bytes by pool that it holds while it sleeps.
        weight: Factor of its cost of eviction, > 0.
        key: Identifies the launch, for what earlier runs have shown; empty learns nothing.
        estimated: Bytes by pool by arithmetic from its files and options; empty means unknown.
        note: Parts of that sum in words, or empty.
        is_elastic: The server takes what is free, so only runs that found the pool empty count.
        sets_devices: Its command says by itself which GPUs it uses, so it is not told its place.
        files: Bytes of the files of its model, over all pools; 0 means unknown.
        advice: Change of its command that saves memory, in words; empty if none is known.
    """

    options: tuple[Amounts, ...]
    source: Source = "declared"
    asleep: Amounts = field(default_factory=dict)
    weight: float = 1.0
    key: str = ""
    estimated: Amounts = field(default_factory=dict)
    note: str = ""
    is_elastic: bool = False
    sets_devices: bool = False
    files: int = 0
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A service that shall start or wake.

    Attributes:
        name: Name of the service.
        options: Places where it can run, the preferred one first: bytes by pool. Where the source
            is ``unknown`` only the pools count.
        source: Origin of the amounts.
        is_overdue: Its request has waited so long that no service is kept for its next request.
        ahead: Bytes that overdue requests before it need.
    """

    name: str
    options: tuple[Amounts, ...]
    source: Source = "declared"
    is_overdue: bool = False
    ahead: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps that are necessary before a service can start.

    Attributes:
        kind: What to do.
        place: Bytes by pool that it will be granted.
        evict: Services to evict, sorted. If `kind` is ``wait``, these must go later.
        waits_for: Services that must stop, finish their requests or start first, sorted.
        cost: Cost of the evictions, in seconds of loading per second of idle time.
        why: The sum and its consequence, in words.
        leftover: Bytes that stay free in the pools of `place`.
    """

    kind: PlanKind
    place: Amounts
    evict: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    cost: float = 0.0
    why: str = ""
    leftover: int = 0
