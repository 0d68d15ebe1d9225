"""How busy the machine is: processors, memory, load, network, from /proc; GPUs as far as seen.

Source: proc(5).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from ...system import threads
from .gpus import _NVIDIA_FIELDS, Gpu, amd_gpus, nvidia_gpu

_log = logging.getLogger("swapchart.proxy")

_KEPT_S = 3600.0
_ASK_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface; bytes since it is up."""

    name: str
    received: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The machine at one moment.

    Attributes:
        at: Wall clock; seconds since 1970.
        cores: How busy each core was since the sample before; percent.
        total: Memory; bytes, as are the following.
        used: Of it, what programs could not have at once.
        free: Of it, what they could.
        swap_total: Swap space.
        swap_used: Of it, in use.
        load: Over 1, 5 and 15 minutes.
        links: Without the loopback.
        gpus: Those that could be asked.
    """

    at: float
    cores: tuple[float, ...]
    total: int
    used: int
    free: int
    swap_total: int
    swap_used: int
    load: tuple[float, float, float]
    links: tuple[Link, ...] = ()
    gpus: tuple[Gpu, ...] = field(default=())


class Samples:
    """The samples of the last hour.

    Attributes:
        kept: The oldest first.
    """

    def __init__(self) -> None:
        self.kept: deque[Sample] = deque()

    @property
    def latest(self) -> Sample | None:
        """The last sample, or None."""
        return self.kept[-1] if self.kept else None

    def add(self, sample: Sample) -> None:
        """Keep *sample*, and drop what is too old."""
        self.kept.append(sample)
        while self.kept[0].at < sample.at - _KEPT_S:
            self.kept.popleft()


class HostSampler:
    """Takes samples; remembers what it needs for differences.

    Args:
        proc: Where /proc is.
        drm: Where the kernel shows graphics cards.
    """

    def __init__(self, proc: Path = Path("/proc"), drm: Path = Path("/sys/class/drm")) -> None:
        self._proc, self._drm = proc, drm
        self._ticks: list[tuple[int, int]] = []
        self._nvidia = shutil.which("nvidia-smi")

    def sample(self) -> Sample:
        """Look at the machine; takes milliseconds, with an NVIDIA GPU some hundred of them.

        Raises:
            OSError: There is no /proc here.
        """
        memory = self._memory()
        total, free = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
        swap_total = memory.get("SwapTotal", 0)
        return Sample(
            at=time(),
            cores=self._cores(),
            total=total,
            used=total - free,
            free=free,
            swap_total=swap_total,
            swap_used=swap_total - memory.get("SwapFree", 0),
            load=self._load(),
            links=self._links(),
            gpus=tuple(self.gpus()),
        )

    def gpus(self) -> list[Gpu]:
        """Look at the GPUs only."""
        return [*self._nvidia_gpus(), *amd_gpus(self._drm)]

    def _cores(self) -> tuple[float, ...]:
        ticks = []
        for line in (self._proc / "stat").read_text().splitlines():
            if line.startswith("cpu") and line[3].isdigit():
                numbers = [int(word) for word in line.split()[1:9]]
                ticks.append((sum(numbers), numbers[3] + numbers[4]))  # in all, idle and waiting
        before, self._ticks = self._ticks, ticks
        if len(before) != len(ticks):
            before = [(0, 0)] * len(ticks)  # the first time, or a core came or went: since boot
        return tuple(_percent_busy(old, new) for old, new in zip(before, ticks, strict=True))

    def _memory(self) -> dict[str, int]:
        found = {}
        for line in (self._proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdigit():
                found[name] = int(words[0]) * 1024
        return found

    def _load(self) -> tuple[float, float, float]:
        one, five, fifteen = (self._proc / "loadavg").read_text().split()[:3]
        return float(one), float(five), float(fifteen)

    def _links(self) -> tuple[Link, ...]:
        found = []
        for line in (self._proc / "net" / "dev").read_text().splitlines()[2:]:
            name, _, rest = line.partition(":")
            words = rest.split()
            if name.strip() != "lo" and len(words) >= 9:
                found.append(Link(name=name.strip(), received=int(words[0]), sent=int(words[8])))
        return tuple(found)

    def _nvidia_gpus(self) -> Sequence[Gpu]:
        if self._nvidia is None:
            return ()
        try:
            done = subprocess.run(
                [
                    self._nvidia, f"--query-gpu={','.join(_NVIDIA_FIELDS)}",
                    "--format=csv,noheader,nounits",
                ],
                capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()
        return [gpu for line in done.stdout.splitlines() if (gpu := nvidia_gpu(line))]


def _percent_busy(old: tuple[int, int], new: tuple[int, int]) -> float:
    total, idle = new[0] - old[0], new[1] - old[1]
    return round(max(100.0 * (total - idle) / total, 0.0), 2) if total > 0 else 0.0


_PAUSE_WHEN_OFF_S = 5.0


async def sample_on(
    samples: Samples, every_s: Callable[[], float | None], sampler: HostSampler
) -> None:
    """Add samples to *samples* for ever, *every_s* seconds apart; none while that is None."""
    while True:
        every = every_s()
        if every is not None:
            try:
                samples.add(await threads.run(sampler.sample))
            except OSError as error:
                _log.warning("this machine cannot be sampled: %s", error)
                return
        await asyncio.sleep(every or _PAUSE_WHEN_OFF_S)
