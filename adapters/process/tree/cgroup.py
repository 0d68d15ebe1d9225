"""Cgroup of each run, where cgroups can be created; no descendant can leave it.

Only cgroups of version 2 are used, below the proxy's own cgroup, which must be delegated to it.
systemd marks that with an attribute (``Delegate=yes``); without systemd, write permission is
enough. All processes of a group and of the groups below it are killed in one call, however fast
they fork. Container engines in it are spared with their descendants.

The folder ``swapchart-PID-START`` identifies the proxy. Empty folders of a killed proxy are removed
by the next one.

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

_EXIT_LIMIT_S = 1.0  # longest wait until killed processes have left their group
_SYSTEMD = Path("/run/systemd/system")
_log = logging.getLogger(__name__)


def own_folder() -> Path | None:
    """Return the folder of the proxy's own cgroup; None if it may create no groups there."""
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
    return folder if _is_delegated(folder) else None


def _is_delegated(folder: Path) -> bool:
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
    """Cgroup of one run.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pid: int) -> None:
        """Move *pid* into the group; the first move takes 14 ms, the next 0.1 ms.

        Raises:
            OSError: The process has ended, or the kernel refuses.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Return the pids in this group and in the groups below it, as far as they can be read.

        Container engines create groups below it.
        """
        found: set[int] = set()
        for folder, _, _ in os.walk(self.folder):
            with suppress(OSError, ValueError):
                found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
        return found

    def holds(self, pid: int) -> bool:
        """Return True if *pid* is in this group or in a group below it."""
        place = f"/{self.folder.parent.name}/{self.folder.name}"
        for line in procfs.read_bytes(f"/proc/{pid}/cgroup").splitlines():
            if line.startswith(b"0::"):
                return place in line.decode("utf-8", "replace") + "/"
        return False

    def kill(self, is_spared: Callable[[int], bool]) -> None:
        """Kill all processes here and below at once, except those that *is_spared* accepts.

        If one is spared, the group is frozen while the others are killed. Never raises.
        """
        with suppress(OSError):
            if not any(map(is_spared, self.pids())):
                (self.folder / "cgroup.kill").write_text("1")
                return
            freezer = self.folder / "cgroup.freeze"
            freezer.write_text("1")
            try:
                for pid in self.pids():
                    proc = procfs.find(pid)
                    if proc is not None and not is_spared(pid):
                        pidfd.send(proc, 9)
            finally:
                freezer.write_text("0")

    def remove(self) -> bool:
        """Remove this group and those below it; return False if a process is still in it."""
        if self.pids():
            return False
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106
        return not self.folder.exists()


class ProcessGroups:
    """Cgroups of all runs of this proxy; none where it may create none."""

    def __init__(self) -> None:
        self._base: Path | None = None
        self._ended: list[ProcessGroup] = []

    @property
    def folder(self) -> str:
        """Folder of the groups; empty if there are none."""
        return "" if self._base is None else str(self._base)

    def open(self) -> None:
        """Create the folder of the groups if possible, and remove folders of ended proxies."""
        above = own_folder()
        own = procfs.find(os.getpid())
        if above is None or own is None:
            return
        base = above / f"swapchart-{own.pid}-{own.start}"
        try:
            _remove_leftovers(above)
            base.mkdir(exist_ok=True)
            if not (base / "cgroup.kill").exists():  # before Linux 5.14
                base.rmdir()
                return
        except OSError as error:
            _log.debug("no cgroups for models: %s", error)
            return
        self._base = base

    def make(self, run_id: str) -> ProcessGroup | None:
        """Create a group for one run; return None if none can be created."""
        if self._base is None:
            return None
        self._remove_ended()
        folder = self._base / run_id
        try:
            folder.mkdir()
        except OSError as error:
            _log.debug("no cgroup for a model: %s", error)
            return None
        return ProcessGroup(folder)

    def end(self, group: ProcessGroup) -> None:
        """Remove the group of an ended run, now or once its last process is gone."""
        self._ended.append(group)
        self._remove_ended()

    def _remove_ended(self) -> None:
        self._ended = [group for group in self._ended if not group.remove()]

    async def close(self) -> None:
        """Remove the groups of ended runs, and the folder if it is empty then."""
        base, self._base = self._base, None
        with anyio.move_on_after(_EXIT_LIMIT_S):
            while base is not None:
                self._remove_ended()
                if not self._ended:
                    break
                await anyio.sleep(0.01)
        if base is not None:
            with suppress(OSError):  # another launcher of this process has groups there
                base.rmdir()


def _remove_leftovers(above: Path) -> None:
    """Remove empty groups of proxies that have ended."""
    for base in above.glob("swapchart-*-*"):
        with suppress(OSError, ValueError):
            _, pid, start = base.name.split("-")
            found = procfs.find(int(pid))
            if found is None or found.start != int(start):
                for folder in base.iterdir():
                    if folder.is_dir():
                        ProcessGroup(folder).remove()
                base.rmdir()
