"""Sums of memory in words, for errors, the queue and `explain`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .values import Amounts, Holder, Plan, Pool, Source, Wanted

_GIB = 1 << 30
_MIB = 1 << 20


def size(amount: int) -> str:
    """Return *amount* bytes in words: ``12.3 GiB``, or ``512 MiB`` below 1 GiB."""
    if abs(amount) < _GIB:
        return f"{amount / _MIB:.0f} MiB"
    return f"{amount / _GIB:.1f} GiB"


def names_of(holders: Iterable[Holder]) -> tuple[str, ...]:
    """Return the names of *holders*, sorted."""
    return tuple(sorted(holder.name for holder in holders))


def with_sizes(names: Sequence[str], holders: Sequence[Holder], lack: Amounts) -> str:
    """Return *names*, each with what it frees of the pools in *lack*."""
    found = {holder.name: holder for holder in holders}
    return ", ".join(
        f"{name} ({', '.join(size(found[name].holds(p)) for p in lack if found[name].holds(p))})"
        for name in names
    )


def sum_in_words(
    pools: Mapping[str, Pool], others: Sequence[Holder], wanted: Wanted, place: Amounts,
    free: Amounts,
) -> str:  # fmt: skip
    """Return the sum of each pool of *place* in one line."""
    sums = []
    for name, need in place.items():
        pool = pools[name]
        if pool.available == pool.keep:
            line = f"{name}: {size(pool.keep)} while it is left to other programs"
        elif pool.available == pool.limit:
            line = f"{name}: {size(pool.limit)} limit"
        else:
            line = f"{name}: {size(pool.capacity)}"
            if pool.reserve:
                line += f" - {size(pool.reserve)} reserve"
            if pool.foreign:
                line += f" - {size(pool.foreign)} other programs"
        if held := sum(holder.holds(name) for holder in others):
            line += f" - {size(held)} held"
        if ahead := wanted.ahead.get(name, 0):
            line += f" - {size(ahead)} for overdue requests"
        line += f" = {size(free[name])} free"
        if wanted.source != "unknown":
            line += f", {size(need)} needed ({wanted.source})"
        sums.append(line)
    return "; ".join(sums)


def explain_sum(
    pools: Mapping[str, Pool], holders: Sequence[Holder], wanted: Wanted, found: Plan, now: float
) -> list[str]:
    """Return the sum of each pool of the plan *found*, one amount a line, then who goes and stays.

    The costs are those of `reload_cost`.
    """
    lines = []
    others = [holder for holder in holders if holder.name != wanted.name]
    for name, need in found.place.items():
        pool = pools[name]
        lines.append(f"{wanted.name} on {name}: {size(pool.capacity)} capacity")
        if pool.available == pool.keep:
            lines.append(f"{size(pool.keep)} while it is left to other programs")
        elif pool.available == pool.limit:
            lines.append(f"limit of {size(pool.limit)}")
        else:
            if pool.reserve:
                lines.append(f"- {size(pool.reserve)} reserve")
            if pool.foreign:
                lines.append(f"- {size(pool.foreign)} other programs")
        if ahead := wanted.ahead.get(name, 0):
            lines.append(f"- {size(ahead)} for overdue requests")
        free = pool.available - ahead
        for holder in others:
            if amount := holder.holds(name):
                free -= amount
                lines.append(f"- {size(amount)} {holder.name} ({_state(holder, name, now)})")
        needed = "unknown need" if wanted.source == "unknown" else f"{size(need)} needed"
        lines.append(f"= {size(free)} free, {needed} ({wanted.source})")
    return lines + _costs_in_words(others, found, now)


def _costs_in_words(others: Sequence[Holder], found: Plan, now: float) -> list[str]:
    """Return for each service that could go what it frees, and what its eviction costs."""
    lines = []
    for holder in others:
        if not found.evict or not any(holder.holds(name) for name in found.place):
            continue
        load = f"{holder.load_s:.1f} s to load"
        if holder.at_risk_s:
            load = f"({load} + {holder.at_risk_s:.1f} s of prefill)"
        if holder.weight != 1.0:
            load = f"{holder.weight:g} x {load}"
        cost = f"costs {load} / {max(now - holder.used_at, 1.0):.0f} s idle"
        frees = ", ".join(size(holder.holds(n)) for n in found.place if holder.holds(n))
        if holder.name in found.evict:
            lines.append(f"goes: {holder.name} frees {frees}, {cost}")
        elif not holder.is_pinned and holder.phase != "stopping":
            lines.append(f"stays: {holder.name} would free {frees}, {cost}")
    return lines


def _state(holder: Holder, pool: str, now: float) -> str:
    source = holder.source
    if holder.seen.get(pool, 0) > holder.claim.get(pool, 0):
        source_text = f"{_ORIGIN[source]} less, measured"
    else:
        source_text = _ORIGIN[source]
    parts = [source_text, "cannot be stopped" if holder.is_stuck else holder.phase]
    if holder.is_pinned:
        parts.append("pinned")
    if holder.granted:
        parts.append(f"{holder.granted} in flight")
    elif holder.phase in ("ready", "asleep"):
        parts.append(f"last used {now - holder.used_at:.0f} s ago")
    return ", ".join(parts)


_ORIGIN: Mapping[Source, str] = {
    "declared": "declared",
    "learned": "learned",
    "estimated": "estimated",
    "unknown": "runs alone",
}
