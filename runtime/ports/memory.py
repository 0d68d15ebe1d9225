"""Memory meter: reads the memory pools of the machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ...dataclass import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReading:
    """One look at a memory pool of the machine.

    Attributes:
        name: Name of the pool: ``RAM``, or ``GPU0`` and so on in the order of the driver.
        capacity: Size in bytes; 0 means that the driver does not say it.
        used: Bytes in use by all programs; None means unknown.
        processes: Process id -> bytes that it holds; None if the driver cannot tell them apart.
        source: Where it was read, such as ``nvml`` or ``meminfo``.
        device: Stable id of the device, such as a UUID; empty for RAM.
        others: Name of another program -> bytes that it holds, the largest ones first.
        vendor: ``nvidia``, ``amd`` or ``intel`` for a GPU, else empty.
        part_of: Pool that this memory belongs to, where a GPU uses main memory; else empty.
        is_prompt: Memory is free as soon as its process has ended, and what other programs use
            changes so often that its sum says nothing about one process; true of RAM.
        files: Process id -> bytes of mapped files among what it holds, in proportion to those that
            map them; `used` does not contain them.
        whole_files: Process id -> bytes of mapped files, whatever others map them.
    """

    name: str
    capacity: int
    used: int | None = None
    processes: Mapping[int, int] | None = None
    source: str = ""
    device: str = ""
    others: Mapping[str, int] = field(default_factory=dict)
    vendor: str = ""
    part_of: str = ""
    is_prompt: bool = False
    files: Mapping[int, int] = field(default_factory=dict)
    whole_files: Mapping[int, int] = field(default_factory=dict)


class MemoryMeter(Protocol):
    """Reads the memory pools of the machine."""

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        """Return a reading of each pool; it may be canceled and never blocks the event loop.

        Args:
            pids: Processes of services, whose own amounts are wanted.

        Raises:
            OSError: The machine or its driver did not respond.
        """
        ...
