"""How busy the machine is: processors, memory, load, network, from /proc; GPUs as far as seen.

Source: llama-swap.md section 5.12, proc(5).
"""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time

_MIB = 1 << 20
_KEPT_S = 3600.0
_ASK_LIMIT_S = 5.0
_LARGEST = 1e12  # of what a GPU tells of itself
_NVIDIA_FIELDS = (
    "index", "name", "uuid", "temperature.gpu", "temperature.memory", "utilization.gpu",
    "utilization.memory", "memory.used", "memory.total", "fan.speed", "power.draw",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface; bytes since it is up."""

    name: str
    received: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one moment; None is unknown.

    Attributes:
        index: Number in the system.
        name: Of the product.
        is_nvidia: Of NVIDIA; else of AMD.
        uuid: Empty if it has none.
        celsius: Temperature of the chip.
        memory_celsius: Temperature of its memory.
        busy: Percent of the time.
        memory_busy: Percent of the time.
        used_mib: Memory in use.
        total_mib: Memory in all.
        fan: Percent of its speed.
        watts: What it draws.
    """

    index: int
    name: str
    is_nvidia: bool = False
    uuid: str = ""
    celsius: float | None = None
    memory_celsius: float | None = None
    busy: float | None = None
    memory_busy: float | None = None
    used_mib: float | None = None
    total_mib: float | None = None
    fan: float | None = None
    watts: float | None = None


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


def nvidia_gpu(line: str) -> Gpu | None:
    """Read a line of nvidia-smi; None: it is none."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_NVIDIA_FIELDS) or not words[0].isdecimal() or len(words[0]) > 9:
        return None
    numbers = [_number(word) for word in words[3:]]
    return Gpu(
        index=int(words[0]), name=words[1], is_nvidia=True, uuid=words[2],
        celsius=numbers[0], memory_celsius=numbers[1], busy=numbers[2], memory_busy=numbers[3],
        used_mib=numbers[4], total_mib=numbers[5], fan=numbers[6], watts=numbers[7],
    )  # fmt: skip


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None  # [N/A], [Not Supported]
    return value if abs(value) < _LARGEST else None  # no nan and no infinity


def amd_gpus(drm: Path) -> list[Gpu]:
    """Return the GPUs that the kernel's own driver for AMD shows below *drm*."""
    found: list[Gpu] = []
    for device in sorted(drm.glob("card[0-9]*/device")):
        total = _file_number(device / "mem_info_vram_total")
        if total is None:
            continue  # no amdgpu
        used = _file_number(device / "mem_info_vram_used")
        sensors = next(iter(sorted(device.glob("hwmon/hwmon*"))), device)
        watts = _file_number(sensors / "power1_average") or _file_number(sensors / "power1_input")
        chip, memory = _file_number(sensors / "temp1_input"), _file_number(sensors / "temp3_input")
        fan, fan_max = _file_number(sensors / "pwm1"), _file_number(sensors / "pwm1_max")
        found.append(
            Gpu(
                index=len(found), name=_file_text(device / "product_name") or "AMD GPU",
                uuid=_file_text(device / "unique_id"),
                celsius=None if chip is None else chip / 1000,
                memory_celsius=None if memory is None else memory / 1000,
                busy=_file_number(device / "gpu_busy_percent"),
                memory_busy=_file_number(device / "mem_busy_percent"),
                used_mib=None if used is None else used / _MIB, total_mib=total / _MIB,
                fan=100 * fan / fan_max if fan is not None and fan_max else None,
                watts=None if watts is None else watts / 1e6,
            )
        )  # fmt: skip
    return found


def _file_text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def _file_number(path: Path) -> float | None:
    return _number(_file_text(path))
