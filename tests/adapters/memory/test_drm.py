"""Memory of AMD and Intel GPUs from trees of the kernel's files."""

from __future__ import annotations

from pathlib import Path

from swapchart.adapters.memory.drm import DrmMemory
from swapchart.runtime.ports import PoolReading

MIB = 1 << 20
GIB = 1 << 30
AMD, OTHER, INTEL = "0000:03:00.0", "0000:0a:00.0", "0000:0c:00.0"


def _write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")


def _amd(root: Path, card: int, address: str, *, used: int = 0, **sizes: int) -> None:
    amounts = {"vram_total": 24 * GIB, "vram_used": used, "gtt_total": 32 * GIB, **sizes}
    device = f"sys/class/drm/card{card}/device"
    _write(root, {f"{device}/mem_info_{name}": str(size) for name, size in amounts.items()})
    uevent = f"DRIVER=amdgpu\nPCI_SLOT_NAME={address}"
    _write(root, {f"{device}/uevent": uevent})
    _write(root, {f"sys/class/drm/renderD{128 + card}/device/uevent": uevent})
    (root / f"sys/class/drm/card{card}-DP-1").mkdir()


def _process(root: Path, pid: int, *clients: dict[str, str], name: str = "server") -> None:
    folder = root / f"proc/{pid}"
    _write(root, {f"proc/{pid}/comm": name, f"proc/{pid}/fdinfo/1": "pos: 0"})
    (folder / "fd").mkdir()
    (folder / "fd/1").symlink_to("/dev/pts/0")
    for number, client in enumerate(clients, 5):
        (folder / f"fd/{number}").symlink_to("/dev/dri/renderD128")
        text = "\n".join(f"{key}:\t{value}" for key, value in client.items())
        _write(root, {f"proc/{pid}/fdinfo/{number}": f"pos:\t0\n{text}"})


def _client(address: str, number: int, **regions: str) -> dict[str, str]:
    fields = {f"drm-{key.replace('_', '-')}": value for key, value in regions.items()}
    return {"drm-driver": "amdgpu", "drm-client-id": str(number), "drm-pdev": address, **fields}


def test_drm_memory_of_amd_counts_each_client_of_a_device_once(tmp_path: Path) -> None:
    _amd(tmp_path, 0, AMD, used=14 * GIB)
    _amd(tmp_path, 1, OTHER, used=GIB)
    _write(tmp_path, {"sys/class/drm/card1/device/unique_id": "2a7e4bd2c0ffee11"})
    own = _client(AMD, 41, memory_vram="8388608 KiB", memory_gtt="1024 KiB")
    copied = _client(AMD, 41, memory_vram="8388608 KiB")
    second = _client(OTHER, 41, resident_vram="512 MiB", total_vram="2048 MiB")
    _process(tmp_path, 100, own, copied, second)
    _process(tmp_path, 101, copied)

    assert DrmMemory(tmp_path).read([100, 101, 999]) == [
        PoolReading(
            name="GPU0", capacity=24 * GIB, used=14 * GIB, processes={100: 8 * GIB},
            source="sysfs", device=AMD, vendor="amd",
        ),
        PoolReading(
            name="GPU1", capacity=24 * GIB, used=GIB, processes={100: 512 * MIB},
            source="sysfs", device="GPU-2a7e4bd2c0ffee11", vendor="amd",
        ),
    ]  # fmt: skip


