"""Memory ledger: which service was granted how much memory, and what the next start needs.

A claim begins with the grant, or with the swap that makes room for it, and ends when the service
has stopped. A service that sleeps holds the smaller amount of its specification. The ledger is
part of the scheduler and as pure: readings are handed in, plans are the result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

from .arguments import require_items, require_kind, require_mapping
from .lost_claims import LostClaims
from .memory import Amounts, Holder, MemoryNeed, Plan, Pool, Rules, Wanted, explain_sum, plan
from .memory_failures import MemoryFailures
from .memory_learning import MemoryLearning
from .placement import Device, placed
from .ports import Command, PoolReading
from .scheduling import HOLDING, Phase, ServiceEntry
from .yield_rules import YieldRule

_HolderPhase: TypeAlias = Literal["starting", "ready", "stopping", "asleep", "reviving"]
_PlanKey: TypeAlias = tuple[str, float, float, frozenset[str], bool, tuple[tuple[str, int], ...]]
_NOTHING: Amounts = {}


class MemoryLedger:
    """Claims of all services on memory pools; given to the supervisor.

    Args:
        pools: The pools of the machine.
        rules: Rules of the decision.
        devices: Pool -> its GPU, for pools that a meter reads by device.
        learning: What earlier runs of the services have shown; None begins with nothing.
        failures: Earlier ends because memory ran out; None sees only kills by the kernel.

    Attributes:
        failures: Ends of services because memory ran out, and the claims raised for them.
        learning: What the runs of the services show; it decides on needs that are not declared.
        pools: Pools by name; replaced by each reading.
        devices: Pool -> its GPU, in the order of their numbers.
        rules: Rules of the decision; may be replaced.
        services: Entries of all services, by name.
        decides: The plans are followed; else they are only shown.
        evicts_under_pressure: Idle services are evicted if more is held than a budget.
        plan_counts: Number of plans that were made, by kind.
        lost: Claims of processes that may still run on a node that was lost.
        yield_rules: Rules by which services leave memory to other programs; may be replaced.
    """

    def __init__(
        self, pools: Iterable[Pool] = (), rules: Rules | None = None,
        devices: Mapping[str, Device] = MappingProxyType({}),
        learning: MemoryLearning | None = None, failures: MemoryFailures | None = None,
    ) -> None:  # fmt: skip
        pools = list(require_items("pools", pools, Pool))
        require_kind("rules", rules, Rules, "Rules", or_none=True)
        require_mapping("devices", devices, "a mapping of pools to devices")
        for name, device in devices.items():
            require_kind(f"devices.{name}", device, Device, "a Device")
        require_kind("learning", learning, MemoryLearning, "a MemoryLearning", or_none=True)
        require_kind("failures", failures, MemoryFailures, "a MemoryFailures", or_none=True)
        self.learning = learning or MemoryLearning()
        self.failures = failures or MemoryFailures()
        self.decides = self.evicts_under_pressure = True
        self.plan_counts: Counter[str] = Counter()
        self.yield_rules: tuple[YieldRule, ...] = ()
        self._plans: dict[_PlanKey, Plan | None] = {}  # of this round of decisions
        self._reserved: dict[str, Amounts] = {}  # target of a swap -> what it was promised
        self.services: Mapping[str, ServiceEntry] = {}
        self.lost = LostClaims()
        self._failed: set[str] = set()  # services whose next start needs a new plan
        self.pools: dict[str, Pool] = {}
        self.configure(pools, rules or Rules(), devices)

    def configure(self, pools: Iterable[Pool], rules: Rules, devices: Mapping[str, Device]) -> None:
        """Replace pools and rules; what other programs hold of a pool, and take, is kept."""
        old, self.rules = self.pools, rules
        self.pools = {pool.name: _with_state_of(old.get(pool.name), pool) for pool in pools}
        self.devices = dict(devices)
        self._names = {device.id: name for name, device in devices.items() if device.id}

    def attach(self, services: Mapping[str, ServiceEntry]) -> None:
        """Use the entries of a scheduler."""
        self.services = services

    def name_of(self, reading: PoolReading) -> str:
        """Return the name of the pool that *reading* is of."""
        return self._names.get(reading.device, reading.name)

    def placed(self, service: str, command: Command) -> Command:
        """Return the command of *service* for a start at the place that it was granted."""
        entry = self.services.get(service)
        need = None if entry is None else entry.need
        is_told = self.decides and need is not None and not need.sets_devices
        claim = _NOTHING if entry is None else entry.claim
        return placed(command, claim, self.devices, sets_variables=is_told)

    # ---- claims
    def reserve(self, target: str, place: Amounts) -> None:
        """Hold *place* for the target of a swap until it is granted or the swap is canceled."""
        self.begin_round()
        self._reserved[target] = place

    def cancel(self, target: str) -> None:
        """Drop the reservation of *target*, if any."""
        self.begin_round()
        self._reserved.pop(target, None)

    def grant(self, entry: ServiceEntry, place: Amounts | None) -> None:
        """Give *place* to a service that starts; None takes its preferred place."""
        self.begin_round()
        self._reserved.pop(entry.name, None)
        entry.seen = _NOTHING  # what it held while it slept is no measure of what it holds now
        self.lost.keep(entry.name, entry.claim)
        entry.claim = self._preferred(entry) if place is None else place
        entry.free_before = {pool: self.free(pool) + amount for pool, amount in entry.claim.items()}
        self._failed.discard(entry.name)

    def phase_changed(self, entry: ServiceEntry, phase: Phase) -> None:
        """Adjust the claim of *entry* to its new phase."""
        self.begin_round()
        self.failures.note_phase(entry.name, phase, "" if entry.need is None else entry.need.key)
        if phase in HOLDING:
            if not entry.claim or (phase != "stopping" and not self.covers(entry)):
                self.grant(entry, None)  # it started without a request, or before its grant
        elif phase == "asleep":
            entry.claim = self._asleep(entry)
        else:
            self.lost.keep(entry.name, entry.claim)
            entry.claim = entry.seen = _NOTHING
            self._failed.discard(entry.name)
            self._refresh(entry)

    def note_lost(self, service: str, node: str) -> None:
        """Keep what *service* holds of the pools of *node* held when it has stopped."""
        self.lost.expect(service, node)

    def free_lost(self, node: str) -> None:
        """Give back what lost processes held of the pools of *node*."""
        self.begin_round()
        self.lost.free(node)

    def note_failure(self, entry: ServiceEntry) -> None:
        """Take that *entry* ran out of memory: its next start needs more, and a plan of its own."""
        self.begin_round()
        self._failed.add(entry.name)
        self._refresh(entry)

    def _refresh(self, entry: ServiceEntry) -> None:
        need = self.learning.need(entry.name)
        entry.need = None if need is None else self.failures.shortages.need(entry.name, need)

    def forget(self, entry: ServiceEntry) -> int:
        """Forget what was learned of *entry*, from its next start on; return its launches."""
        number = self.learning.forget(entry.name)
        self.failures.forget(entry.name)
        self._refresh(entry)
        return number

    def adopt(self, entry: ServiceEntry, need: MemoryNeed | None) -> None:
        """Make *need* the need of a service; a claim takes the new amounts of its place.

        Amounts that are not declared are replaced by what earlier runs have shown.
        """
        self.begin_round()
        self.learning.adopt(entry.name, need)
        self._refresh(entry)
        need = entry.need
        if need is None:
            entry.claim = entry.seen = _NOTHING
            self._reserved.pop(entry.name, None)
        elif entry.phase == "asleep":
            entry.claim = self._known(need.asleep)
        elif entry.phase in HOLDING and not (need.source == "unknown" and entry.claim):
            places = [place for option in need.options if (place := self._known(option))]
            kept = [place for place in places if place.keys() == entry.claim.keys()]
            kept += [place for place in places if place.keys() & entry.claim.keys()]
            entry.claim = next(iter([*kept, *places]), _NOTHING)

    def take_measured(self, entry: ServiceEntry, pools: Collection[str]) -> None:
        """Let *entry* hold what was learned in *pools* in place of a guess."""
        need = self.learning.need(entry.name)
        if need is None or need.source != "learned":
            return
        self.begin_round()
        entry.need = need
        kept = {pool: amount for pool, amount in entry.claim.items() if pool not in pools}
        entry.claim = {**kept, **self._preferred(entry)}

    def covers(self, entry: ServiceEntry) -> bool:
        """Return True if the claim of *entry* is enough for a start: it is not one of sleep."""
        need = entry.need
        if entry.name in self._failed:
            return False
        if need is None or need.source == "unknown":
            return need is None or entry.phase != "asleep"
        places = [self._known(option) for option in need.options]
        return not places or any(
            all(entry.claim.get(pool, 0) >= amount for pool, amount in place.items())
            for place in places
        )

    def begin_round(self) -> None:
        """Forget the plans that were made: something that they depend on may have changed."""
        self._plans.clear()

    def holders(self, now: float, min_residency_s: float) -> list[Holder]:
        """Return the services that hold memory, and those that a swap makes room for."""
        found = [
            _holder(entry, None, self._asleep(entry), entry.stays_until(min_residency_s))
            for entry in self.services.values()
            if entry.need is not None
            and entry.name not in self._reserved
            and (entry.claim or entry.seen)
        ]
        for name, place in self._reserved.items():
            entry = self.services[name]
            claim = {
                pool: max(place.get(pool, 0), entry.claim.get(pool, 0))
                for pool in {*place, *entry.claim}
            }
            found.append(replace(_holder(entry, claim, self._asleep(entry), now), phase="starting"))
        return found

    # ---- plans
    def plan(
        self, entry: ServiceEntry, now: float, *, min_residency_s: float = 0.0,
        gone: frozenset[str] = frozenset(), is_overdue: bool = False, ahead: Amounts = _NOTHING,
    ) -> Plan | None:  # fmt: skip
        """Return the plan for a start of *entry*; None if memory is no condition for it.

        Args:
            entry: The service.
            now: Time in seconds.
            min_residency_s: As `QueueLimits` has it.
            gone: Services that the eviction policy evicts; they count as stopping.
            is_overdue: A request for it is overdue.
            ahead: Bytes by pool that overdue requests before it need.
        """
        if not self.decides:
            return None
        key = entry.name, now, min_residency_s, gone, is_overdue, tuple(sorted(ahead.items()))
        if key not in self._plans:
            self._plans[key] = self._plan(entry, now, min_residency_s, gone, is_overdue, ahead)
        return self._plans[key]

    def _plan(
        self, entry: ServiceEntry, now: float, min_residency_s: float, gone: frozenset[str],
        is_overdue: bool, ahead: Amounts,
    ) -> Plan | None:  # fmt: skip
        wanted = self._wanted(entry, is_overdue=is_overdue, ahead=ahead)
        if wanted is None:
            return self.lost.plan(entry.name) if any(self._places(entry)) else None
        holders = [
            replace(holder, phase="stopping", keeps={}) if holder.name in gone else holder
            for holder in [*self.holders(now, min_residency_s), *self.lost.holders()]
        ]
        found = plan(self.pools, holders, wanted, now, self.rules)
        self.plan_counts[found.kind] += 1
        if found.kind == "wait" and gone and found.waits_for and gone.issuperset(found.waits_for):
            return replace(found, kind="evict")  # what the policy evicts is enough
        return found

    def explain(self, entry: ServiceEntry, now: float, min_residency_s: float) -> list[str]:
        """Return the sum of the plan for *entry*, one amount a line; empty without a need."""
        wanted = self._wanted(entry, is_overdue=False, ahead=_NOTHING)
        if wanted is None:
            return []
        holders = [*self.holders(now, min_residency_s), *self.lost.holders()]
        found = plan(self.pools, holders, wanted, now, self.rules)
        lines = explain_sum(self.pools, holders, wanted, found, now)
        if entry.need is not None and entry.need.note:
            lines.append(f"{entry.need.source}: {entry.need.note}")
        return lines

    def needs(self, entry: ServiceEntry) -> Amounts:
        """Return what a start of *entry* needs at its preferred place; bytes by pool."""
        return self._preferred(entry)

    def free(self, name: str) -> int:
        """Return the free bytes of pool *name*; negative if more is held than its budget."""
        return self.pools[name].available - self.held(name)

    def excess(self, name: str) -> int:
        """Return the bytes of pool *name* that are held beyond what it has; <= 0 if there are none.

        A claim that is a guess, or all that was left, is no use of memory: only what was measured
        of such a service counts.
        """
        held = sum(
            max(_sure_claim(entry).get(name, 0), entry.seen.get(name, 0))
            for entry in self.services.values()
        )
        return held - self.pools[name].room

    def held(self, name: str) -> int:
        """Return the bytes of pool *name* that services hold."""
        return self.lost.held(name) + sum(
            max(_claim_of(entry, self._asleep(entry)).get(name, 0), entry.seen.get(name, 0))
            for entry in self.services.values()
        )

    def missing_for_sleep(self, service: str) -> dict[str, int]:
        """Return the bytes by pool that are missing for *service* to go to sleep.

        It holds both amounts meanwhile, since its server copies from one pool to the other.
        """
        entry = self.services.get(service)
        if not self.decides or entry is None or entry.need is None:
            return {}
        more = {
            pool: amount - max(entry.claim.get(pool, 0), entry.seen.get(pool, 0))
            for pool, amount in self._asleep(entry).items()
        }
        return {
            pool: amount - self.free(pool)
            for pool, amount in more.items()
            if amount > max(self.free(pool), 0)
        }

    def leave(self, name: str, keep: int | None, because: str = "") -> bool:
        """Let services hold at most *keep* bytes of pool *name*; None ends this.

        Args:
            name: Name of the pool.
            keep: Maximum number of bytes.
            because: Why the pool is left to other programs, in words.

        Returns:
            True if that is a change.
        """
        old = self.pools[name]
        if (old.keep, old.left_because) == (keep, because):
            return False
        self.pools[name] = replace(old, keep=keep, left_because=because)
        self.begin_round()
        return True

    def add_foreign(self, pool: str, amount: int) -> None:
        """Count *amount* more bytes of *pool* as held by other programs, until the next reading."""
        old = self.pools[pool]
        self.pools[pool] = replace(old, foreign=old.foreign + amount)

    def _wanted(self, entry: ServiceEntry, *, is_overdue: bool, ahead: Amounts) -> Wanted | None:
        need = entry.need
        if need is None:
            return None
        options = self._options(entry)
        if not options:
            return None
        return Wanted(
            name=entry.name, options=options, source=need.source, is_overdue=is_overdue,
            ahead=ahead,
        )  # fmt: skip

    def _asleep(self, entry: ServiceEntry) -> Amounts:
        return _NOTHING if entry.need is None else self._known(entry.need.asleep)

    def _preferred(self, entry: ServiceEntry) -> Amounts:
        places = self._places(entry)
        return next((p for p in places if self.lost.allows(entry.name, p)), places[0])

    def _options(self, entry: ServiceEntry) -> tuple[Amounts, ...]:
        """Return the places of *entry*, without those on nodes where it may still run."""
        return tuple(p for p in self._places(entry) if p and self.lost.allows(entry.name, p))

    def _places(self, entry: ServiceEntry) -> list[Amounts]:
        need = entry.need
        return [self._known(each) for each in need.options] if need and need.options else [_NOTHING]

    def _known(self, amounts: Amounts) -> dict[str, int]:
        """Return *amounts* without the pools that do not exist."""
        return {pool: amount for pool, amount in amounts.items() if pool in self.pools}


def _with_state_of(old: Pool | None, pool: Pool) -> Pool:
    """Return *pool* with what is known of other programs from *old*, the same pool before."""
    if old is None:
        return pool
    return replace(pool, foreign=old.foreign, keep=old.keep, left_because=old.left_because)


def _sure_claim(entry: ServiceEntry) -> Amounts:
    """Return the claim of a service, or nothing if its amount is a guess."""
    need = entry.need
    return _NOTHING if need is None or need.source in ("unknown", "estimated") else entry.claim


def _holder(
    entry: ServiceEntry, claim: Amounts | None, asleep: Amounts, stays_until: float
) -> Holder:
    """Return *entry* as a holder of *claim*, or of its own; it holds *asleep* while it sleeps."""
    need = entry.need
    assert need is not None, "only services with a need hold memory"
    return Holder(
        name=entry.name, phase=cast("_HolderPhase", entry.phase),
        claim=_claim_of(entry, asleep) if claim is None else claim,
        seen=entry.seen, source=need.source, granted=entry.granted,
        keeps=asleep if entry.ending == "sleep" else _NOTHING,
        is_stuck=entry.ending == "stuck",
        is_pinned=entry.is_pinned, used_at=entry.used_at, stays_until=stays_until,
        load_s=entry.load_s, at_risk_s=entry.at_risk_s, weight=need.weight,
        ready_at=entry.starting_at + entry.start_s if entry.starts_s else -math.inf,
    )  # fmt: skip


def _claim_of(entry: ServiceEntry, asleep: Amounts) -> Amounts:
    """Return what *entry* was granted; both amounts of one that is going to sleep."""
    if entry.ending != "sleep" or entry.need is None or not entry.need.asleep:
        return entry.claim
    return {
        pool: max(entry.claim.get(pool, 0), asleep.get(pool, 0))
        for pool in {**entry.claim, **asleep}
    }
