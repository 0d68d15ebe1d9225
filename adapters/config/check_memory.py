"""Checks of memory amounts that need no reading of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ...runtime.memory import size as in_words
from .routing import NamesLike
from .schema.memory import MemorySection, ModelMemory, PoolSection, Size
from .schema.yielding import YieldSection
from .values import ModelConfig

#: Names of the pools that a machine may have without being declared.
MACHINE_POOL = re.compile(r"RAM|GPU\d+")


def check_memory(memory: MemorySection, names: NamesLike) -> None:
    """Report pools that cannot exist, and needs that can never be met.

    Shares of a pool are compared only where its capacity is declared.
    """
    pinned: dict[str, int] = {}
    _check_sizes(memory, names)
    for model in names.models.values():
        for pool, loc in _pools_of(model):
            _check_pool(pool, loc, memory, names)
        needs = _least_needs(model.memory, memory.pools)
        for pool, need in needs.items():
            most = _most(memory, pool)
            loc = ("models", model.id, "memory", pool if pool in model.memory.pools else "need")
            if most is not None and need > most:
                names.error(loc, f"needs more than the {in_words(most)} that {pool} can give")
            elif model.pinned:
                pinned[pool] = pinned.get(pool, 0) + need
    for pool, total in pinned.items():
        most = _most(memory, pool)
        if most is not None and total > most:
            names.error(
                ("memory", "pools", pool),
                f"the pinned models need {in_words(total)} of {pool} together, of which it can give"
                f" {in_words(most)}",
            )


def _check_sizes(memory: MemorySection, names: NamesLike) -> None:
    """Report pools that nothing reads and that have no size: they would be no condition."""
    for name, pool in memory.pools.items():
        is_read = MACHINE_POOL.fullmatch(name) is not None or pool.device is not None
        if not is_read and _bytes(pool.capacity, None) is None:
            names.error(
                ("memory", "pools", name),
                "nothing reads it, so it needs a `capacity` in bytes, or the `device` of a GPU",
            )


def check_yields(yields: Sequence[YieldSection], memory: MemorySection, names: NamesLike) -> None:
    """Report rules about pools that cannot exist, and rules that have no effect."""
    for index, section in enumerate(yields):
        for number, pool in enumerate(section.pools):
            _check_pool(pool, ("yield", index, "pools", number), memory, names)
    if yields and memory.mode != "auto":
        names.warning(("yield",), "it has no effect without `memory: auto`")


def _check_pool(
    pool: str, loc: tuple[int | str, ...], memory: MemorySection, names: NamesLike
) -> None:
    if pool not in memory.pools and MACHINE_POOL.fullmatch(pool) is None:
        known = ", ".join(["RAM", "GPU0, GPU1 and so on", *map(repr, memory.pools)])
        names.error(loc, f"unknown memory pool {pool!r}; known are {known}")


def _pools_of(model: ModelConfig) -> Iterator[tuple[str, tuple[int | str, ...]]]:
    """Yield the pools that *model* names, each with its place in the document."""
    at = ("models", model.id, "memory")
    for pool in model.memory.pools:
        yield pool, (*at, pool)
    for index, pool in enumerate(model.memory.on):
        yield pool, (*at, "on", index)
    for pool in model.memory.asleep:
        yield pool, (*at, "asleep", pool)


def _least_needs(memory: ModelMemory, pools: Mapping[str, PoolSection]) -> dict[str, int]:
    """Return the declared bytes by pool that a model needs wherever it runs."""
    needs = dict(memory.pools)
    if memory.need is not None and len(memory.on) == 1:
        needs = {memory.on[0]: memory.need}
    return {
        pool: amount
        for pool, size in needs.items()
        if (amount := _bytes(size, pools.get(pool))) is not None
    }


def _most(memory: MemorySection, name: str) -> int | None:
    """Return the most bytes that a pool can give, if it is declared; else None."""
    pool = memory.pools.get(name)
    if pool is None:
        return None
    limits = []
    if pool.limit is not None and (limit := _bytes(pool.limit, pool)) is not None:
        limits.append(limit)
    if (capacity := _bytes(pool.capacity, None)) is not None:
        reserve = pool.reserve or memory.reserve
        limits.append(capacity - (0 if reserve is None else reserve.of(capacity)))
    return min(limits, default=None)


def _bytes(size: Size | None, pool: PoolSection | None) -> int | None:
    if size is None or size.bytes_ is not None:
        return None if size is None else size.bytes_
    capacity = None if pool is None else _bytes(pool.capacity, None)
    return None if capacity is None else size.of(capacity)
