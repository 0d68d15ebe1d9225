"""Ends what a proxy started, when the proxy dies without ending it: a script of its own.

It runs as ``python -I -S -E guard.py INSTANCE`` in a session of its own, its standard input
being a pipe that only the proxy holds. The end of that pipe is the death of the proxy, even
by SIGKILL. It imports nothing but the interpreter's own small modules, to stay small.

Lines on the pipe: ``+LEADER START`` a process group began (START in clock ticks since boot),
``-LEADER`` it has ended, ``.`` the proxy closes in good order: leave without touching anything.

What is ended: the groups and sessions named, and every process whose first environment holds
``SWAPCHART_INSTANCE=INSTANCE``. First SIGTERM, after a second SIGKILL, until none is left.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_S = 1.0
LIMIT_S = 10.0
PERIOD_S = 0.03
QUIET_SCANS = 3  # a child between fork and exec carries no marker yet: look again


def listen(fd: int, groups: dict[int, int]) -> bool:
    """Keep *groups* (leader's pid to its start) as the pipe says; True when the proxy died."""
    rest = b""
    while chunk := os.read(fd, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == b".":
                return False
            words = line[1:].split()
            if line.startswith(b"+") and len(words) == 2:
                groups[int(words[0])] = int(words[1])
            elif line.startswith(b"-") and words:
                groups.pop(int(words[0]), None)
    return True


def read(path: str) -> bytes:
    """Return a small /proc file; empty when it is gone or not for us."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (pathlib costs megabytes)
            return file.readall()
    except OSError:
        return b""


def victims(marker: bytes, groups: dict[int, int]) -> list[tuple[int, int]]:
    """Find who is to be ended: (pid, start) of each, zombies and ourselves left out."""
    table: dict[int, tuple[list[bytes], int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        stat = read(f"/proc/{name}/stat") if name.isdecimal() else b""
        if stat:
            rest = stat[stat.rindex(b")") + 2 :].split(None, 20)
            table[int(name)] = rest, int(rest[19])
    # A leader that lives with another start is a stranger who was given the same number.
    known = {pid for pid, start in groups.items() if pid not in table or table[pid][1] == start}
    found = []
    for pid, (rest, start) in table.items():
        is_dead = rest[0] in (b"Z", b"X") and int(rest[17]) <= 1
        if is_dead or pid in (1, os.getpid()):
            continue
        is_member = int(rest[2]) in known or int(rest[3]) in known
        if is_member or marker in b"\0" + read(f"/proc/{pid}/environ"):
            found.append((pid, start))
    return found


def end_all(instance: str, groups: dict[int, int]) -> bool:
    """End everything of *instance*; False when some of it still lives after the limit."""
    marker = b"\0SWAPCHART_INSTANCE=" + os.fsencode(instance) + b"\0"
    began = time.monotonic()
    asked: set[tuple[int, int]] = set()
    quiet = 0
    while (elapsed_s := time.monotonic() - began) < LIMIT_S:
        alive = victims(marker, groups)
        quiet = 0 if alive else quiet + 1
        if quiet == QUIET_SCANS:
            return True
        for who in alive:
            if elapsed_s >= GRACE_S:
                send(who[0], signal.SIGKILL)
            elif who not in asked:
                asked.add(who)
                send(who[0], signal.SIGTERM)
                send(who[0], signal.SIGCONT)
        time.sleep(PERIOD_S)
    return False


def send(pid: int, signum: int) -> None:
    """Signal one process; nothing happens when it has ended or belongs to somebody else."""
    try:  # noqa: SIM105  (contextlib is not worth its memory here)
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def main(argv: list[str]) -> int:
    """Run the guard; returns its exit code."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    groups: dict[int, int] = {}
    if not listen(0, groups):
        return 0
    return 0 if end_all(argv[1], groups) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
