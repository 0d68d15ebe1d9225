"""Hardware and operating system of the host, for ``/api/hardware``.

Sources: proc(5), os-release(5), cgroups(7). The fields are those of llama-swap.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from time import time
from typing import Any

from .... import __version__
from ..formatting import rfc3339
from .gpus import Gpu
from .host import HostSampler

_ARCHITECTURES = {
    "x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64",
    "armv7l": "armv7", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x",
}  # fmt: skip
_SYSTEMS = {"Linux": "linux", "Darwin": "macos", "Windows": "windows", "FreeBSD": "freebsd"}
_HYPERVISORS = ("kvm", "qemu", "vmware", "virtualbox", "xen", "bochs", "hyper-v", "virtual machine")


class HardwareProbe:
    """Detects the hardware and the operating system.

    Args:
        root: Root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def detect(self) -> dict[str, Any]:
        """Return the body of ``/api/hardware``; None means unknown."""
        raw = platform.machine()
        return {
            "schema_version": 1,
            "captured_at": rfc3339(time()),
            "capture": {
                "scope": "inference_host", "method": "detected",
                "detector": {"name": "swapchart", "version": __version__},
            },
            "architecture": {"name": _ARCHITECTURES.get(raw, "other"), "raw_name": raw},
            "operating_system": self._system(),
            "environment": self._environment(),
            "cpu": self._processor(),
            "memory": {"capacity_bytes": self._memory()},
            "accelerators": self._accelerators(),
        }  # fmt: skip

    def _text(self, *parts: str) -> str:
        try:
            return self._root.joinpath(*parts).read_text(errors="replace").strip("\x00\n ")
        except OSError:
            return ""

    def _system(self) -> dict[str, Any]:
        family = platform.system()
        release = dict(
            re.findall(r'^(\w+)="?([^"\n]*)"?$', self._text("etc", "os-release"), re.MULTILINE)
        )
        found = {
            "family": _SYSTEMS.get(family, "other"), "name": release.get("NAME"),
            "version": release.get("VERSION_ID"), "kernel": platform.release() or None,
        }  # fmt: skip
        return {**found, "raw_family": family} if found["family"] == "other" else found

    def _environment(self) -> dict[str, Any]:
        if "microsoft" in self._text("proc", "version").lower():
            return {"kind": "wsl", "name": "WSL", "version": None}
        container = self._container()
        if container:
            return {"kind": "container", "name": container, "version": None}
        product = self._text("sys", "class", "dmi", "id", "product_name")
        vendor = self._text("sys", "class", "dmi", "id", "sys_vendor")
        text = f"{product} {vendor}".lower()
        has_hypervisor = re.search(
            r"^flags.*\bhypervisor\b", self._text("proc", "cpuinfo"), re.MULTILINE
        )
        if has_hypervisor or any(word in text for word in _HYPERVISORS):
            return {"kind": "virtual_machine", "name": product or None, "version": None}
        if not product and not self._text("proc", "cpuinfo"):
            return {"kind": "unknown", "name": None, "version": None}
        return {"kind": "native", "name": product or None, "version": None}

    def _container(self) -> str | None:
        if self._root.joinpath(".dockerenv").exists():
            return "docker"
        if self._root.joinpath("run", ".containerenv").exists():
            return "podman"
        match = re.search(
            r"\b(docker|kubepods|containerd|lxc|podman)\b", self._text("proc", "1", "cgroup")
        )
        return match[1] if match else None

    def _processor(self) -> dict[str, Any]:
        text = self._text("proc", "cpuinfo")

        def values(name: str) -> list[str]:
            return re.findall(rf"^{name}\s*+:\s*+(.*)$", text, re.MULTILINE)

        sockets = values("physical id")
        cores = set(zip(sockets, values("core id"), strict=False))
        return {
            "vendor": next(iter(values("vendor_id")), None),
            "model": next(iter(values("model name")), None),
            "socket_count": len(set(sockets)) or None,
            "physical_core_count": len(cores) or None,
            "logical_thread_count": len(values("processor")) or None,
        }

    def _memory(self) -> int | None:
        """Return the size of the memory, or a lower limit of the control group, in bytes."""
        found = re.search(r"^MemTotal:\s*(\d+) kB", self._text("proc", "meminfo"), re.MULTILINE)
        total = int(found[1]) * 1024 if found else None
        for place in (("memory.max",), ("memory", "memory.limit_in_bytes")):
            limit = self._text("sys", "fs", "cgroup", *place)
            if limit.isdigit() and (total is None or int(limit) < total):
                total = int(limit)
        return total

    def _accelerators(self) -> list[dict[str, Any]]:
        drm = self._root / "sys" / "class" / "drm"
        sampler = HostSampler(drm)
        return [_accelerator(index, gpu) for index, gpu in enumerate(sampler.gpus())]


def _accelerator(index: int, gpu: Gpu) -> dict[str, Any]:
    capacity = None if gpu.total_mib is None else round(gpu.total_mib * (1 << 20))
    return {
        "index": index, "kind": "gpu", "vendor": "NVIDIA" if gpu.is_nvidia else "AMD",
        "model": gpu.name, "architecture": None,
        "memory": {"kind": "dedicated" if capacity else "unknown", "capacity_bytes": capacity},
        "driver": None, "power_limit_watts": None,
    }  # fmt: skip
