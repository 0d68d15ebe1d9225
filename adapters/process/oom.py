"""Out-of-memory kills: count them, and make the kernel prefer children to the proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from .procfs import read_bytes

_OOM_STEP = 300


def parse_oom_kills(text: str) -> int | None:
    """Return ``oom_kill`` of memory.events (cgroup 2) or memory.oom_control (1), if it is there."""
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdecimal():
            return int(count)
    return None


def oom_files(cgroups: str) -> Iterator[str]:
    """Yield paths that may hold the count of this cgroup, from the text of /proc/self/cgroup."""
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        path = path.rstrip("/")
        if number == "0":
            yield f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            yield f"/sys/fs/cgroup/memory{path}/memory.oom_control"
            yield "/sys/fs/cgroup/memory/memory.oom_control"  # inside a container


def raise_oom_score(pid: int) -> None:
    """Make the kernel kill the new child *pid* before the proxy when memory runs out.

    Its children inherit the score, unless they were started earlier. A score that the child has set
    itself is kept.

    Source: Linux man-pages, proc_pid_oom_score_adj(5); 300 stands for 30 % of all memory.
    """
    with suppress(OSError, ValueError):  # it has ended; a sandbox
        own, child = (int(read_bytes(f"/proc/{each}/oom_score_adj")) for each in ("self", str(pid)))
        if child == own:
            _write(f"/proc/{pid}/oom_score_adj", b"%d" % min(own + _OOM_STEP, 1000))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


class OomCount:
    """Counter of processes in this cgroup that the kernel killed when memory ran out."""

    def __init__(self) -> None:
        self._path = ""
        with suppress(OSError):
            for path in oom_files(read_bytes("/proc/self/cgroup").decode("utf-8", "replace")):
                if not self._path and self._read(path) is not None:
                    self._path = path
        self._seen = self._read(self._path) or 0

    def has_grown(self) -> bool:
        """Return True if it has grown since the last call; False if it cannot be read."""
        before, now = self._seen, self._read(self._path)
        if now is not None:
            self._seen = now
        return self._seen > before

    @staticmethod
    def _read(path: str) -> int | None:
        try:
            return parse_oom_kills(read_bytes(path).decode("ascii", "replace")) if path else None
        except OSError:
            return None
