"""Memory of services that have ended, until their drivers have given it back.

Drivers free the memory of a process late. What a service held is known from the last reading
before it stopped; it has come back when the driver lists none of its processes and the use of the
device has fallen by most of that amount. Where the driver tells processes apart, what running
services take meanwhile is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..dataclass import dataclass, field
from .ports import PoolReading

_SHARE = 0.75  # of what a service held; drivers keep some of it

_Pids = Mapping[str, Collection[int]]


@dataclass(slots=True, kw_only=True)
class _Before:
    """Memory of a service by the last reading before it stopped.

    Attributes:
        incarnation: Its launch.
        pids: Its processes.
        pools: Pool -> (bytes in use without those of other services, bytes that it held).
    """

    incarnation: int
    pids: frozenset[int]
    pools: dict[str, tuple[int, int]] = field(default_factory=dict)


class MemorySettling:
    """Memory of services that have ended, and how much of it is missing."""

    def __init__(self) -> None:
        self._before: dict[str, _Before] = {}

    def pids(self) -> Iterable[int]:
        """Return the processes of all services that are known."""
        return [pid for before in self._before.values() for pid in before.pids]

    def note(
        self, service: str, incarnation: int, pool: str, reading: PoolReading, pids: _Pids,
        held: int,
    ) -> None:  # fmt: skip
        """Remember what *service* holds of *pool* while it runs.

        Args:
            service: Name of the service.
            incarnation: Its launch.
            pool: Name of the pool.
            reading: Reading of the pool.
            pids: Service -> its processes, of all running services.
            held: Bytes that it holds by this reading.
        """
        if reading.used is None or reading.is_prompt:
            return
        before = self._before.get(service)
        if before is None or before.incarnation != incarnation:
            before = self._before[service] = _Before(
                incarnation=incarnation, pids=frozenset(pids[service])
            )
        before.pids |= frozenset(pids[service])
        before.pools[pool] = _without_others(service, reading, pids), held

    def missing(
        self, service: str, incarnation: int, readings: Mapping[str, PoolReading], pids: _Pids
    ) -> dict[str, int]:
        """Return the bytes by pool that have not come back; pools without a reading are left out.

        Args:
            service: Name of the service, which has ended.
            incarnation: Its launch.
            readings: Pool -> reading since then.
            pids: Service -> its processes, of all running services.
        """
        before = self._before.get(service)
        if before is None or before.incarnation != incarnation:
            return {}
        found = {}
        for pool, (used, held) in before.pools.items():
            reading = readings.get(pool)
            if reading is None or reading.used is None or not held:
                continue
            processes = reading.processes or {}
            is_listed = any(processes.get(pid, 0) for pid in before.pids)
            back = max(used - _without_others(service, reading, pids), 0)
            if is_listed or back < _SHARE * held:
                found[pool] = max(held - back, 1)
        return found

    def forget(self, service: str) -> None:
        """Forget what *service* held."""
        self._before.pop(service, None)


def _without_others(service: str, reading: PoolReading, pids: _Pids) -> int:
    """Return the bytes in use without those of running services other than *service*."""
    processes = reading.processes or {}
    others = {pid for name, group in pids.items() if name != service for pid in group}
    return (reading.used or 0) - sum(amount for pid, amount in processes.items() if pid in others)
