"""A cgroup for each run, where one can be made: membership that no descendant can leave.

Only version 2 of cgroups is used, and only below our own cgroup, which must have been handed to us:
systemd says so by an attribute (``Delegate=yes``); without systemd it is enough that we may write
there.
Processes of a group and of the groups below it are killed in one call, however fast they fork. A
container engine in it is spared with all that descends from it.

The folder ``swapchart-PID-START`` names us; what a killed proxy left behind, all of it empty, is
removed by the next.

Source: Linux kernel documentation, admin-guide/cgroup-v2.rst; systemd, CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio

from .. import pidfd, procfs

_DYING_S = 1.0  # so long what was killed may take to leave its group
_SYSTEMD = Path("/run/systemd/system")
_log = logging.getLogger(__name__)


def own_folder() -> Path | None:
    """Return the folder of our own cgroup, or None where we may make no other below it."""
    try:
        cgroups = Path("/proc/self/cgroup").read_text("ascii").splitlines()
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except (OSError, UnicodeError):
        return None
    paths = [line[3:] for line in cgroups if line.startswith("0::/")]
    roots = [words[1] for words in map(str.split, mounts) if words[2] == "cgroup2"]
    if not paths or not roots or ".." in paths[0]:
        return None
    folder = Path(roots[0] + paths[0])
    return folder if _is_ours(folder) else None


def _is_ours(folder: Path) -> bool:
    if not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    if not _SYSTEMD.exists():
        return True
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


class ProcessGroup:
    """The cgroup of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """Move *pid* into the group; the first move takes 14 ms, the next 0.1 ms.

        Raises:
            OSError: It has ended, or the kernel refuses.
        """
        (self._folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Return the processes in it and in the groups below it, as far as they can be read.

        A container engine makes groups below.
        """
        found: set[int] = set()
        for folder, _, _ in os.walk(self._folder):
            with suppress(OSError, ValueError):
                found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
        return found

    def holds(self, pid: int) -> bool:
        """Return True if *pid* is in it, or in a group that was made below it."""
        place = f"/{self._folder.parent.name}/{self._folder.name}"
        for line in procfs.read_bytes(f"/proc/{pid}/cgroup").splitlines():
            if line.startswith(b"0::"):
                return place in line.decode("utf-8", "replace") + "/"
        return False

    def kill(self, is_spared: Callable[[int], bool]) -> None:
        """Kill all in it and below it at once, but for the pids *is_spared* names; never raises.

        Where one is spared, the group is frozen while the others are killed.
        """
        with suppress(OSError):
            if not any(map(is_spared, self.pids())):
                (self._folder / "cgroup.kill").write_text("1")
                return
            freezer = self._folder / "cgroup.freeze"
            freezer.write_text("1")
            try:
                for pid in self.pids():
                    proc = procfs.find(pid)
                    if proc is not None and not is_spared(pid):
                        pidfd.send(proc, 9)
            finally:
                freezer.write_text("0")

    def remove(self) -> bool:
        """Remove it with the groups below; returns False if a process is in it, perhaps dying."""
        if self.pids():
            return False
        for folder, _, _ in os.walk(self._folder, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106
        return not self._folder.exists()


class ProcessGroups:
    """The cgroups of our runs; none where we may make none."""

    def __init__(self) -> None:
        self._base: Path | None = None
        self._over: list[ProcessGroup] = []

    @property
    def folder(self) -> str:
        """Folder in which the groups are; empty if there are none."""
        return "" if self._base is None else str(self._base)

    def open(self) -> None:
        """Make the folder for the groups, where we may, and clear away what others left."""
        above = own_folder()
        own = procfs.find(os.getpid())
        if above is None or own is None:
            return
        base = above / f"swapchart-{own.pid}-{own.start}"
        try:
            _clear(above)
            base.mkdir(exist_ok=True)
            if not (base / "cgroup.kill").exists():  # before Linux 5.14
                base.rmdir()
                return
        except OSError as error:
            _log.debug("no cgroups for models: %s", error)
            return
        self._base = base

    def make(self, run_id: str) -> ProcessGroup | None:
        """Make a group for one run; None where none can be made."""
        if self._base is None:
            return None
        self._tidy()
        folder = self._base / run_id
        try:
            folder.mkdir()
        except OSError as error:
            _log.debug("no cgroup for a model: %s", error)
            return None
        return ProcessGroup(folder)

    def end(self, group: ProcessGroup) -> None:
        """Remove a group whose run is over, now or as soon as its last process is gone."""
        self._over.append(group)
        self._tidy()

    def _tidy(self) -> None:
        self._over = [group for group in self._over if not group.remove()]

    async def close(self) -> None:
        """Remove the groups of runs that are over, and the folder if it is then empty."""
        base, self._base = self._base, None
        with anyio.move_on_after(_DYING_S):
            while base is not None:
                self._tidy()
                if not self._over:
                    break
                await anyio.sleep(0.01)
        if base is not None:
            with suppress(OSError):  # another launcher of this process has groups there
                base.rmdir()


def _clear(above: Path) -> None:
    """Remove the empty groups of proxies that have ended."""
    for base in above.glob("swapchart-*-*"):
        with suppress(OSError, ValueError):
            _, pid, start = base.name.split("-")
            found = procfs.find(int(pid))
            if found is None or found.start != int(start):
                for folder in base.iterdir():
                    if folder.is_dir():
                        ProcessGroup(folder).remove()
                base.rmdir()
