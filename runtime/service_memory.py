"""Memory of one service at its start and after its end: its place, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .memory_ledger import MemoryLedger
from .ports import Command


class Watch(Protocol):
    """Interface of the memory watch that a lifecycle needs; see `MemoryWatch`."""

    def has_to_settle(self, service: str, incarnation: int) -> bool:
        """Return True if memory of *service*, which has ended, may have to come back."""
        ...

    async def settle(self, service: str, incarnation: int) -> None:
        """Wait until the memory of *service* has come back."""
        ...

    def conclude(self, service: str, incarnation: int) -> Mapping[str, int]:
        """End the wait; return the bytes by pool that have not come back."""
        ...


class ServiceMemory:
    """Interface of a lifecycle to the memory of its supervisor.

    Args:
        ledger: Claims on memory; None means that memory is no condition.
        watch: Reads the pools; None means that only what was granted is known.
    """

    def __init__(self, ledger: MemoryLedger | None, watch: Watch | None) -> None:
        self._ledger, self._watch = ledger, watch

    def placed(self, service: str, command: Command) -> Command:
        """Return *command* with the GPUs on which *service* was granted memory."""
        return command if self._ledger is None else self._ledger.placed(service, command)

    def missing_for_sleep(self, service: str) -> Mapping[str, int]:
        """Return the bytes by pool that are missing for *service* to go to sleep."""
        return {} if self._ledger is None else self._ledger.missing_for_sleep(service)

    def has_to_settle(self, service: str, incarnation: int) -> bool:
        """Return True if memory of *service*, which has ended, may have to come back."""
        return self._watch is not None and self._watch.has_to_settle(service, incarnation)

    async def settle(self, service: str, incarnation: int) -> None:
        """Wait until the memory of *service* has come back, as far as it can be read."""
        if self._watch is not None:
            await self._watch.settle(service, incarnation)

    def conclude(self, service: str, incarnation: int) -> Mapping[str, int]:
        """End the wait, and count what is missing as held by other programs.

        Returns:
            Pool -> bytes that have not come back.
        """
        return {} if self._watch is None else self._watch.conclude(service, incarnation)
