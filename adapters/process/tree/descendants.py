"""Process tree of one run: every descendant of the launched process.

A process belongs to the tree if it is in the session or group of the leader, carries the marker of
the run in its environment or the `tag` of the run, is in the `cgroup` of the run, is a child of a
member, or was adopted by the subreaper and can be of no other run. Daemons of a container engine
that left the session do not belong to it, nor do their descendants.

A scan of /proc misses a process that forks and exits faster than the scan completes. So processes
that were started during a scan are examined until there is no newer one; this takes 0.1 ms each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from .. import container_engines, procfs
from ..procfs import Proc
from . import tag as tags
from .cgroup import ProcessGroup

FOLLOW_S = 0.03  # longest time that new processes are followed after one scan
_WRAP_WINDOW = 64
_DEPTH = 64


def newest_pid() -> int:
    """Return the pid that was assigned last; 0 if the kernel does not report it."""
    last = procfs.read_bytes("/proc/loadavg").rsplit(None, 1)
    return int(last[-1]) if last and last[-1].isdigit() else 0


def follow(newest: int, limit_s: float = FOLLOW_S) -> Iterator[Proc]:
    """Yield the processes that were started after pid *newest*, until there is no newer one.

    Threads may be among them; see `is_thread`.

    Raises:
        OSError: There is no free descriptor or memory.
    """
    deadline = time.monotonic() + limit_s
    while (now := newest_pid()) != newest and time.monotonic() < deadline:
        numbers: Iterable[int] = range(newest + 1, now + 1)
        if now < newest:  # pids have wrapped around
            numbers = [*range(newest + 1, newest + _WRAP_WINDOW), *range(2, now + 1)]
        newest = now
        for pid in numbers:
            proc = procfs.find(pid)
            if proc is not None and proc.is_alive:
                yield proc


def is_thread(pid: int) -> bool:
    """Return True if *pid* is a thread other than the first of its process."""
    for line in procfs.read_bytes(f"/proc/{pid}/status").split(b"\n"):
        if line.startswith(b"Tgid:"):
            return int(line.split()[1]) != pid
    return False


class Tree:
    """The processes of one run.

    Args:
        pid: Process id of the leader; also the id of its group and session.
        start: Start time of the leader, in clock ticks since boot.
        run_id: Value of SWAPCHART_RUN in the environment of the tree.
        tag: Tag of the run, from ``tag.make``.
        claims: Return True if a process was adopted and can be of this run only.

    Attributes:
        known: Pid and start of every process that was ever seen in the tree.
        group: Cgroup of the run; None if it has none.
        engines: Daemons of a container engine that the last scan found outside the session.
        had_client: A client of a container engine was seen in the tree.
    """

    def __init__(
        self, pid: int, *, start: int, run_id: str, tag: int, claims: Callable[[Proc], bool]
    ) -> None:
        self._pid, self._start, self._tag = pid, start, tag
        self._marker = f"SWAPCHART_RUN={run_id}"
        self._claims = claims
        self.known: set[tuple[int, int]] = set()
        self.group: ProcessGroup | None = None
        self.engines: list[Proc] = []
        self.had_client = False

    def scan(self, *, is_leaderless: bool) -> list[Proc]:
        """Scan /proc for every running process of the tree.

        Args:
            is_leaderless: The leader was reaped, so its pid may be reused.

        Raises:
            OSError: There is no free descriptor or memory.
        """
        newest = newest_pid()
        table = {proc.pid: proc for proc in procfs.scan() if proc.is_alive}
        session = [proc for proc in table.values() if self._is_in_session(proc)]
        if is_leaderless and not any(self._is_marked(each) for each in session):
            session = []  # the id may be reused, unless a member carries the marker
        members = {proc.pid: proc for proc in session}
        inside = set() if self.group is None else self.group.pids()
        for proc in table.values():
            if proc.pid not in members and (proc.pid in inside or self._is_marked(proc)):
                members[proc.pid] = proc
        _add_children(members, table)
        found = self._without_engines(members, table)
        self._note(found)
        return [*found, *self.newer(newest)]

    def newer(self, newest: int) -> Iterator[Proc]:
        """Yield each process of the tree that was started after pid *newest*."""
        for proc in follow(newest):
            if (proc.pid, proc.start) in self.known or not self._descends(proc):
                continue
            is_spared = not self._is_in_session(proc) and is_below_engine(proc)
            if not is_spared and not is_thread(proc.pid):
                self._note([proc])
                yield proc

    def _note(self, found: Iterable[Proc]) -> None:
        for proc in found:
            key = proc.pid, proc.start
            if key not in self.known:
                self.known.add(key)
                self.had_client = self.had_client or container_engines.is_client(proc.pid)

    def _is_in_session(self, proc: Proc) -> bool:
        return self._pid in (proc.pgid, proc.sid)

    def _is_marked(self, proc: Proc) -> bool:
        """Return True if *proc* carries a marker or the tag of this run."""
        if (proc.pid, proc.start) in self.known:
            return True
        if proc.start < self._start:
            return False
        if procfs.carries(proc.pid, self._marker) or tags.read(proc.pid) == self._tag:
            return True
        return self._claims(proc)

    def _descends(self, proc: Proc) -> bool:
        if self._is_marked(proc):
            return True
        if self.group is not None and self.group.holds(proc.pid):
            return True
        parent = procfs.find(proc.ppid)
        return parent is not None and (parent.pid, parent.start) in self.known

    def _without_engines(self, members: dict[int, Proc], table: dict[int, Proc]) -> list[Proc]:
        outside = [proc for proc in members.values() if not self._is_in_session(proc)]
        self.engines = [proc for proc in outside if container_engines.is_daemon(proc.pid)]
        engines = {proc.pid for proc in self.engines}
        if not engines:
            return list(members.values())
        return [
            proc
            for proc in members.values()
            if self._is_in_session(proc) or engines.isdisjoint(_ancestry(proc, table))
        ]


def is_below_engine(proc: Proc) -> bool:
    """Return True if *proc* is a daemon of a container engine, or descends from one."""
    above: Proc | None = proc
    for _ in range(_DEPTH):
        if above is None or above.pid in (0, 1, os.getpid()):
            return False
        if container_engines.is_daemon(above.pid):
            return True
        above = procfs.find(above.ppid)
    return False


def is_of_engine(pid: int) -> bool:
    """Return True if *pid* is running and `is_below_engine`."""
    proc = procfs.find(pid)
    return proc is not None and is_below_engine(proc)


def _add_children(members: dict[int, Proc], table: dict[int, Proc]) -> None:
    """Add to *members* their descendants, by the parents in *table*."""
    children: dict[int, list[Proc]] = {}
    for proc in table.values():
        children.setdefault(proc.ppid, []).append(proc)
    parents = list(members.values())
    for parent in parents:  # grows while we walk
        for child in children.get(parent.pid, ()):
            if child.pid not in members and child.start >= parent.start:
                members[child.pid] = child
                parents.append(child)


def _ancestry(proc: Proc, table: dict[int, Proc]) -> Iterator[int]:
    """Yield the pids of *proc* and its ancestors."""
    above: Proc | None = proc
    for _ in range(_DEPTH):
        if above is None:
            return
        yield above.pid
        above = table.get(above.ppid)