def test_drm_memory_of_amd_compute_programs_is_in_kfd(tmp_path: Path) -> None:
    """KFD lists the programs of other users too; both counts of one process are not added."""
    _amd(tmp_path, 0, AMD)
    _process(tmp_path, 100, _client(AMD, 41, memory_vram="1048576 KiB"))
    _write(
        tmp_path,
        {
            "sys/class/kfd/kfd/topology/nodes/0/gpu_id": "0",
            "sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 16\nsimd_count 0",
            "sys/class/kfd/kfd/topology/nodes/1/gpu_id": "34567",
            "sys/class/kfd/kfd/topology/nodes/1/properties": (
                "cpu_cores_count 0\nsimd_count 96\ndrm_render_minor 128"
            ),
            "sys/class/kfd/kfd/proc/100/vram_34567": str(9 * GIB),
            "sys/class/kfd/kfd/proc/300/vram_34567": str(2 * GIB),
            "sys/class/kfd/kfd/proc/300/vram_99999": str(7 * GIB),
            "proc/300/comm": "blender",
        },
    )
    (reading,) = DrmMemory(tmp_path).read([100])
    assert reading.processes == {100: 9 * GIB}
    assert reading.others == {"blender": 2 * GIB}
    assert reading.part_of == ""


def test_drm_memory_of_an_apu_is_part_of_main_memory(tmp_path: Path) -> None:
    _amd(tmp_path, 0, AMD, vram_total=512 * MIB, gtt_total=62 * GIB)
    client = _client(AMD, 3, memory_vram="102400 KiB", memory_gtt="52428800 KiB")
    _process(tmp_path, 100, client)
    (reading,) = DrmMemory(tmp_path).read([100])
    assert reading.part_of == "RAM"
    assert reading.capacity == 62 * GIB + 512 * MIB
    assert reading.processes == {100: 50 * GIB + 100 * MIB}


def test_drm_memory_kfd_device_with_cpus_is_an_apu(tmp_path: Path) -> None:
    _amd(tmp_path, 0, AMD)
    _write(
        tmp_path,
        {
            "sys/class/kfd/kfd/topology/nodes/0/gpu_id": "1",
            "sys/class/kfd/kfd/topology/nodes/0/properties": (
                "cpu_cores_count 24\nsimd_count 912\ndrm_render_minor 128"
            ),
        },
    )
    assert [each.part_of for each in DrmMemory(tmp_path).read([])] == ["RAM"]


def test_drm_memory_of_intel_is_the_sum_of_all_processes(tmp_path: Path) -> None:
    device = "sys/class/drm/card2/device"
    window = f"0x{0x40_0000_0000:016x} 0x{0x40_0000_0000 + 16 * GIB - 1:016x} 0x000000000014220c"
    _write(
        tmp_path,
        {
            f"{device}/uevent": f"DRIVER=xe\nPCI_SLOT_NAME={INTEL}",
            f"{device}/resource": f"0x0 0x0 0x0\n0x0 0x0 0x0\n{window}",
            "sys/class/drm/card1/device/uevent": "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0",
            "sys/class/drm/card1/device/resource": "0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0xfffffff 0x0",
        },
    )
    _process(tmp_path, 100, _client(INTEL, 1, resident_vram0="6 GiB", total_vram0="9 GiB"))
    _process(tmp_path, 7, _client(INTEL, 2, total_local0="1 GiB"), name="gnome-shell")

    assert DrmMemory(tmp_path).read([100]) == [
        PoolReading(
            name="GPU0", capacity=16 * GIB, used=7 * GIB, processes={100: 6 * GIB},
            source="fdinfo", device=INTEL, others={"gnome-shell": GIB}, vendor="intel",
        )
    ]  # fmt: skip


def test_drm_memory_ignores_wrong_files(tmp_path: Path) -> None:
    _amd(tmp_path, 0, AMD)
    _write(tmp_path, {"sys/class/drm/card0/device/mem_info_vram_used": "many"})
    wrong = _client(AMD, 1, memory_vram="lots KiB", resident_vram="5 parsecs")
    _process(tmp_path, 100, wrong, {"drm-memory-vram": "4 KiB"})
    (reading,) = DrmMemory(tmp_path).read([100])
    assert (reading.used, reading.processes) == (0, {100: 0})


def test_drm_memory_of_this_machine_is_read_without_an_error() -> None:
    for reading in DrmMemory().read([1]):
        assert reading.device
