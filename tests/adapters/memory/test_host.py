"""Main memory: sizes and use of the machine, cgroup limits, and what processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from swapchart.adapters.memory import Meter
from swapchart.adapters.memory.host import HostMemory
from swapchart.runtime.memory.readings import shared
from swapchart.runtime.ports import PoolReading

MIB = 1 << 20
_ALLOCATE = "import sys, time; block = b'x' * (200 << 20); print('ready', flush=True); input()"


def _machine(root: Path, *, total: int = 1000, available: int = 400) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n"
    )
    return root


def _cgroup(root: Path, path: str, **files: str) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_host_memory_of_this_machine_is_read() -> None:
    (reading,) = HostMemory().read([os.getpid()])

    assert reading.name == "RAM"
    assert reading.used is not None
    assert 0 < reading.used <= reading.capacity
    assert reading.processes is not None
    assert MIB < reading.processes[os.getpid()] < reading.capacity


def test_host_memory_of_a_process_is_what_it_allocated() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ALLOCATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        (reading,) = HostMemory().read([child.pid, 2**22])
        assert child.stdin is not None
        child.stdin.write(b"\n")

    assert reading.processes is not None
    assert reading.processes.keys() == {child.pid}
    assert 200 * MIB <= reading.processes[child.pid] < 230 * MIB


def test_host_memory_use_is_what_programs_cannot_get(tmp_path: Path) -> None:
    (reading,) = HostMemory(_machine(tmp_path)).read([])
    expected = PoolReading(
        name="RAM", capacity=1000 << 10, used=600 << 10, processes={}, source="meminfo",
        is_prompt=True,
    )  # fmt: skip
    assert reading == expected


@pytest.mark.parametrize(
    ("files", "capacity", "used"),
    [
        ({"memory_max": "max", "memory_current": "5"}, 1000 << 10, 600 << 10),
        ({"memory_max": "500000", "memory_current": "100000"}, 500_000, 100_000),
        (
            {
                "memory_max": "500000", "memory_current": "100000",
                "memory_stat": "anon 1\ninactive_file 60000\n",
            },
            500_000, 40_000,
        ),
        (
            {
                "memory_max": "500000", "memory_current": "100000",
                "memory_stat": "anon 1\nactive_file 20000\ninactive_file 60000\n",
            },
            500_000, 20_000,
        ),
        (
            {"memory_max": "500000", "memory_high": "300000", "memory_current": "100000"},
            300_000, 100_000,
        ),
        ({"memory_max": "9000000000", "memory_current": "100000"}, 1000 << 10, 600 << 10),
    ],
)  # fmt: skip
def test_host_memory_smallest_cgroup_limit_is_the_capacity(
    tmp_path: Path, files: dict[str, str], capacity: int, used: int
) -> None:
    root = _machine(tmp_path)
    (root / "proc/self/cgroup").write_text("0::/user/service\n")
    _cgroup(root, "user", **files)

    (reading,) = HostMemory(root).read([])

    assert (reading.capacity, reading.used) == (capacity, used)


@pytest.mark.parametrize("path", ["models.slice", "/models.slice", "/sys/fs/cgroup/models.slice/x"])
def test_host_memory_limit_of_a_named_cgroup_is_the_capacity(tmp_path: Path, path: str) -> None:
    """It is not that of the proxy: the models run in it, or in a part of it."""
    root = _machine(tmp_path)
    _cgroup(root, "models.slice", memory_max="300000", memory_current="120000")
    _cgroup(root, "models.slice/x", memory_max="max", memory_current="1")
    host = HostMemory(root)
    assert host.read([])[0].capacity == 1000 << 10
    host.cgroup = path
    assert host.has_cgroup()
    (reading,) = host.read([])
    assert (reading.capacity, reading.used) == (300_000, 120_000)
    host.cgroup = "other.slice"
    assert not host.has_cgroup()
    assert host.read([])[0].capacity == 1000 << 10
    host.cgroup = "../../proc"
    assert not host.has_cgroup()


def _process(root: Path, pid: int, rollup: str, rss_file: int) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir()
    (folder / "smaps_rollup").write_text(rollup)
    (folder / "status").write_text(f"Name:\tx\nRssFile:\t{rss_file} kB\n")


def test_host_memory_mapped_files_are_told_apart(tmp_path: Path) -> None:
    """The kernel counts them as available, unless they are locked."""
    root = _machine(tmp_path)
    _process(root, 7, "Pss: 300 kB\nPss_Anon: 90 kB\nPss_File: 200 kB\nLocked: 0 kB\n", 350)
    _process(root, 8, "Pss: 300 kB\nPss_File: 200 kB\nLocked: 150 kB\n", 200)
    _process(root, 9, "Pss: 300 kB\n", 0)

    (reading,) = HostMemory(root).read([7, 8, 9])

    assert reading.processes == dict.fromkeys((7, 8, 9), 300 << 10)
    assert reading.files == {7: 200 << 10, 8: 50 << 10}
    assert reading.whole_files == {7: 350 << 10, 8: 50 << 10}


_MAP = """
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for at in range(0, len(block), 4096):
    block[at]
print('ready', flush=True)
input()
"""


def test_host_memory_of_two_processes_with_one_file_is_half_of_it_each(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * (64 * MIB))
    children = []
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", _MAP, str(weights)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        children.append(child)
    (reading,) = HostMemory().read([child.pid for child in children])
    for child in children:
        child.communicate(b"\n")

    for child in children:
        assert 32 * MIB <= reading.files[child.pid] < 56 * MIB
        assert 64 * MIB <= reading.whole_files[child.pid] < 90 * MIB
        assert shared([child.pid], reading.files, reading.whole_files) < 48 * MIB
    assert (
        min(shared([child.pid], reading.files, reading.whole_files) for child in children)
        >= 32 * MIB
    )


def test_host_memory_cgroup_v1_limit_is_read(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    (root / "proc/self/cgroup").write_text("3:cpu:/a\n7:memory:/a\n")
    folder = root / "sys/fs/cgroup/memory/a"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("200000")
    (folder / "memory.usage_in_bytes").write_text("50000")

    (reading,) = HostMemory(root).read([])

    assert (reading.capacity, reading.used) == (200_000, 50_000)


def test_meter_source_that_hangs_fails_within_the_limit() -> None:
    release = threading.Event()

    class Hanging:
        def read(self, pids: object) -> list[PoolReading]:
            release.wait(30)
            return []

    async def main() -> None:
        with anyio.fail_after(5), pytest.raises(OSError, match="no reading within"):
            await Meter([Hanging()], limit_s=0.2).read(())
        release.set()

    anyio.run(main)


def test_meter_reads_all_sources() -> None:
    class One:
        def read(self, pids: object) -> list[PoolReading]:
            return [PoolReading(name="NPU", capacity=1)]

    async def main() -> list[str]:
        return [reading.name for reading in await Meter([HostMemory(), One()]).read(())]

    assert anyio.run(main) == ["RAM", "NPU"]
