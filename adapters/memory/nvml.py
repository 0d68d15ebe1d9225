"""Memory of NVIDIA GPUs, read through the driver's library (NVML).

The library comes from the package ``nvidia-ml-py``, the extra ``swapchart[nvidia]``. It and the
driver are loaded at the first reading; on a machine without an NVIDIA driver there is nothing to
read. Each MIG instance of a GPU is a pool in place of the GPU.

A process that uses a GPU for graphics and for computing is in both lists with its whole amount,
so it counts once. Under WDDM (Windows, WSL) the driver does not say what a process holds.

Source: NVML API Reference, sections Device Queries and Multi Instance GPU Management.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...runtime.ports import PoolReading
from .host import RAM
from .programs import split_by_owner

#: Names of GPUs that use main memory and have none of their own.
_UNIFIED = re.compile(r"\b(?:Tegra|Orin|Xavier|Thor|GB10)\b|\(nvgpu\)", re.IGNORECASE)


class Driver(Protocol):
    """The functions of the driver's library that a reading needs; each may block.

    All raise OSError if the driver does not respond.
    """

    def open(self) -> bool:
        """Load the library; return False if this machine has no driver."""
        ...

    def devices(self) -> Sequence[Any]:
        """Return a handle of each GPU, or of its MIG instances, in the order of the driver."""
        ...

    def identity(self, device: Any) -> tuple[str, str]:
        """Return UUID and product name."""
        ...

    def memory(self, device: Any) -> tuple[int, int] | None:
        """Return size and bytes in use; None if the device does not say it."""
        ...

    def processes(self, device: Any) -> Sequence[tuple[int, int | None]] | None:
        """Return (process id, bytes) of each process; None if the device does not say it.

        The bytes of one process are None if the driver does not know them.
        """
        ...


class NvidiaMemory:
    """Reads the memory of NVIDIA GPUs.

    Args:
        driver: The driver's library.
        root: Root of the file system, where names of programs are read.
    """

    def __init__(self, driver: Driver | None = None, root: Path = Path("/")) -> None:
        self._driver: Driver = NvmlDriver() if driver is None else driver
        self._root = root

    def is_available(self) -> bool:
        """Return True if the driver can be read.

        Raises:
            OSError: There is a driver, and it does not respond.
        """
        return self._driver.open()

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return a reading of each GPU or MIG instance.

        Raises:
            OSError: The driver does not respond.
        """
        if not self._driver.open():
            return []
        services = frozenset(pids)
        return [
            self._reading(index, device, services)
            for index, device in enumerate(self._driver.devices())
        ]

    def _reading(self, index: int, device: Any, pids: frozenset[int]) -> PoolReading:
        uuid, name = self._driver.identity(device)
        sizes = self._driver.memory(device)
        held = _by_process(self._driver.processes(device))
        own, others = (None, {}) if held is None else split_by_owner(held, pids, self._root)
        return PoolReading(
            name=f"GPU{index}", capacity=0 if sizes is None else sizes[0],
            used=None if sizes is None else sizes[1], processes=own, source="nvml", device=uuid,
            others=others, vendor="nvidia", part_of=RAM if _UNIFIED.search(name) else "",
        )  # fmt: skip


def _by_process(listed: Sequence[tuple[int, int | None]] | None) -> dict[int, int] | None:
    """Return the bytes of each process; None if those of any process are unknown."""
    if listed is None:
        return None
    held: dict[int, int] = {}
    for pid, amount in listed:
        if amount is None:
            return None
        held[pid] = max(held.get(pid, 0), amount)
    return held


class NvmlDriver:
    """The driver's library, through the package ``nvidia-ml-py``."""

    def __init__(self) -> None:
        self._nvml: Any = None

    def open(self) -> bool:
        """Load the library; return False if this machine has no driver, or the package is missing.

        Raises:
            OSError: There is a driver, and it does not respond.
        """
        if self._nvml is not None:
            return True
        try:
            import pynvml
        except ImportError:
            return False
        try:
            pynvml.nvmlInit()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return False
        except pynvml.NVMLError as error:
            raise OSError(f"nvml: {error}") from error
        self._nvml = pynvml
        return True

    def devices(self) -> list[Any]:
        """Return a handle of each GPU, or of its MIG instances, in the order of the driver."""
        nvml, found = self._nvml, []
        absent = (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument)
        for index in range(self._call("nvmlDeviceGetCount")):
            device = self._call("nvmlDeviceGetHandleByIndex", index)
            most = self._optional("nvmlDeviceGetMaxMigDeviceCount", device) or 0
            instances = [
                self._optional("nvmlDeviceGetMigDeviceHandleByIndex", device, number, also=absent)
                for number in range(most)
            ]
            found += [each for each in instances if each is not None] or [device]
        return found

    def identity(self, device: Any) -> tuple[str, str]:
        """Return UUID and product name."""
        uuid = self._call("nvmlDeviceGetUUID", device)
        return str(uuid), str(self._optional("nvmlDeviceGetName", device) or "")

    def memory(self, device: Any) -> tuple[int, int] | None:
        """Return size and bytes in use; None if the device does not say it.

        In use is all that is not free, since the second version of the call leaves out what the
        driver itself has reserved.
        """
        version = self._nvml.nvmlMemory_v2
        found = self._optional("nvmlDeviceGetMemoryInfo", device, version) or self._optional(
            "nvmlDeviceGetMemoryInfo", device
        )
        return None if found is None else (int(found.total), int(found.total - found.free))

    def processes(self, device: Any) -> list[tuple[int, int | None]] | None:
        """Return (process id, bytes) of each process; None if the device does not say it."""
        found: list[tuple[int, int | None]] = []
        is_known = False
        for kind in ("Compute", "Graphics", "MPSCompute"):
            name = f"nvmlDeviceGet{kind}RunningProcesses"
            listed = self._optional(f"{name}_v3", device)
            if listed is None:  # an older driver
                listed = self._optional(f"{name}_v2", device)
            if listed is not None:
                is_known = True
                found += [(int(each.pid), each.usedGpuMemory) for each in listed]
        return found if is_known else None

    def _optional(self, name: str, *args: object, also: tuple[type[Exception], ...] = ()) -> Any:
        """Return the result of a call; None if it is not supported, or fails with *also*."""
        nvml = self._nvml
        unsupported = (
            nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound,
            nvml.NVMLError_ArgumentVersionMismatch, *also,
        )  # fmt: skip
        try:
            return self._call(name, *args, passed_on=unsupported)
        except unsupported:
            return None

    def _call(self, name: str, *args: object, passed_on: tuple[type[Exception], ...] = ()) -> Any:
        nvml = self._nvml
        try:
            return getattr(nvml, name)(*args)
        except passed_on:
            raise
        except nvml.NVMLError as error:
            self._nvml = None  # the next reading loads the driver again
            raise OSError(f"nvml: {name}: {error}") from error
