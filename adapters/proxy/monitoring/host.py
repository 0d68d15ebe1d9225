"""Load of the host: CPU, memory, swap, load average and network by /proc, GPUs by their drivers.

Samples are taken in a thread. One takes about 0.3 ms, and up to seconds where nvidia-smi is asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time

from ....dataclass import dataclass
from ...system import threads
from . import proc
from .gpus import NVIDIA_FIELDS, Gpu, amd_gpus, nvidia_gpu

_log = logging.getLogger("swapchart.proxy")

_HISTORY_S = 3600.0
_NVIDIA_TIMEOUT_S = 5.0
_RETRY_WHEN_OFF_S = 5.0  # after which a monitor that is switched off looks at its setting again
_LOOPBACK = ("lo", "lo0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInterface:
    """Counters of one network interface.

    Attributes:
        name: Name in the system, such as ``eth0``.
        received: Bytes received since the interface was created.
        sent: Bytes sent since then.
    """

    name: str
    received: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """State of the host at one moment.

    Attributes:
        at: Wall clock; seconds since 1970.
        cores: Utilization of each core since the previous sample; shape (cores,), percent.
        memory_total: Physical memory in bytes.
        memory_used: Memory in bytes that programs could not get at once.
        memory_available: Memory in bytes that programs could get without swapping.
        swap_total: Swap space in bytes.
        swap_used: Swap space in use, in bytes.
        load: Load averages over 1, 5 and 15 minutes.
        interfaces: Network interfaces, without the loopback.
        gpus: GPUs whose drivers answered.
    """

    at: float
    cores: tuple[float, ...]
    memory_total: int
    memory_used: int
    memory_available: int
    swap_total: int
    swap_used: int
    load: tuple[float, float, float]
    interfaces: tuple[NetworkInterface, ...] = ()
    gpus: tuple[Gpu, ...] = ()


class Samples:
    """Samples of the last hour.

    Attributes:
        recent: The samples, the oldest first.
    """

    def __init__(self) -> None:
        self.recent: deque[Sample] = deque()

    @property
    def latest(self) -> Sample | None:
        """The last sample, or None before the first."""
        return self.recent[-1] if self.recent else None

    def add(self, sample: Sample) -> None:
        """Append *sample* and drop those that are older than an hour."""
        self.recent.append(sample)
        while self.recent[0].at < sample.at - _HISTORY_S:
            self.recent.popleft()


class HostSampler:
    """Takes samples and keeps the CPU times of the last one, to compute differences.

    Args:
        drm: Folder in which the kernel lists graphics cards.
        proc: Where /proc is mounted.
    """

    def __init__(self, drm: Path = Path("/sys/class/drm"), proc: Path = Path("/proc")) -> None:
        self._drm, self._proc = drm, proc
        self._cpu_times: list[tuple[int, int]] = []
        self._nvidia_smi = shutil.which("nvidia-smi")

    def sample(self) -> Sample:
        """Return a sample of this moment; blocks for up to `_NVIDIA_TIMEOUT_S` with an NVIDIA GPU.

        Raises:
            OSError: The system does not provide the numbers, for example without /proc.
        """
        memory = proc.memory_bytes(self._proc)
        total, available = memory["MemTotal"], memory["MemAvailable"]
        swap_total = memory.get("SwapTotal", 0)
        return Sample(
            at=time(),
            cores=self._cores(),
            memory_total=total,
            memory_used=total - available,
            memory_available=available,
            swap_total=swap_total,
            swap_used=swap_total - memory.get("SwapFree", 0),
            load=os.getloadavg(),
            interfaces=tuple(
                NetworkInterface(name=name, received=received, sent=sent)
                for name, (received, sent) in proc.interface_bytes(self._proc).items()
                if name not in _LOOPBACK
            ),
            gpus=tuple(self.gpus()),
        )

    def gpus(self) -> list[Gpu]:
        """Return a sample of the GPUs alone."""
        return [*self._nvidia_gpus(), *amd_gpus(self._drm)]

    def _cores(self) -> tuple[float, ...]:
        """Return the utilization of each core since the last call, at first since the boot."""
        times = proc.core_ticks(self._proc)
        before, self._cpu_times = self._cpu_times, times
        if len(before) != len(times):  # the first sample, or a core was added or removed
            before = [(0, 0)] * len(times)
        return tuple(_utilization(old, new) for old, new in zip(before, times, strict=True))

    def _nvidia_gpus(self) -> Sequence[Gpu]:
        if self._nvidia_smi is None:
            return ()
        try:
            done = subprocess.run(
                [
                    self._nvidia_smi, f"--query-gpu={','.join(NVIDIA_FIELDS)}",
                    "--format=csv,noheader,nounits",
                ],
                capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT_S, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()
        return [gpu for line in done.stdout.splitlines() if (gpu := nvidia_gpu(line))]


def _utilization(old: tuple[int, int], new: tuple[int, int]) -> float:
    """Return the busy share between two pairs of total and idle ticks, in percent."""
    total, idle = new[0] - old[0], new[1] - old[1]
    return round(min(max(100.0 * (total - idle) / total, 0.0), 100.0), 2) if total > 0 else 0.0


async def sample_on(
    samples: Samples, every_s: Callable[[], float | None], sampler: HostSampler
) -> None:
    """Add a sample to *samples* every *every_s* seconds until cancelled; none while that is None.

    Returns only if the host cannot be sampled.
    """
    while True:
        every = every_s()
        if every is not None:
            try:
                samples.add(await threads.run(sampler.sample))
            except OSError as error:
                _log.warning("the load of this host cannot be read: %s", error)
                return
        await asyncio.sleep(every or _RETRY_WHEN_OFF_S)
