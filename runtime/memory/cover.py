"""Cover: the cheapest set of services whose eviction frees what is lacking.

This is minimum-cost multidimensional covering, which is NP-hard. A greedy solution is improved by
branch and bound with a limited number of steps; greedy alone costs 1.38 times the optimum at the
95th percentile of random cases of two pools and 14 holders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from .values import Amounts, Holder

#: Steps of the search, about 2 us each, after which the best set so far is returned.
MAX_STEPS = 4000

_Need: TypeAlias = tuple[int, ...]  # bytes, in the order of the lacking pools
_Rank: TypeAlias = tuple[float, int, int, tuple[str, ...]]


def cover(
    lack: Amounts, holders: Sequence[Holder], costs: Mapping[str, float]
) -> tuple[str, ...] | None:
    """Return the cheapest of *holders* whose memory covers *lack*, sorted.

    None means that all of them together do not cover it. No service of the result can be left
    out. Of sets with the same cost, the result has the fewest services, then frees the least.

    Args:
        lack: Bytes by pool, > 0 each.
        holders: Services that may be evicted.
        costs: Service -> cost of its eviction, >= 0.
    """
    search = _Search(lack, holders, costs)
    return search.best_set() if search.is_feasible else None


class _Search:
    """One search for the cheapest set.

    Attributes:
        is_feasible: All services together cover the lack.
    """

    def __init__(
        self, lack: Amounts, holders: Sequence[Holder], costs: Mapping[str, float]
    ) -> None:
        pools = tuple(lack)
        self._need: _Need = tuple(lack[pool] for pool in pools)
        self._costs = costs
        self._frees: dict[str, _Need] = {}
        self._held: dict[str, int] = {}
        for holder in holders:
            frees = tuple(min(holder.holds(pool), lack[pool]) for pool in pools)
            if any(frees):
                self._frees[holder.name] = frees
                self._held[holder.name] = sum(holder.holds(pool) for pool in pools)
        self._ratios = {name: self._ratio(name) for name in self._frees}
        self._names = sorted(self._frees, key=self._ratios.__getitem__)
        self.is_feasible = self._is_enough(self._names)
        self._best: list[str] = []
        self._best_rank: _Rank = (float("inf"), 0, 0, ())
        self._steps = 0

    def best_set(self) -> tuple[str, ...]:
        """Return the cheapest set that was found."""
        greedy: list[str] = []
        for name in self._names:
            greedy.append(name)
            if self._is_enough(greedy):
                break
        self._consider(greedy)
        for name in self._names:  # a single service is often best
            if self._is_enough([name]):
                self._consider([name])
        # What the services from an index on free together: hopeless branches are cut early.
        tails = [tuple(0 for _ in self._need)]
        for name in reversed(self._names):
            tails.append(tuple(a + b for a, b in zip(tails[-1], self._frees[name], strict=True)))
        tails.reverse()
        self._branch(0, self._need, 0.0, [], tails)
        return tuple(sorted(self._best))

    def _branch(
        self, index: int, left: _Need, cost: float, chosen: list[str], tails: Sequence[_Need]
    ) -> None:
        """Try the services from *index* on; *left* is still lacking."""
        self._steps += 1
        if self._steps > MAX_STEPS or cost > self._best_rank[0]:
            return
        if not any(left):
            self._consider(chosen)
            return
        if any(tail < need for tail, need in zip(tails[index], left, strict=True)):
            return
        name = self._names[index]
        # The ratios rise, so at least this cost is still to come; the factor allows for rounding.
        share = max(need / whole for need, whole in zip(left, self._need, strict=True))
        if cost + share * self._ratios[name][0] * (1.0 - 1e-12) > self._best_rank[0]:
            return
        rest = tuple(max(a - b, 0) for a, b in zip(left, self._frees[name], strict=True))
        chosen.append(name)
        self._branch(index + 1, rest, cost + self._costs[name], chosen, tails)
        chosen.pop()
        self._branch(index + 1, left, cost, chosen, tails)

    def _consider(self, names: Sequence[str]) -> None:
        """Take *names* as the best set if it is better, without the services it can spare."""
        kept = list(names)
        for name in sorted(names, key=lambda name: (-self._costs[name], name)):
            rest = [other for other in kept if other != name]
            if self._is_enough(rest):
                kept = rest
        rank = (
            sum(self._costs[name] for name in sorted(kept)),
            len(kept),
            sum(self._held[name] for name in kept),
            tuple(sorted(kept)),
        )
        if rank < self._best_rank:
            self._best, self._best_rank = kept, rank

    def _is_enough(self, names: Iterable[str]) -> bool:
        freed = [0] * len(self._need)
        for name in names:
            for index, amount in enumerate(self._frees[name]):
                freed[index] += amount
        return all(amount >= need for amount, need in zip(freed, self._need, strict=True))

    def _ratio(self, name: str) -> tuple[float, float, str]:
        """Return the cost of *name* per share of the lack that it frees, and tie breakers."""
        frees = zip(self._frees[name], self._need, strict=True)
        share = sum(amount / need for amount, need in frees)
        return self._costs[name] / share, self._costs[name], name
