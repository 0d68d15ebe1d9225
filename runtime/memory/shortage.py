"""Shortages: launches that ran out of memory, and what their next starts reserve.

What a process did not get is not known, only that its claim was too small. The next claim is
therefore the largest of three lower bounds: the old one and a quarter, what was free when the start
began and a granule, and the allocation that failed beside the files of the model. It stays in force
for ten runs that do not run out of memory. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from ...dataclass import dataclass
from .footprints import RAM
from .sums import size, sum_in_words
from .values import Amounts, Holder, MemoryNeed, Pool, Wanted

#: Memory of a GPU or of the host; empty if that is not known.
MemoryKind: TypeAlias = Literal["gpu", "ram", ""]

GROWTH = 1.25  # of a claim that was too small
GRANULE = 256 << 20  # added to what was free and not enough; in bytes
GOOD_RUNS = 10  # until a shortage is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Sign that a process ended because memory ran out.

    Attributes:
        line: Line of its output, or how it ended.
        size: Bytes that it asked for; 0 means unknown.
        kind: Kind of memory.
        is_kill: The kernel killed it.
    """

    line: str
    size: int = 0
    kind: MemoryKind = ""
    is_kill: bool = False

    def in_words(self) -> str:
        """Return the cause without output of the process; empty if nothing more is known."""
        if self.is_kill:
            return "the kernel killed it because no main memory was left"
        memory = {"gpu": "GPU memory", "ram": "main memory", "": "memory"}[self.kind]
        if self.size:
            return f"an allocation of {size(self.size)} of {memory} failed"
        return f"an allocation of {memory} failed" if self.kind else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Amount that the starts of one launch reserve since it ran out of memory of one pool.

    Attributes:
        model: Name of the service.
        key: Identifies the launch; empty if it has none, and then it is not stored.
        pool: Name of the pool.
        at: Time in seconds since 1970.
        claim: Bytes that it had reserved.
        amount: Least bytes that its next starts reserve.
        good_runs: Number of its runs since then that became ready and did not run out of memory.
    """

    model: str
    key: str
    pool: str
    at: float
    claim: int
    amount: int
    good_runs: int = 0


def next_amount(claim: int, pool: Pool, *, free: int, asked: int) -> int:
    """Return the bytes to reserve of *pool* after *claim* was not enough.

    Args:
        claim: Bytes that it needed by what was known.
        pool: The pool.
        free: Bytes that were free for it when its start began; 0 means unknown.
        asked: Bytes that it is known to have asked for together; 0 means unknown.
    """
    grown = int(claim * GROWTH) if claim <= pool.budget else claim  # more could not be given anyway
    return max(grown, free + GRANULE if free > 0 else 0, asked)


def short_pools(place: Iterable[str], kind: MemoryKind) -> list[str]:
    """Return the pools of *place* that memory of *kind* may have run out in.

    GPUs that use main memory have no pool of their own.
    """
    pools = list(place)
    if kind == "ram":
        return [name for name in pools if name == RAM]
    gpus = [name for name in pools if name != RAM]
    return gpus if kind == "gpu" and gpus else pools


def sum_with_holders(
    pools: Mapping[str, Pool], holders: Iterable[Holder], wanted: Wanted, place: Amounts
) -> tuple[str, str]:
    """Return the sum of each pool of *place*, and the services that hold memory there, in words."""
    others = [holder for holder in holders if holder.name != wanted.name]
    free = {p: pools[p].available - sum(holder.holds(p) for holder in others) for p in place}
    held = []
    for holder in others:
        amounts = [size(holder.holds(pool)) for pool in place if holder.holds(pool)]
        if amounts:
            amounts += ["pinned"] if holder.is_pinned else []
            amounts += [f"{holder.granted} in flight"] if holder.granted else []
            held.append(f"{holder.name} ({', '.join(amounts)})")
    return sum_in_words(pools, others, wanted, place, free), ", ".join(held)


class Shortages:
    """Shortages in force, by launch.

    Args:
        shortages: Earlier ones.
    """

    def __init__(self, shortages: Iterable[Shortage] = ()) -> None:
        self._by_launch: dict[tuple[str, str], dict[str, Shortage]] = {}
        for shortage in shortages:
            self.add(shortage)

    def add(self, shortage: Shortage) -> None:
        """Add *shortage*, in place of the earlier one of its launch and pool."""
        pools = self._by_launch.setdefault((shortage.model, shortage.key), {})
        pools[shortage.pool] = shortage

    def all(self) -> list[Shortage]:
        """Return all shortages, by model and pool."""
        found = [each for pools in self._by_launch.values() for each in pools.values()]
        return sorted(found, key=lambda each: (each.model, each.key, each.pool))

    def count_good_run(self, model: str, key: str) -> list[Shortage]:
        """Count a run without a shortage, and return what has changed.

        A shortage that has ended is among them, with `GOOD_RUNS` runs.
        """
        pools = self._by_launch.get((model, key), {})
        changed = [replace(each, good_runs=each.good_runs + 1) for each in pools.values()]
        for each in changed:
            if each.good_runs < GOOD_RUNS:
                pools[each.pool] = each
            else:
                del pools[each.pool]
        return changed

    def forget(self, model: str) -> None:
        """Forget the shortages of all launches of *model*."""
        for launch in [launch for launch in self._by_launch if launch[0] == model]:
            del self._by_launch[launch]

    def need(self, model: str, need: MemoryNeed) -> MemoryNeed:
        """Return *need* of *model* with at least the amounts that its shortages call for.

        A raised amount counts as learned: it is a guess, and must never refuse the service. An
        unknown need stays one, since the service then gets all that can be free.
        """
        pools = self._by_launch.get((model, need.key), {})
        if not pools or need.source == "unknown":
            return need
        options = tuple(_raised(option, pools) for option in need.options)
        if options == need.options:
            return need
        lacked = ", ".join(f"{size(each.claim)} of {each.pool}" for each in pools.values())
        return replace(
            need, options=options, source="learned", note=f"it ran out of memory with {lacked}"
        )


def _raised(option: Amounts, shortages: Mapping[str, Shortage]) -> dict[str, int]:
    """Return *option* with the amounts of *shortages*; those of one GPU hold for another one."""
    least = {pool: each.amount for pool, each in shortages.items()}
    if len(option) == 1 and not option.keys() & least.keys() and RAM not in option:
        least = dict.fromkeys(option, max((n for p, n in least.items() if p != RAM), default=0))
    return {pool: max(amount, least.get(pool, 0)) for pool, amount in option.items()}
