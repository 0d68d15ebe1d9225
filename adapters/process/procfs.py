"""Processes as /proc shows them.

All functions are synchronous and quick (a scan reads one small file per process). A process is
identified by pid *and* start time, because pids are reused. Processes that are gone or hidden are
skipped. A lack of descriptors or memory raises OSError, so that no running process is taken for one
that has ended.

Source: Linux man-pages, proc_pid_stat(5), proc_pid_environ(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Proc(NamedTuple):
    """One process at the time of a scan of /proc.

    Attributes:
        pid: Process id.
        ppid: Parent's pid.
        pgid: Process group id.
        sid: Session id.
        start: Start time in clock ticks since boot; unique together with *pid*.
        is_alive: False for a zombie, which has ended and is not reaped yet.
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    start: int
    is_alive: bool


def parse_stat(raw: bytes) -> Proc:
    """Parse a /proc/PID/stat line; the name in it may contain spaces and parentheses.

    If the first thread of a process has ended while others run, the process is shown as a zombie
    with more than one thread; it counts as alive.
    """
    name_end = raw.rindex(b")")
    rest = raw[name_end + 2 :].split(None, 20)
    state, threads = rest[0], int(rest[17])
    return Proc(
        pid=int(raw[: raw.index(b"(")]),
        ppid=int(rest[1]),
        pgid=int(rest[2]),
        sid=int(rest[3]),
        start=int(rest[19]),
        is_alive=state not in (b"Z", b"X", b"x") or threads > 1,
    )


def read_bytes(path: str) -> bytes:
    """Return the content of a small file of /proc; empty if it is gone or may not be read.

    Raises:
        OSError: There is no free descriptor or memory.
    """
    chunks: list[bytes] = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while chunk := os.read(fd, 65536):
                chunks.append(chunk)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
    return b"".join(chunks)


def find(pid: int) -> Proc | None:
    """Return the process with this pid, zombies included; None if there is none.

    Raises:
        OSError: There is no free descriptor or memory.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse_stat(os.read(fd, 4096))
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return None


def scan() -> Iterator[Proc]:
    """Yield every visible process, zombies included, in no particular order.

    Raises:
        OSError: There is no /proc, no free descriptor or no memory.
    """
    for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib is 3 times slower here)
        if name.isdecimal():
            proc = find(int(name))
            if proc is not None:
                yield proc


def carries(pid: int, variable: str) -> bool:
    """Return True if *pid* was started with *variable* (``NAME=value``) in its environment.

    The result is False too if another user's process may not be read, or if the process has
    overwritten its environment, as a program that sets its title may do.
    """
    needle = b"\0" + os.fsencode(variable) + b"\0"
    return needle in b"\0" + read_bytes(f"/proc/{pid}/environ")


def variable(pid: int, name: str) -> str | None:
    """Return the value of one variable in the initial environment of *pid*, or None."""
    prefix = os.fsencode(name) + b"="
    for item in read_bytes(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(prefix):
            return os.fsdecode(item[len(prefix) :])
    return None


def program(pid: int) -> str:
    """Return the file name of the program of *pid*, else its command name, else "?"."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119
    except OSError:
        return read_bytes(f"/proc/{pid}/comm").decode("utf-8", "replace").strip() or "?"


def is_contained(pid: int) -> bool:
    """Return True if *pid* is in another PID namespace, so most likely in a container."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return False


def is_same(proc: Proc) -> bool:
    """Return True if *proc* is still running: same pid, same start, not a zombie."""
    now = find(proc.pid)
    return now is not None and now.start == proc.start and now.is_alive


# ---- sockets ------------------------------------------------------------------------------


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the open sockets of *pid*; empty if they are hidden."""
    inodes: set[int] = set()
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return inodes
    for name in names:
        with suppress(OSError):
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    return inodes


def find_holders(inodes: set[int]) -> list[Proc]:
    """Return the processes that hold these sockets; about 50 ms on a busy machine."""
    return [proc for proc in scan() if proc.is_alive and inodes & socket_inodes(proc.pid)]
