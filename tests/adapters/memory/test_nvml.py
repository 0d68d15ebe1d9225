"""Memory of NVIDIA GPUs: recorded answers of the driver, its library, and a real device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swapchart.adapters.memory.nvidia_smi import NvidiaSmi
from swapchart.adapters.memory.nvml import NvidiaMemory, NvmlDriver
from swapchart.runtime.ports import PoolReading

MIB = 1 << 20
GIB = 1 << 30


@dataclass(slots=True, kw_only=True)
class Recorded:
    """Answers of one device."""

    uuid: str
    name: str = "NVIDIA GeForce RTX 3090"
    memory: tuple[int, int] | None = (24 * GIB, 13 * GIB)
    processes: list[tuple[int, int | None]] | None = field(default_factory=list)


class RecordedDriver:
    """The five functions of the driver's library, from a recording."""

    def __init__(self, *recorded: Recorded) -> None:
        self._recorded = recorded

    def open(self) -> bool:
        return bool(self._recorded)

    def devices(self) -> Sequence[Recorded]:
        return self._recorded

    def identity(self, device: Any) -> tuple[str, str]:
        return device.uuid, device.name

    def memory(self, device: Any) -> tuple[int, int] | None:
        return device.memory  # type: ignore[no-any-return]

    def processes(self, device: Any) -> Sequence[tuple[int, int | None]] | None:
        return device.processes  # type: ignore[no-any-return]


def _named(root: Path, **names: str) -> Path:
    for pid, name in names.items():
        folder = root / "proc" / pid.removeprefix("p")
        folder.mkdir(parents=True)
        (folder / "comm").write_text(f"{name}\n")
    return root


def test_nvidia_memory_tells_services_from_other_programs(tmp_path: Path) -> None:
    processes: list[tuple[int, int | None]] = [
        (100, 9 * GIB), (7, 700 * MIB), (8, 100 * MIB), (9, 200 * MIB), (7, 700 * MIB),
    ]  # fmt: skip
    driver = RecordedDriver(
        Recorded(uuid="GPU-aa", processes=processes), Recorded(uuid="GPU-bb", memory=(8 * GIB, 0))
    )
    root = _named(tmp_path, p7="Xorg", p8="firefox", p9="firefox")

    assert NvidiaMemory(driver, root).read([100, 101]) == [
        PoolReading(
            name="GPU0", capacity=24 * GIB, used=13 * GIB, processes={100: 9 * GIB},
            source="nvml", device="GPU-aa", others={"Xorg": 700 * MIB, "firefox": 300 * MIB},
            vendor="nvidia",
        ),
        PoolReading(
            name="GPU1", capacity=8 * GIB, used=0, processes={}, source="nvml", device="GPU-bb",
            vendor="nvidia",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("processes", [None, [(100, None)], [(100, 5), (7, None)]])
def test_nvidia_memory_without_amounts_of_processes_tells_none_apart(
    processes: list[tuple[int, int | None]] | None,
) -> None:
    driver = RecordedDriver(Recorded(uuid="GPU-aa", processes=processes))
    (reading,) = NvidiaMemory(driver).read([100])
    assert (reading.processes, reading.others) == (None, {})
    assert reading.used == 13 * GIB


@pytest.mark.parametrize(
    ("name", "part_of"),
    [
        ("NVIDIA GB10", "RAM"), ("Orin (nvgpu)", "RAM"), ("NVIDIA Tegra X1", "RAM"),
        ("NVIDIA Jetson Thor", "RAM"), ("NVIDIA GB200", ""), ("NVIDIA H200", ""),
    ],
)  # fmt: skip
def test_nvidia_memory_unified_devices_are_part_of_main_memory(name: str, part_of: str) -> None:
    driver = RecordedDriver(Recorded(uuid="GPU-aa", name=name, memory=None, processes=None))
    (reading,) = NvidiaMemory(driver).read([])
    assert (reading.part_of, reading.capacity, reading.used) == (part_of, 0, None)


def test_nvidia_memory_mig_instances_are_pools_by_their_uuid() -> None:
    driver = RecordedDriver(
        Recorded(uuid="MIG-1", memory=(10 * GIB, GIB)),
        Recorded(uuid="MIG-2"),
        Recorded(uuid="GPU-b"),
    )
    readings = NvidiaMemory(driver).read([])
    assert [(each.name, each.device) for each in readings] == [
        ("GPU0", "MIG-1"), ("GPU1", "MIG-2"), ("GPU2", "GPU-b"),
    ]  # fmt: skip


def test_nvidia_memory_without_driver_is_nothing() -> None:
    assert NvidiaMemory(RecordedDriver()).read([]) == []


# ---- the package nvidia-ml-py, on a library that responds as the driver's does
_LIBRARY = r"""
#include <string.h>
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } process;
static long handles[] = {0, 1, 2, 3};  /* 0: GPU with two MIG instances 2 and 3; 1: old GPU */
static int lost = 0;
int nvmlInitWithFlags(unsigned int f) { lost = 0; return 0; }
const char *nvmlErrorString(int e) { return "recorded"; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return lost ? 15 : 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, long **d) { *d = &handles[i]; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(long *d, unsigned int *n) { *n = 7; return *d ? 3 : 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(long *d, unsigned int i, long **m) {
  if (i > 1) return 6;
  *m = &handles[2 + i];
  return 0;
}
int nvmlDeviceGetUUID(long *d, char *text, unsigned int n) {
  strcpy(text, *d == 1 ? "GPU-old" : *d == 2 ? "MIG-a" : "MIG-b");
  return 0;
}
int nvmlDeviceGetName(long *d, char *text, unsigned int n) {
  strcpy(text, "NVIDIA A100");
  return 0;
}
int nvmlDeviceGetMemoryInfo_v2(long *d, memory_v2 *m) {
  if (*d == 1) return 3;
  m->total = 20ull << 30; m->reserved = 1ull << 30; m->free = 7ull << 30; m->used = 12ull << 30;
  return 0;
}
int nvmlDeviceGetMemoryInfo(long *d, memory_v1 *m) {
  m->total = 8ull << 30; m->free = 5ull << 30; m->used = 3ull << 30;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(long *d, unsigned int *n, process *p) {
  if (*d == 1) return 3;
  if (!p) { *n = 1; return 7; }
  *n = 1;
  p[0].pid = 100 + *d;
  p[0].used = *d == 2 ? 11ull << 30 : ~0ull;
  return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v2(long *d, unsigned int *n, process *p) {
  if (*d != 1) return 3;
  if (!p) { *n = 1; return 7; }
  p[0].pid = 102;
  p[0].used = 1ull << 30;
  *n = 1;
  return 0;
}
int lose(void) { lost = 1; return 0; }
"""
_READ = """
import ctypes
from swapchart.adapters.memory.nvml import NvidiaMemory
memory = NvidiaMemory()
for each in memory.read([102]):
    print(each.name, each.device, each.capacity >> 30, each.used >> 30, each.processes)
ctypes.CDLL("libnvidia-ml.so.1").lose()
try:
    memory.read([])
except OSError as error:
    print(error)
print(len(memory.read([])))
"""


def test_nvml_driver_reads_what_the_library_says(tmp_path: Path) -> None:
    """MIG instances, both versions of the memory call, missing functions, a GPU that is lost."""
    pytest.importorskip("pynvml")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "driver.c").write_text(_LIBRARY)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", "-o", library, tmp_path / "driver.c"], check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", _READ], check=False, capture_output=True, text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
    )  # fmt: skip
    assert not done.stderr
    assert done.stdout.splitlines() == [
        f"GPU0 MIG-a 20 13 {{102: {11 * GIB}}}",
        "GPU1 MIG-b 20 13 None",
        f"GPU2 GPU-old 8 3 {{102: {GIB}}}",
        "nvml: nvmlDeviceGetCount: GPU is lost",
        "3",
    ]


