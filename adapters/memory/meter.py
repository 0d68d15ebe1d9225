"""The meter: reads all pools in threads, within a time limit.

Each source has a thread of its own, so a driver that hangs holds up no other source and takes no
second thread. A source that fails leaves out its pools, whose last readings then become stale.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import anyio

from ...runtime.ports import PoolReading
from .containers import Containers, with_containers
from .drm import DrmMemory
from .host import HostMemory
from .joining import Joiner
from .nvidia_smi import NvidiaSmi
from .nvml import NvidiaMemory
from .one_thread import OneThread

log = logging.getLogger(__name__)

_LIMIT_S = 2.0
_PATIENCE_S = 15.0  # for which a source that was read before may fail without a warning


class Source(Protocol):
    """Reads one kind of pools; may block."""

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return a reading of each of its pools.

        Raises:
            OSError: The numbers are not available.
        """
        ...


def machine_sources() -> list[Source]:
    """Return what reads the memory of this machine: RAM, and GPUs in the order of their drivers."""
    has_nvml = importlib.util.find_spec("pynvml") is not None
    return [HostMemory(), NvidiaMemory() if has_nvml else NvidiaSmi(), DrmMemory()]


class _Watched:
    """A source with its thread and its failures."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._thread = OneThread()
        self._was_read = self._has_warned = False
        self._failing_since: float | None = None

    async def read(self, pids: Collection[int], limit_s: float) -> list[PoolReading]:
        """Return its readings.

        Raises:
            OSError: It failed, or did not respond within *limit_s* seconds.
        """
        return await self._thread.call(self.source.read, pids, limit_s=limit_s)

    def read_blocking(self, pids: Collection[int], limit_s: float) -> list[PoolReading]:
        """Do as `read` does, from a thread that may wait."""
        return self._thread.call_blocking(self.source.read, pids, limit_s=limit_s)

    def note(self, error: OSError | None) -> None:
        """Log the first failure of a source that was never read, and failures that last."""
        if error is None:
            if self._has_warned:
                log.info("memory is read again by %s", type(self.source).__name__)
            self._was_read, self._has_warned, self._failing_since = True, False, None
            return
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if not self._has_warned and (
            not self._was_read or now >= self._failing_since + _PATIENCE_S
        ):
            self._has_warned = True
            log.warning(
                "memory cannot be read by %s: %s", type(self.source).__name__, _words(error)
            )


class Meter:
    """Reads the pools of this machine.

    Args:
        sources: What to read; by default the memory of this machine.
        limit_s: Time limit of one reading in seconds.
        containers: Finds the processes of containers; None means those of this machine.
    """

    def __init__(
        self, sources: Sequence[Source] | None = None, *, limit_s: float = _LIMIT_S,
        containers: Containers | None = None,
    ) -> None:  # fmt: skip
        self._containers = containers or Containers()
        self._members: dict[int, frozenset[int]] = {}  # of containers, by the last reading
        self._finding = OneThread()
        given = machine_sources() if sources is None else sources
        self._sources = [_Watched(source) for source in given]
        self._added: list[_Watched] = []
        self._joiner = Joiner()
        self._limit_s = limit_s

    def add(self, sources: Iterable[Source]) -> None:
        """Read *sources* too, in place of those added before."""
        self._added = [_Watched(source) for source in sources]

    def use_cgroup(self, path: str) -> bool:
        """Count the limit of the cgroup *path* as one of main memory; empty for none.

        Returns:
            False if there is no such cgroup.
        """
        hosts = [each.source for each in self._sources if isinstance(each.source, HostMemory)]
        for host in hosts:
            host.cgroup = path
        return all(host.has_cgroup() for host in hosts)

    async def read(self, pids: Collection[int]) -> list[PoolReading]:
        """Return a reading of each pool.

        Raises:
            OSError: No source responded within the limit.
        """
        watched = [*self._sources, *self._added]
        members = {pid: group for pid, group in self._members.items() if pid in pids}
        wanted = tuple({*pids}.union(*members.values()))
        results: dict[_Watched, list[PoolReading] | OSError] = {}

        async def read_one(each: _Watched) -> None:
            try:
                results[each] = await each.read(wanted, self._limit_s)
            except OSError as error:
                results[each] = error

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._find_containers, pids)
            for each in watched:
                tasks.start_soon(read_one, each)
        return with_containers(self._joined(watched, results), members)

    async def _find_containers(self, pids: Collection[int]) -> None:
        """Look for the containers of the processes *pids*, for the next reading."""
        if pids:
            with suppress(OSError):
                self._members = await self._finding.call(
                    self._containers.processes, tuple(pids), limit_s=self._limit_s
                )

    def read_blocking(self, pids: Collection[int]) -> list[PoolReading]:
        """Do as `read` does, from a thread that may wait; sources are read one after the other.

        Raises:
            OSError: No source responded.
        """
        watched = [*self._sources, *self._added]
        results: dict[_Watched, list[PoolReading] | OSError] = {}
        for each in watched:
            try:
                results[each] = each.read_blocking(pids, self._limit_s)
            except OSError as error:
                results[each] = error
        return self._joined(watched, results)

    def _joined(
        self, watched: Sequence[_Watched], results: dict[_Watched, list[PoolReading] | OSError]
    ) -> list[PoolReading]:
        readings: list[PoolReading] = []
        errors = []
        for each in watched:
            result = results[each]
            each.note(result if isinstance(result, OSError) else None)
            if isinstance(result, OSError):
                errors.append(result)
            else:
                readings += result
        if errors and not readings:
            raise OSError("; ".join(map(_words, errors)))
        return self._joiner.join(readings)


def _words(error: OSError) -> str:
    return str(error) or type(error).__name__
