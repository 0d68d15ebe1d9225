"""Memory of AMD and Intel GPUs, from the kernel's files.

The amdgpu driver says in sysfs how large the memory of a GPU is and how much is in use. What one
process holds is in the fdinfo of its open render nodes; descriptors that belong to the same client
of a device count once. Compute programs are also listed by KFD, and the larger of both amounts
counts. The Intel drivers say only what processes hold, so the use of a device is the sum over the
processes that the proxy may read.

Source: Linux kernel documentation, gpu/drm-usage-stats.rst, gpu/amdgpu/driver-misc.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ...dataclass import dataclass
from ...runtime.ports import PoolReading
from .host import RAM
from .programs import split_by_owner

_INTEL_DRIVERS = frozenset({"i915", "xe"})
#: Regions of device memory: ``vram`` of amdgpu, ``vram0`` of xe, ``local0`` of i915; ``gtt`` is
#: main memory.
_REGION = re.compile(r"drm-(resident|memory|total)-((?:vram|local)\d*|gtt)")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_APU_SHARE = 4  # an APU has less than a quarter as much memory of its own as GTT
_LEAST_WINDOW = 1 << 30  # a smaller PCI window does not show the size of the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """A GPU that the kernel lists.

    Attributes:
        folder: Folder of its device.
        address: PCI address, such as ``0000:03:00.0``.
        vendor: ``amd`` or ``intel``.
        is_apu: It uses main memory.
    """

    folder: Path
    address: str
    vendor: str
    is_apu: bool = False


class DrmMemory:
    """Reads the memory of AMD and Intel GPUs.

    Args:
        root: Root of the file system, for tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return a reading of each GPU with memory of its own, and of each APU."""
        cards = list(self._cards())
        if not cards:
            return []
        services = frozenset(pids)
        has_intel = any(card.vendor == "intel" for card in cards)
        apus = frozenset(card.address for card in cards if card.is_apu)
        held = self._held_by_clients(self._all_pids() if has_intel else services, apus)
        for card in cards:
            if card.vendor == "amd":
                _raise_to(held.setdefault(card.address, {}), self._held_in_kfd(card))
        return [
            self._reading(index, card, held.get(card.address, {}), services)
            for index, card in enumerate(cards)
        ]

    def _reading(
        self, index: int, card: _Card, held: Mapping[int, int], pids: frozenset[int]
    ) -> PoolReading:
        own, others = split_by_owner(held, pids, self._root)
        if card.vendor == "intel":
            capacity, used = _pci_window(card.folder), sum(held.values())
        else:
            capacity = _number(card.folder / "mem_info_vram_total")
            used = _number(card.folder / "mem_info_vram_used")
        if card.is_apu:
            capacity += _number(card.folder / "mem_info_gtt_total")
        unique = _text(card.folder / "unique_id")
        return PoolReading(
            name=f"GPU{index}", capacity=capacity, used=used, processes=own,
            source="fdinfo" if card.vendor == "intel" else "sysfs",
            device=f"GPU-{unique}" if unique else card.address, others=others,
            vendor=card.vendor, part_of=RAM if card.is_apu else "",
        )  # fmt: skip

    # ---- devices
    def _cards(self) -> Iterator[_Card]:
        found = (self._root / "sys/class/drm").glob("card*/device")
        numbered = [(path.parent.name.removeprefix("card"), path) for path in found]
        for _, folder in sorted((int(n), path) for n, path in numbered if n.isdecimal()):
            uevent = dict(
                line.split("=", 1) for line in _text(folder / "uevent").splitlines() if "=" in line
            )
            address = uevent.get("PCI_SLOT_NAME", "")
            if (folder / "mem_info_vram_total").exists():
                yield _Card(
                    folder=folder, address=address, vendor="amd",
                    is_apu=self._is_apu(folder, address),
                )  # fmt: skip
            elif uevent.get("DRIVER") in _INTEL_DRIVERS and _pci_window(folder):
                yield _Card(folder=folder, address=address, vendor="intel")

    def _is_apu(self, folder: Path, address: str) -> bool:
        total = _number(folder / "mem_info_vram_total")
        if total < _number(folder / "mem_info_gtt_total") // _APU_SHARE:
            return True
        return any(
            int(node.get("cpu_cores_count", 0)) > 0
            for node in self._kfd_nodes()
            if self._address_of(node) == address
        )

    def _kfd_nodes(self) -> Iterator[dict[str, str]]:
        """Yield the properties of each device of KFD, with its ``gpu_id``."""
        for folder in sorted((self._root / "sys/class/kfd/kfd/topology/nodes").glob("*")):
            lines = _text(folder / "properties").splitlines()
            yield {
                **dict(line.split(" ", 1) for line in lines if " " in line),
                "gpu_id": _text(folder / "gpu_id"),
            }

    def _address_of(self, node: Mapping[str, str]) -> str:
        """Return the PCI address of a device of KFD; empty if it has no render node."""
        minor = node.get("drm_render_minor", "0")
        uevent = _text(self._root / f"sys/class/drm/renderD{minor}/device/uevent")
        match = re.search(r"^PCI_SLOT_NAME=(.*)$", uevent, re.MULTILINE)
        return "" if match is None else match[1]

    # ---- processes
    def _held_in_kfd(self, card: _Card) -> dict[int, int]:
        nodes = self._kfd_nodes()
        ids = [node["gpu_id"] for node in nodes if self._address_of(node) == card.address]
        held = {}
        for folder in (self._root / "sys/class/kfd/kfd/proc").glob("[0-9]*"):
            if folder.name.isdecimal():
                held[int(folder.name)] = sum(_number(folder / f"vram_{each}") for each in ids)
        return held

    def _all_pids(self) -> list[int]:
        return [int(p.name) for p in (self._root / "proc").glob("[0-9]*") if p.name.isdecimal()]

    def _held_by_clients(
        self, pids: Iterable[int], apus: frozenset[str]
    ) -> dict[str, dict[int, int]]:
        """Return PCI address -> process id -> bytes; with those of main memory for *apus*."""
        held: dict[str, dict[int, int]] = {}
        seen: set[tuple[str, str]] = set()
        for pid in sorted(pids):
            for fields in self._clients(pid):
                address, client = fields.get("drm-pdev", ""), fields.get("drm-client-id", "")
                if (address, client) in seen:
                    continue
                seen.add((address, client))
                device = held.setdefault(address, {})
                amount = _device_bytes(fields, is_apu=address in apus)
                device[pid] = device.get(pid, 0) + amount
        return held

    def _clients(self, pid: int) -> Iterator[dict[str, str]]:
        """Yield the fdinfo of each open node of a GPU; none of a process that is not ours."""
        folder = self._root / f"proc/{pid}"
        with suppress(OSError):
            for link in sorted((folder / "fd").iterdir()):
                with suppress(OSError):
                    if str(link.readlink()).startswith("/dev/dri/"):
                        lines = (folder / "fdinfo" / link.name).read_text("ascii", "replace")
                        pairs = (line.partition(":") for line in lines.splitlines())
                        yield {name: value.strip() for name, _, value in pairs}


def _device_bytes(fields: Mapping[str, str], *, is_apu: bool) -> int:
    """Return the bytes of device memory in an fdinfo: resident ones, or all if those are absent."""
    amounts: dict[str, dict[str, int]] = {}
    for name, value in fields.items():
        match = _REGION.fullmatch(name)
        if match is not None and (is_apu or match[2] != "gtt"):
            number, _, unit = value.partition(" ")
            if number.isdecimal() and unit in _UNITS:
                amounts.setdefault(match[2], {})[match[1]] = int(number) * _UNITS[unit]
    return sum(
        next((kinds[kind] for kind in ("resident", "memory", "total") if kind in kinds), 0)
        for kinds in amounts.values()
    )


def _raise_to(held: dict[int, int], other: Mapping[int, int]) -> None:
    for pid, amount in other.items():
        held[pid] = max(held.get(pid, 0), amount)


def _pci_window(folder: Path) -> int:
    """Return the size of the memory that the CPU can address; 0 if that is a part only."""
    lines = _text(folder / "resource").splitlines()
    with suppress(IndexError, ValueError):
        first, last, _ = (int(word, 16) for word in lines[2].split())
        size = last - first + 1
        return size if size >= _LEAST_WINDOW else 0
    return 0


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("utf-8", "replace").strip()
    return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0
