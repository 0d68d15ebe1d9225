"""The memory decision: whether a service fits, and if not, which services must go for it.

`plan` is pure: readings and claims come in, a plan goes out. Two rules hold for every plan. A
service holds at least what it was granted and at least what it was measured to hold, so memory
that a start has not taken yet or that a stop has not given back is never given away twice. And
only a declared amount can refuse a service: a learned or estimated one that does not fit leads to
a start alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ...dataclass import dataclass
from .cover import cover
from .sums import names_of, size, sum_in_words, with_sizes
from .values import Amounts, Holder, Plan, PlanKind, Pool, Wanted

#: (holder, now in seconds) -> cost of its eviction, >= 0.
CostFunction: TypeAlias = Callable[[Holder, float], float]

_ORDER: Mapping[PlanKind, int] = {"start": 0, "evict": 2, "wait": 3, "refuse": 4}
_WAIT_FOR_STOP = -1.0  # cost of waiting for what stops anyway: less than any eviction
_WAIT_FOR_OTHERS = 1e9  # cost of waiting for other programs: more than any eviction


def reload_cost(holder: Holder, now: float) -> float:
    """Return the seconds to bring *holder* back, per second for which nothing has used it."""
    idle_s = max(now - holder.used_at, 1.0)
    return holder.weight * (holder.load_s + holder.at_risk_s) / idle_s


def lru_cost(holder: Holder, now: float) -> float:
    """Return a cost that only the time since the last use decides."""
    return holder.weight / max(now - holder.used_at, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules of the memory decision.

    Attributes:
        cost: Cost of evicting a service.
        refuse_unknown: Refuse services of which nothing is known, instead of starting them alone.
    """

    cost: CostFunction = reload_cost
    refuse_unknown: bool = False


_RULES = Rules()


def plan(
    pools: Mapping[str, Pool], holders: Sequence[Holder], wanted: Wanted, now: float,
    rules: Rules = _RULES,
) -> Plan:  # fmt: skip
    """Return what has to happen before *wanted* can start.

    Args:
        pools: All pools, by name; each pool of an option of *wanted* is among them.
        holders: Services that hold memory. What *wanted* itself holds while it sleeps counts for
            it.
        wanted: The service to start.
        now: Time in seconds.
        rules: Rules of the decision.
    """
    if not wanted.options:
        return Plan(kind="refuse", place={}, why=f"{wanted.name} has no place to run")
    others = sorted((h for h in holders if h.name != wanted.name), key=lambda h: h.name)
    plans = [_Place(pools, others, wanted, place, now, rules).plan() for place in wanted.options]
    return min(plans, key=lambda found: (_ORDER[found.kind], found.cost, found.leftover))


