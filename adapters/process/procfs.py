"""What /proc and the kernel tell about processes, and the few calls that change them.

Everything here is synchronous and quick (a scan reads one small file per process), except
``wait_gone`` and ``wait_child``. A process is always named by pid *and* start time, because
pids are used again. What is gone or hidden is passed over; what cannot be looked at for want
of a descriptor or memory raises OSError, so that nobody takes a live process for a dead one.

Source: Linux man-pages, proc_pid_stat(5), proc_pid_environ(5), pidfd_open(2), prctl(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Proc(NamedTuple):
    """One process as a scan of /proc saw it.

    Attributes:
        pid: Process id.
        ppid: Parent's pid.
        pgid: Process group id.
        sid: Session id.
        start: When it started, in clock ticks since boot; with *pid* it is unique.
        is_alive: False for a zombie, which only waits to be reaped.
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    start: int
    is_alive: bool


def parse_stat(raw: bytes) -> Proc:
    """Read one /proc/PID/stat line; the name in it may hold blanks and parentheses.

    A thread group whose first thread has ended while others run shows as a zombie with more
    than one thread: it is alive.
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
    """Return the whole of a small /proc file; empty when it is gone or not for us.

    Raises:
        OSError: There is no descriptor or memory left to look with.
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
    """Return the process with this pid, zombies included; None when there is none.

    Raises:
        OSError: There is no descriptor or memory left to look with.
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
    """Yield every process that can be seen, zombies included, in no order.

    Raises:
        OSError: There is no /proc, or no descriptor or memory left to look with.
    """
    for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib is 3 times slower here)
        if name.isdecimal():
            proc = find(int(name))
            if proc is not None:
                yield proc


def carries(pid: int, variable: str) -> bool:
    """Tell whether *pid* was started with *variable* (``NAME=value``) in its environment.

    False too when it may not be read (another user's), or has overwritten it since (a program
    that sets its own title).
    """
    needle = b"\0" + os.fsencode(variable) + b"\0"
    return needle in b"\0" + read_bytes(f"/proc/{pid}/environ")


def variable(pid: int, name: str) -> str | None:
    """Return the value of one variable in the first environment of *pid*, or None."""
    prefix = os.fsencode(name) + b"="
    for item in read_bytes(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(prefix):
            return os.fsdecode(item[len(prefix) :])
    return None


def program(pid: int) -> str:
    """Return the file name of the program that *pid* runs, as far as it can be known."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119
    except OSError:
        return read_bytes(f"/proc/{pid}/comm").decode("utf-8", "replace").strip() or "?"


def is_contained(pid: int) -> bool:
    """Tell whether *pid* is in another PID namespace than we are: in a container, most likely."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return False


def is_same(proc: Proc) -> bool:
    """Tell whether *proc* still lives: same pid, same start, not a zombie."""
    now = find(proc.pid)
    return now is not None and now.start == proc.start and now.is_alive


# ---- who holds a socket ------------------------------------------------------------------


def socket_inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets that *pid* holds open; empty if we may not look."""
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
    """Search every process for open sockets with these inodes; some 50 ms on a busy machine."""
    return [proc for proc in scan() if proc.is_alive and inodes & socket_inodes(proc.pid)]


# ---- memory ------------------------------------------------------------------------------


# ---- this process ------------------------------------------------------------------------
