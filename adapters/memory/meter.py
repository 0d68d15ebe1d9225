"""The meter: reads all pools in a thread, within a time limit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import anyio

from ...runtime.ports import PoolReading
from ..system import threads
from .host import HostMemory

_LIMIT_S = 2.0
_THREADS = threads.Limit("memory", 1)  # a driver that hangs takes no other thread


class Source(Protocol):
    """Reads one kind of pools; may block."""

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return a reading of each of its pools.

        Raises:
            OSError: The numbers are not available.
        """
        ...


class Meter:
    """Reads the pools of this machine.

    Args:
        sources: What to read; by default main memory.
        limit_s: Time limit of one reading in seconds.
    """

    def __init__(
        self, sources: Sequence[Source] | None = None, *, limit_s: float = _LIMIT_S
    ) -> None:
        self._sources = [HostMemory()] if sources is None else list(sources)
        self._limit_s = limit_s

    async def read(self, pids: Collection[int]) -> list[PoolReading]:
        """Return a reading of each pool.

        Raises:
            OSError: A source failed, or did not respond within the limit.
        """
        try:
            with anyio.fail_after(self._limit_s):
                return await threads.run_or_fail(
                    self.read_blocking, tuple(pids), limiter=_THREADS.limiter()
                )
        except TimeoutError as error:
            raise TimeoutError(f"no reading within {self._limit_s:g} s") from error
        except threads.NoThreadError as error:
            raise OSError(str(error)) from error

    def read_blocking(self, pids: Collection[int]) -> list[PoolReading]:
        """Return a reading of each pool, without a time limit.

        Raises:
            OSError: A source failed.
        """
        return [reading for source in self._sources for reading in source.read(pids)]
