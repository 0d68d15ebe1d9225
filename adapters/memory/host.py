"""Main memory as a pool: its size, what is in use, and what each process holds.

A process holds its proportional set size (PSS): pages that several processes share, such as mapped
weights, count for each of them in part. MemAvailable decides what is in use by all programs; it is
no measure of one process, since the page cache moves at the same time: it missed by 81 to 122 % of
854 MiB while a server loaded. It contains mapped files, which are reported apart for that reason,
except for locked ones.

Source: Linux kernel documentation, filesystems/proc.rst, admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ...runtime.ports import PoolReading

RAM = "RAM"
_KIB = 1024
_CGROUPS = "sys/fs/cgroup"


class HostMemory:
    """Reads main memory.

    Args:
        root: Root of the file system, for tests.

    Attributes:
        cgroup: A cgroup (version 2) whose limit counts too, below ``/sys/fs/cgroup``; empty means
            that only those count in which the proxy runs.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self.cgroup = ""

    def has_cgroup(self) -> bool:
        """Return False if `cgroup` does not exist."""
        return not self.cgroup or (self._root / _CGROUPS).joinpath(*_parts(self.cgroup)).is_dir()

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return the reading of RAM.

        Raises:
            OSError: The kernel does not provide the numbers.
        """
        sizes = self._sizes("proc/meminfo")
        capacity, available = sizes["MemTotal"], sizes["MemAvailable"]
        used = capacity - available
        for limit, in_use in self._cgroup_limits():
            if limit < capacity:
                capacity, used = limit, in_use
        sizes_of = {pid: held for pid in pids if (held := self._held(pid)) is not None}
        return [
            PoolReading(
                name=RAM, capacity=capacity, used=max(used, 0), source="meminfo", is_prompt=True,
                processes={pid: held for pid, (held, _, _) in sizes_of.items()},
                files={pid: files for pid, (_, files, _) in sizes_of.items() if files},
                whole_files={pid: whole for pid, (_, _, whole) in sizes_of.items() if whole},
            )
        ]  # fmt: skip

    def _held(self, pid: int) -> tuple[int, int, int] | None:
        """Return the bytes that process *pid* holds, and of mapped files its part and the whole.

        None means that it has ended or is not ours.
        """
        with suppress(OSError, KeyError):
            sizes = self._sizes(f"proc/{pid}/smaps_rollup")
            files = sizes.get("Pss_File", 0)
            locked = min(sizes.get("Locked", 0), files)
            whole = self._sizes(f"proc/{pid}/status").get("RssFile", 0) - locked
            return sizes["Pss"], files - locked, max(whole, files - locked)
        return None

    def _sizes(self, path: str) -> dict[str, int]:
        """Return the amounts of a file of the kernel in bytes."""
        sizes = {}
        for line in (self._root / path).read_text("ascii", "replace").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
                sizes[name] = int(words[0]) * _KIB
        return sizes

    def _cgroup_limits(self) -> Iterator[tuple[int, int]]:
        """Yield the limit and the use of each cgroup that limits the memory of proxy or models."""
        yield from self._limits_above(self._root / _CGROUPS, self.cgroup, is_v2=True)
        try:
            lines = (self._root / "proc/self/cgroup").read_text("ascii", "replace").splitlines()
        except OSError:
            return
        for line in lines:
            number, controllers, path = line.split(":", 2)
            is_v2 = number == "0"
            if not is_v2 and "memory" not in controllers.split(","):
                continue
            base = self._root / (_CGROUPS if is_v2 else f"{_CGROUPS}/memory")
            yield from self._limits_above(base, path, is_v2=is_v2)

    @staticmethod
    def _limits_above(base: Path, path: str, *, is_v2: bool) -> Iterator[tuple[int, int]]:
        parts = _parts(path)
        for depth in range(len(parts), -1, -1):
            yield from _limits_of(base.joinpath(*parts[:depth]), is_v2=is_v2)


def _parts(path: str) -> list[str]:
    """Return the folders of a cgroup below the root of all; its path may contain that root."""
    inner = f"{path.strip('/')}/".removeprefix(f"{_CGROUPS}/")
    return [part for part in inner.split("/") if part and part != ".."]


def _limits_of(folder: Path, *, is_v2: bool) -> Iterator[tuple[int, int]]:
    names = ("memory.max", "memory.high") if is_v2 else ("memory.limit_in_bytes",)
    current = "memory.current" if is_v2 else "memory.usage_in_bytes"
    for name in names:
        with suppress(OSError, ValueError):
            limit = int((folder / name).read_text("ascii"))  # "max" is no number
            in_use = int((folder / current).read_text("ascii"))
            yield limit, max(in_use - _cached_files(folder), 0)


def _cached_files(folder: Path) -> int:
    """Return the bytes of cached files that the kernel can drop; as in MemAvailable, they are free.

    Version 1 has each amount twice: of the group, and with the groups below it.
    """
    amounts = {}
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text("ascii").splitlines():
            name, _, value = line.partition(" ")
            amounts[name] = int(value)
    return sum(
        amounts.get(f"total_{name}", amounts.get(name, 0))
        for name in ("inactive_file", "active_file")
    )