class _Place:
    """The decision for one place where the service can run."""

    def __init__(
        self, pools: Mapping[str, Pool], others: Sequence[Holder], wanted: Wanted, place: Amounts,
        now: float, rules: Rules,
    ) -> None:  # fmt: skip
        self._pools, self._others, self._wanted, self._place = pools, others, wanted, place
        self._now, self._rules = now, rules
        self._free = {
            name: pools[name].available
            - sum(holder.holds(name) for holder in others)
            - wanted.ahead.get(name, 0)
            for name in place
        }
        self._sum = sum_in_words(pools, others, wanted, place, self._free)
        self._busy = {
            holder.name: reason
            for holder in others
            if (reason := holder.busy_reason(now, is_overdue=wanted.is_overdue))
        }

    def plan(self) -> Plan:
        """Return the plan for this place."""
        place, free, wanted = self._place, self._free, self._wanted
        if wanted.source == "unknown":
            if self._rules.refuse_unknown:
                why = f"nothing is known of the memory that {wanted.name} needs; set `memory`"
                return Plan(kind="refuse", place=place, why=why)
            if self._is_behind(place):
                return self._wait_behind()
            if reason := self._left_because(place):
                return self._wait(cost=_WAIT_FOR_OTHERS, why=f"{self._sum}: {reason}")
            return self._alone(f"{self._sum}; nothing is known of {wanted.name}")
        lack = {name: place[name] - free[name] for name in place if place[name] > free[name]}
        if not lack:
            leftover = sum(free[name] - place[name] for name in place)
            return Plan(kind="start", place=place, why=self._sum, leftover=leftover)
        return self._make_room(lack) or self._without_room(lack)

    def _make_room(self, lack: Amounts) -> Plan | None:
        """Return the plan by which others free *lack*; None if they cannot."""
        stopping = [h for h in self._others if any(h.frees(pool) for pool in lack)]
        rest = _less(lack, stopping)
        going = names_of(stopping)
        if not rest:
            why = f"{self._sum}: {', '.join(going)} must have stopped"
            return self._wait(waits_for=going, cost=_WAIT_FOR_STOP, why=why)
        staying = [_after_stop(h) for h in self._others if h.can_go]
        costs = self._costs(staying)
        found = cover(rest, [h for h in staying if h.name not in self._busy], costs)
        if found is not None:
            return Plan(
                kind="evict", place=self._place, evict=found, waits_for=going,
                cost=sum(costs[name] for name in found),
                why=f"{self._sum}: {with_sizes(found, staying, rest)} must go"
                f"{_stop_in_words(stopping)}",
            )  # fmt: skip
        found = cover(rest, staying, costs)
        if found is None:
            return None
        blockers = tuple(name for name in found if name in self._busy)
        reasons = "; ".join(self._busy[name] for name in blockers)
        why = f"{self._sum}: {with_sizes(found, staying, rest)} must go; {reasons}"
        cost = sum(costs[name] for name in found)
        return self._wait(evict=found, waits_for=blockers, cost=cost, why=why)

    def _without_room(self, lack: Amounts) -> Plan:
        """Return the plan where all evictions together do not free *lack*."""
        source = self._wanted.source
        if self._is_behind(lack):
            return self._wait_behind()
        if source == "declared" and (why := self._never_fits(lack)):
            return Plan(kind="refuse", place=self._place, why=f"{self._sum}: {why}")
        if reason := self._left_because(lack):
            return self._wait(cost=_WAIT_FOR_OTHERS, why=f"{self._sum}: {reason}")
        if source != "declared":
            return self._alone(f"{self._sum}; the {source} amount may be wrong")
        stuck = [h for h in self._others if h.is_stuck and _holds_any(h, lack)]
        why = f"{self._sum}: other programs must free memory"
        if stuck:
            why += f", or {', '.join(names_of(stuck))}, which cannot be stopped"
        return self._wait(cost=_WAIT_FOR_OTHERS, why=why)

    def _never_fits(self, lack: Amounts) -> str:
        """Return why the place can never have room, in words; empty if it can."""
        most = {
            name: self._pools[name].budget - sum(_stays(holder, name) for holder in self._others)
            for name in lack
        }
        short = [name for name in lack if self._place[name] > most[name]]
        if not short:
            return ""
        worst = max(short, key=lambda name: self._place[name] - most[name])
        return f"at most {size(max(most[worst], 0))} of {worst} can ever be free"

    def _left_because(self, pools: Iterable[str]) -> str:
        """Return why one of *pools* is left to other programs, in words; empty if none is."""
        return next(
            (self._pools[n].left_because for n in pools if self._pools[n].keep is not None), ""
        )

    def _is_behind(self, pools: Iterable[str]) -> bool:
        """Return True if overdue requests need memory of *pools*, and it can suffice later."""
        if not any(self._wanted.ahead.get(name, 0) for name in pools):
            return False
        return all(self._place[name] <= self._pools[name].budget for name in pools)

    def _wait_behind(self) -> Plan:
        return self._wait(cost=_WAIT_FOR_OTHERS, why=f"{self._sum}: overdue requests go first")

    def _alone(self, why: str) -> Plan:
        """Return the plan by which the service starts with all of the memory that can be freed."""
        near = [
            holder
            for holder in self._others
            if not (holder.is_pinned or holder.is_stuck) and _holds_any(holder, self._place)
        ]
        stopping = [holder for holder in near if not holder.can_go]
        going = [holder for holder in near if holder.can_go]
        left = {
            name: max(self._free[name] + sum(holder.holds(name) for holder in near), 0)
            for name in self._place
        }
        whole = self._wanted.source == "unknown"
        place = {n: left[n] if whole else min(self._place[n], left[n]) for n in self._place}
        if not near:
            return Plan(kind="start", place=place, why=why)
        names, costs = names_of(going), self._costs(going)
        cost = sum(costs.values())
        blockers = tuple(name for name in names if name in self._busy)
        if blockers:
            reasons = "; ".join(self._busy[name] for name in blockers)
            why = f"{why}; {', '.join(names)} must go; {reasons}"
            return self._wait(evict=names, waits_for=blockers, cost=cost, why=why)
        if not names:
            stops = names_of(stopping)
            why = f"{why}; {', '.join(stops)} must have stopped"
            return self._wait(waits_for=stops, cost=_WAIT_FOR_STOP, why=why)
        return Plan(
            kind="evict", place=place, evict=names, waits_for=names_of(stopping), cost=cost,
            why=f"{why}; {', '.join(names)} must go{_stop_in_words(stopping)}",
        )  # fmt: skip

    def _wait(
        self, *, why: str, cost: float, evict: tuple[str, ...] = (),
        waits_for: tuple[str, ...] = (),
    ) -> Plan:  # fmt: skip
        return Plan(
            kind="wait", place=self._place, evict=evict, waits_for=waits_for, cost=cost, why=why
        )

    def _costs(self, holders: Iterable[Holder]) -> dict[str, float]:
        return {holder.name: self._rules.cost(holder, self._now) for holder in holders}


def _stop_in_words(stopping: Sequence[Holder]) -> str:
    return f"; {', '.join(names_of(stopping))} must have stopped" if stopping else ""


def _holds_any(holder: Holder, pools: Iterable[str]) -> bool:
    return any(holder.holds(pool) for pool in pools)


def _after_stop(holder: Holder) -> Holder:
    """Return what *holder* is once the stop that is under way has ended: asleep, if it stops."""
    if holder.phase != "stopping":
        return holder
    return replace(holder, phase="asleep", claim=holder.keeps, seen={}, keeps={})


def _stays(holder: Holder, pool: str) -> int:
    """Return the bytes of *pool* that *holder* never gives back, since it is pinned."""
    if not holder.is_pinned:
        return 0
    return holder.keeps.get(pool, 0) if holder.phase == "stopping" else holder.holds(pool)


def _less(lack: Amounts, holders: Iterable[Holder]) -> dict[str, int]:
    """Return what is lacking still once the stops of *holders* have ended."""
    rest = dict(lack)
    for holder in holders:
        for pool in rest:
            rest[pool] -= holder.frees(pool)
    return {pool: amount for pool, amount in rest.items() if amount > 0}