# ---- nvidia-smi
def test_nvidia_smi_is_read_where_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "*compute-apps*) printf 'GPU-a, 100, 1024\\nGPU-a, 7, 512\\nGPU-b, 100, [N/A]\\n';;\n"
        "*) printf '0, GPU-a, 24576, 2048\\n1, GPU-b, 8192, 100\\n2, GPU-c, [N/A], [N/A]\\n';;\n"
        "esac\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    readings = NvidiaSmi(_named(tmp_path, p7="Xorg")).read([100])

    assert [(r.name, r.device, r.capacity, r.used, r.processes) for r in readings] == [
        ("GPU0", "GPU-a", 24 * GIB, 2 * GIB, {100: GIB}),
        ("GPU1", "GPU-b", 8 * GIB, 100 * MIB, None),
        ("GPU2", "GPU-c", 0, None, {}),
    ]
    assert readings[0].others == {"Xorg": 512 * MIB}


def test_nvidia_smi_that_fails_raises_an_oserror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\nexit 9\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(OSError, match=r"nvidia-smi failed: .*exit status 9"):
        NvidiaSmi().read([])


# ---- a real device
_ALLOCATE = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def check(code):
    if code: sys.exit(f"CUDA error {code}")
context, block = ctypes.c_void_p(), ctypes.c_uint64()
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(1 << 30)))
print("ready", flush=True)
input()
"""


def test_nvidia_memory_of_a_real_device_shows_what_a_process_allocates() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    if not NvmlDriver().open():
        pytest.skip("this machine has no NVIDIA driver: memory of a real GPU is NOT tested")
    memory = NvidiaMemory()
    before = memory.read([])
    assert before
    assert all(0 <= (each.used or 0) <= each.capacity for each in before)
    with subprocess.Popen(
        [sys.executable, "-c", _ALLOCATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        is_ready = child.stdout.readline() == b"ready\n"
        after = memory.read([child.pid])
        child.stdin.close()
    assert is_ready
    grown = sum(each.used or 0 for each in after) - sum(each.used or 0 for each in before)
    assert GIB <= grown < 4 * GIB
    assert any((each.processes or {}).get(child.pid, 0) >= GIB for each in after)
