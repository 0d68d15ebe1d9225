"""Bodies that describe the host: its load and its hardware."""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import UNSET

from .base import Body, Maybe, Part


class NetworkCounters(Part, kw_only=True):
    """Bytes that a network interface has carried."""

    name: str
    bytes_recv: int
    bytes_sent: int


class HostLoad(Part, kw_only=True):
    """Load of the host at one moment; memory is in MiB, utilization in percent."""

    timestamp: str
    cpu_util_per_core: list[float]
    mem_total_mb: int
    mem_used_mb: int
    mem_free_mb: int
    swap_total_mb: int
    swap_used_mb: int
    load_avg_1: float
    load_avg_5: float
    load_avg_15: float
    net_io: list[NetworkCounters]


class GpuLoad(Part, kw_only=True):
    """Load of a GPU at one moment; null means unknown."""

    timestamp: str
    id: int
    name: str
    uuid: str
    temp_c: float | None
    vram_temp_c: float | None
    gpu_util_pct: float | None
    mem_util_pct: float | None
    mem_used_mb: float | None
    mem_total_mb: float | None
    fan_speed_pct: float | None
    power_draw_w: float | None


class Performance(Body, kw_only=True):
    """Samples of the last hour, the oldest first; null without any."""

    enabled: Literal[True] = True
    sys_stats: list[HostLoad] | None
    gpu_stats: list[GpuLoad] | None


class PerformanceOff(Body, kw_only=True):
    """The performance monitor is switched off (``performance`` in the configuration)."""

    STATUS: ClassVar[int] = 503
    enabled: Literal[False] = False


class Detector(Part, kw_only=True):
    """Program that detected the hardware."""

    name: str
    version: str


class CaptureInfo(Part, kw_only=True):
    """How the hardware was detected."""

    scope: str
    method: str
    detector: Detector


class CpuArchitecture(Part, kw_only=True):
    """Architecture of the processor, and its name in the system."""

    name: str
    raw_name: str


class OperatingSystem(Part, kw_only=True):
    """Operating system; null means unknown."""

    family: str
    name: str | None
    version: str | None
    kernel: str | None
    raw_family: Maybe[str] = UNSET


class Environment(Part, kw_only=True):
    """Environment of the system: native, a container, a virtual machine, WSL."""

    kind: str
    name: str | None
    version: str | None


class Processor(Part, kw_only=True):
    """Processor; null means unknown."""

    vendor: str | None
    model: str | None
    socket_count: int | None
    physical_core_count: int | None
    logical_thread_count: int | None


class Memory(Part, kw_only=True):
    """Memory in bytes that the host, or the control group, has."""

    capacity_bytes: int | None


class AcceleratorMemory(Part, kw_only=True):
    """Memory of an accelerator in bytes."""

    kind: str
    capacity_bytes: int | None


class Accelerator(Part, kw_only=True):
    """A GPU; null means unknown."""

    index: int
    kind: str
    vendor: str
    model: str
    architecture: str | None
    memory: AcceleratorMemory
    driver: str | None
    power_limit_watts: float | None


class Hardware(Body, kw_only=True):
    """Hardware and operating system of the host."""

    schema_version: int
    captured_at: str
    capture: CaptureInfo
    architecture: CpuArchitecture
    operating_system: OperatingSystem
    environment: Environment
    cpu: Processor
    memory: Memory
    accelerators: list[Accelerator]
