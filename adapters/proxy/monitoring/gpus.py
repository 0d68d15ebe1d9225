"""State of GPUs, as nvidia-smi and sysfs report it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ....dataclass import dataclass

_MIB = 1 << 20
_LARGEST = 1e12  # a larger reading is a fault of the driver

#: Fields that nvidia-smi is asked for, in the order in which `nvidia_gpu` reads them.
NVIDIA_FIELDS = (
    "index", "name", "uuid", "temperature.gpu", "temperature.memory", "utilization.gpu",
    "utilization.memory", "memory.used", "memory.total", "fan.speed", "power.draw",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """State of one GPU at one moment; None means unknown.

    Attributes:
        index: Number of the GPU in the system.
        name: Product name.
        is_nvidia: The vendor is NVIDIA; otherwise AMD.
        uuid: Identifier of the device; empty if it has none.
        celsius: Temperature of the chip in degrees Celsius.
        memory_celsius: Temperature of the memory in degrees Celsius.
        busy: Utilization of the chip in percent.
        memory_busy: Utilization of the memory in percent.
        used_mib: Memory in use, in MiB.
        total_mib: Size of the memory in MiB.
        fan: Speed of the fan in percent of its maximum.
        watts: Power draw in watts.
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


def nvidia_gpu(line: str) -> Gpu | None:
    """Return the GPU that a line of nvidia-smi describes, or None for any other line."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(NVIDIA_FIELDS) or not words[0].isdecimal() or len(words[0]) > 9:
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
    """Return the GPUs that the amdgpu driver lists below the folder *drm*."""
    found: list[Gpu] = []
    for device in sorted(drm.glob("card[0-9]*/device")):
        total = _file_number(device / "mem_info_vram_total")
        if total is None:
            continue  # of another driver
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
