"""Readings of several sources, joined: names of GPUs, pools of commands, unified memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...runtime.ports import PoolReading


class Joiner:
    """Joins the readings of all sources.

    GPUs are numbered in the order in which they are first read, and keep their names when another
    GPU is not read for a while.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def join(self, readings: Iterable[PoolReading]) -> list[PoolReading]:
        """Return one reading for each pool; the last one of a name counts."""
        found = {}
        for reading in readings:
            name = self._name_of(reading) if reading.vendor else reading.name
            found[name] = replace(reading, name=name)
        return with_unified(list(found.values()))

    def _name_of(self, reading: PoolReading) -> str:
        key = reading.device or f"{reading.source} {reading.name}"
        return self._names.setdefault(key, f"GPU{len(self._names)}")


def with_unified(readings: Sequence[PoolReading]) -> list[PoolReading]:
    """Return *readings* with what GPUs use of main memory counted there.

    A process holds its part of main memory and that of the GPU; if the driver does not know the
    latter, what processes hold is unknown. A limit of the driver limits the pool.
    """
    result = []
    for reading in readings:
        parts = [part for part in readings if part.part_of == reading.name]
        held = None if reading.processes is None else Counter(reading.processes)
        capacity = reading.capacity
        for part in parts:
            if part.processes is None:
                held = None
            elif held is not None:
                held.update(part.processes)
            if part.capacity:
                capacity = min(capacity, part.capacity)
        if parts:
            processes = None if held is None else dict(held)
            reading = replace(reading, capacity=capacity, processes=processes)
        result.append(reading)
    return result
