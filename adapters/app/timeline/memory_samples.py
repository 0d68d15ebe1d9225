"""Samples of memory for the timeline: those of the pools, else those of the host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

from ....runtime import Supervisor
from ...proxy.monitoring.host import Samples
from ...store.timeline import TimelineStore

_LOOK_S = 2.0  # between two looks at the last reading, which is not taken for this
_LONGEST_S = 240.0  # after which a sample is kept although little has changed
_SHARE = 0.01  # of the capacity: a smaller change is none
_MIB = 1 << 20


class MemorySamples:
    """Keeps a sample of each device whenever its use has changed by 1 %, and every four minutes.

    Args:
        supervisor: Its memory pools are sampled; if it has none, the host.
        host: Samples of the host.
        store: Where samples are kept.
    """

    def __init__(self, supervisor: Supervisor, host: Samples, store: TimelineStore) -> None:
        self._supervisor, self._host, self._store = supervisor, host, store
        self._last: dict[str, tuple[float, int]] = {}

    async def run(self) -> None:
        """Keep samples until canceled."""
        while True:
            self.look(monotonic())
            await asyncio.sleep(_LOOK_S)

    def look(self, now: float) -> None:
        """Keep what has changed by *now*, in seconds."""
        for device, used, capacity in self._readings():
            kept_at, before = self._last.get(device, (-_LONGEST_S, 0))
            if abs(used - before) >= _SHARE * capacity or now >= kept_at + _LONGEST_S:
                self._last[device] = now, used
                self._store.put_memory(device, used, capacity)

    def _readings(self) -> Iterator[tuple[str, int, int]]:
        ledger, watch = self._supervisor.scheduler.memory, self._supervisor.memory_watch
        if ledger is not None and ledger.pools and watch is not None:
            for name, state in watch.states.items():
                pool, reading = ledger.pools.get(name), state.reading
                if pool is not None and reading is not None and reading.used is not None:
                    yield name, reading.used, pool.capacity
        elif self._host.recent:
            sample = self._host.recent[-1]
            yield "RAM", sample.memory_used, sample.memory_total
            for gpu in sample.gpus:
                if gpu.used_mib is not None and gpu.total_mib:
                    yield f"GPU {gpu.index}", int(gpu.used_mib * _MIB), int(gpu.total_mib * _MIB)
