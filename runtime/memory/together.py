"""Which services fit into the pools together, whatever runs at the moment. Pure.

Other programs do not count, because they may end; a service of which nothing is known fits beside
no other one in its pools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations

from ...dataclass import dataclass
from .planning import Rules, plan
from .sums import size
from .values import Amounts, Holder, MemoryNeed, Pool, Wanted

#: Steps of the search for places, about 1 us each. Without a result the services count as fitting:
#: a command that warns is then silent, and no request depends on it.
_MAX_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Places of some services, and the memory that they lack there.

    Attributes:
        places: Service -> bytes by pool, one place for each; where they do not fit, the preferred
            ones.
        lack: Bytes by pool that are missing with these places; empty if all fit.
    """

    places: Mapping[str, Amounts]
    lack: Amounts

    @property
    def fits(self) -> bool:
        """True if all of them fit."""
        return not self.lack


def together(pools: Mapping[str, Pool], needs: Mapping[str, MemoryNeed]) -> Together:
    """Return places at which the services fit together, if there are any.

    Args:
        pools: All pools, by name.
        needs: Service -> what it needs; pools that do not exist are no condition.
    """
    names = list(needs)
    options = [_options(pools, needs[name]) for name in names]
    budgets = {name: pool.budget for name, pool in pools.items()}
    found = _search(options, budgets, [_MAX_STEPS])
    if found is not None:
        return Together(places=dict(zip(names, found, strict=True)), lack={})
    preferred = [places[0] for places in options]
    lack: dict[str, int] = {}
    for pool, budget in budgets.items():
        missing = sum(place.get(pool, 0) for place in preferred) - budget
        if missing > 0:
            lack[pool] = missing
    return Together(places=dict(zip(names, preferred, strict=True)), lack=lack)


def _options(pools: Mapping[str, Pool], need: MemoryNeed) -> list[Amounts]:
    """Return the places of a service; where nothing is known it takes each pool as a whole."""
    known: list[Amounts] = []
    for option in need.options:
        place = {pool: amount for pool, amount in option.items() if pool in pools}
        if need.source == "unknown":
            place = {pool: pools[pool].budget for pool in place}
        known.append(place)
    return known or [{}]


def _search(
    options: Sequence[Sequence[Amounts]], left: Mapping[str, int], steps: list[int]
) -> list[Amounts] | None:
    """Return a place for each service within *left*; None if there are none."""
    if not options:
        return []
    for place in options[0]:
        steps[0] -= 1
        if any(amount > left[pool] for pool, amount in place.items()):
            continue
        rest = {pool: amount - place.get(pool, 0) for pool, amount in left.items()}
        found = _search(options[1:], rest, steps)
        if found is not None:
            return [place, *found]
        if steps[0] <= 0:
            return [places[0] for places in options]
    return None


def residents(
    pools: Mapping[str, Pool], needs: Mapping[str, MemoryNeed], pinned: Set[str], rules: Rules
) -> list[str]:
    """Return the services that run in the end if one after the other is requested, in that order.

    A service that is refused, or that waits for a pinned one, does not start.
    """
    running: dict[str, Holder] = {}
    for now, (name, need) in enumerate(needs.items(), 1):
        options = tuple(
            {pool: amount for pool, amount in option.items() if pool in pools}
            for option in need.options
        )
        place: Amounts = {}
        if any(options):
            wanted = Wanted(name=name, options=options, source=need.source)
            found = plan(pools, list(running.values()), wanted, float(now), rules)
            if found.kind not in ("start", "evict"):
                continue
            place = found.place
            for gone in found.evict:
                del running[gone]
        running[name] = Holder(
            name=name, claim=place, source=need.source, is_pinned=name in pinned,
            used_at=float(now), weight=need.weight,
        )  # fmt: skip
    return list(running)


def lost_pairs(
    before: tuple[Mapping[str, Pool], Mapping[str, MemoryNeed]],
    after: tuple[Mapping[str, Pool], Mapping[str, MemoryNeed]],
) -> list[tuple[str, str, Together]]:
    """Return the pairs of services that fitted together before and do not any more.

    A service that does not fit alone any more is in no pair; its own pair is (name, "").

    Args:
        before: Pools, and needs by service.
        after: The same, later.
    """
    names = [name for name in after[1] if name in before[1]]
    lost = []
    alone = set()
    for name in names:
        was, now = (together(pools, {name: needs[name]}) for pools, needs in (before, after))
        if not now.fits:
            alone.add(name)
            if was.fits:
                lost.append((name, "", now))
    for pair in combinations([name for name in names if name not in alone], 2):
        now = _pair(after, pair)
        if not now.fits and _pair(before, pair).fits:
            lost.append((*pair, now))
    return lost


def _pair(
    state: tuple[Mapping[str, Pool], Mapping[str, MemoryNeed]], names: Iterable[str]
) -> Together:
    pools, needs = state
    return together(pools, {name: needs[name] for name in names})


def lack_in_words(pools: Mapping[str, Pool], found: Together) -> str:
    """Return what is missing for the services of *found*, in words."""
    parts = []
    for pool, missing in found.lack.items():
        budget = pools[pool].budget
        parts.append(f"{size(budget + missing)} of {pool} needed, {size(budget)} for models")
    return "; ".join(parts)
