"""Readings of pools: what other programs hold, and how a pool that is too full is relieved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from .cover import cover
from .planning import Rules
from .sums import size
from .values import Holder, Pool

#: Use of a pool as a multiple of its size that no driver says: sums over processes count shared
#: memory twice.
_MOST_USED = 2
_LIBRARIES = 32 << 20  # bytes of mapped files that all programs share


def shared(pids: Collection[int], files: Mapping[int, int], whole_files: Mapping[int, int]) -> int:
    """Return the bytes that a service would hold in addition if it ran alone.

    Files that another service maps too, such as weights, count for each of them in part.

    Args:
        pids: Its processes.
        files: Process id -> its part of the mapped files.
        whole_files: Process id -> the mapped files in full.
    """
    part = sum(files.get(pid, 0) for pid in pids)
    more = max((whole_files.get(pid, 0) for pid in pids), default=0) - part
    return more if more > _LIBRARIES else 0


def foreign(
    used: int, holders: Sequence[Holder], pool: str, before: int, *, is_told_apart: bool,
    is_quiet: bool,
) -> int:  # fmt: skip
    """Return the bytes of *pool* that other programs hold.

    Args:
        used: Bytes in use by all programs.
        holders: Services that hold memory.
        pool: Name of the pool.
        before: Result of the last quiet moment.
        is_told_apart: The driver says what each service holds. Without that, memory that a start
            has not taken yet, or that a stop has not given back, looks like that of others.
        is_quiet: No service that holds memory of the pool starts or stops.
    """
    if is_told_apart:
        return max(used - sum(holder.seen.get(pool, 0) for holder in holders), 0)
    excess = max(used - sum(holder.holds(pool) for holder in holders), 0)
    return excess if is_quiet else max(before, excess)


def impossible(used: int | None, capacity: int, capacity_before: int, held: Iterable[int]) -> str:
    """Return why a driver that says this is wrong, in words; empty if it can be right.

    Args:
        used: Bytes in use, or None.
        capacity: Size in bytes; 0 means that it is unknown.
        capacity_before: Size by the last reading of the same device; 0 if it may change.
        held: Bytes of each process.
    """
    most = _MOST_USED * capacity
    if used is not None and (used < 0 or 0 < most < used):
        return f"{size(used)} of {size(capacity)} are in use"
    if capacity_before and capacity and capacity != capacity_before:
        return f"the size has changed from {size(capacity_before)} to {size(capacity)}"
    if most and (largest := max(held, default=0)) > most:
        return f"a process holds {size(largest)} of {size(capacity)}"
    return ""


def relief(pool: Pool, holders: Sequence[Holder], now: float, rules: Rules) -> tuple[str, ...]:
    """Return the cheapest idle services to evict so that *pool* is no longer too full, sorted.

    A service that became ready within the time that its start takes is left out, or it would be
    loaded more often than used. If all idle ones together are not enough, all are returned.
    """
    lack = sum(holder.holds(pool.name) for holder in holders) - pool.room
    stopping = sum(holder.frees(pool.name) for holder in holders)
    if lack - stopping <= 0:
        return ()
    idle = [
        holder
        for holder in holders
        if holder.phase in ("ready", "asleep")
        and not holder.is_pinned
        and holder.holds(pool.name)
        and now >= holder.ready_at + holder.load_s
        and not holder.busy_reason(now, is_overdue=False)
    ]
    costs = {holder.name: rules.cost(holder, now) for holder in idle}
    found = cover({pool.name: lack - stopping}, idle, costs)
    return tuple(sorted(costs)) if found is None else found


def leavers(
    pool: Pool, holders: Sequence[Holder], now: float, rules: Rules, *,
    leaving: Collection[str] = (), with_pinned: bool = False,
) -> tuple[str, ...]:  # fmt: skip
    """Return the further services that must go for ``pool.keep``, sorted.

    The cheapest idle ones go; where these are not enough, the cheapest of all, busy ones too,
    which have to end their requests first.

    Args:
        pool: The pool.
        holders: Services that hold memory.
        now: Time in seconds.
        rules: Have the cost of an eviction.
        leaving: Services that were named before; they count as gone.
        with_pinned: Pinned services go too.
    """
    if pool.keep is None:
        return ()
    staying = [
        holder
        for holder in holders
        if holder.holds(pool.name) and holder.phase != "stopping" and holder.name not in leaving
    ]
    lack = sum(holder.holds(pool.name) for holder in staying) - pool.keep
    if lack <= 0:
        return ()
    able = [holder for holder in staying if with_pinned or not holder.is_pinned]
    costs = {holder.name: rules.cost(holder, now) for holder in able}
    idle = [holder for holder in able if not holder.busy_reason(now, is_overdue=False)]
    for some in (idle, able):
        if (found := cover({pool.name: lack}, some, costs)) is not None:
            return found
    return tuple(sorted(costs))
