"""What /proc and the kernel tell about processes, and the few calls that change them.

Everything here is synchronous and quick (a scan reads one small file per process), except
``wait_gone`` and ``wait_child``. A process is always named by pid *and* start time, because
pids are used again. What is gone or hidden is passed over; what cannot be looked at for want
of a descriptor or memory raises OSError, so that nobody takes a live process for a dead one.

Source: Linux man-pages, proc_pid_stat(5), proc_pid_environ(5), pidfd_open(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import anyio
import anyio.to_thread

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_SYS_PIDFD_SEND_SIGNAL = 424  # the same number on every architecture that Python runs on
_SYS_PIDFD_OPEN = 434
_OOM_STEP = 300
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_libc = ctypes.CDLL(None, use_errno=True)


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


def open_pidfd(pid: int) -> int:
    """Return a descriptor of a process, readable once it has ended.

    Python has the call only if it was built on a system that had it; many builds lack it.

    Raises:
        OSError: No such process, no descriptor left, or a kernel that does not know it.
    """
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _syscall(_SYS_PIDFD_OPEN, pid, 0)


def _syscall(number: int, *args: int) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def send(proc: Proc, signum: int) -> bool:
    """Send a signal to exactly this process, never to a later one with its pid.

    Returns:
        False when it has ended already, is not ours to signal, or cannot be looked at.
    """
    try:
        with _pidfd(proc.pid) as fd:
            if not is_same(proc):
                return False
            _send(fd, signum)
    except ProcessLookupError:
        return False
    except OSError:  # no pidfd here, or too few descriptors: what is left is a race of microseconds
        try:
            if not is_same(proc):
                return False
            os.kill(proc.pid, signum)
        except OSError:
            return False
    return True


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = open_pidfd(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _send(pidfd: int, signum: int) -> None:
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(pidfd, signum)
    else:
        _syscall(_SYS_PIDFD_SEND_SIGNAL, pidfd, signum, 0, 0)


async def wait_gone(procs: Iterable[Proc]) -> None:
    """Wait until each of *procs* has ended; a zombie has ended."""
    for proc in procs:
        await _wait_gone(proc)


async def _wait_gone(proc: Proc) -> None:
    try:
        fd = open_pidfd(proc.pid)
    except ProcessLookupError:
        return
    except OSError:  # no pidfd here, or no descriptor left: look again and again, ever slower
        delay_s = 0.005
        while _may_live(proc):
            await anyio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.05)
        return
    try:
        if _may_live(proc):
            await anyio.wait_readable(fd)
    finally:
        os.close(fd)


def _may_live(proc: Proc) -> bool:
    try:
        return is_same(proc)
    except OSError:
        return True


async def wait_child(pid: int) -> None:
    """Wait until this child of ours has ended; it stays to be reaped.

    Without pidfd (old kernels, some sandboxes) a thread waits, or without threads we look often.
    """
    try:
        fd = open_pidfd(pid)
    except OSError:
        with suppress(ChildProcessError):
            how, wait = os.WEXITED | os.WNOWAIT, anyio.to_thread.run_sync
            one = anyio.CapacityLimiter(1)
            try:
                await wait(os.waitid, os.P_PID, pid, how, abandon_on_cancel=True, limiter=one)
            except (RuntimeError, MemoryError):  # no thread can be made
                while os.waitid(os.P_PID, pid, how | os.WNOHANG) is None:  # noqa: ASYNC110, ASYNC222
                    await anyio.sleep(0.05)
        return
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)


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


def parse_oom_kills(text: str) -> int | None:
    """Read the count ``oom_kill`` of memory.events (cgroup 2) or memory.oom_control (1)."""
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdecimal():
            return int(count)
    return None


def oom_files(cgroups: str) -> Iterator[str]:
    """Yield where the count of our cgroup may be found, from the text of /proc/self/cgroup."""
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        path = path.rstrip("/")
        if number == "0":
            yield f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            yield f"/sys/fs/cgroup/memory{path}/memory.oom_control"
            yield "/sys/fs/cgroup/memory/memory.oom_control"  # as a container sees its own


def raise_oom_score(pid: int) -> None:
    """Let the kernel, out of memory, rather kill the new child *pid* than us.

    What it starts inherits that, unless it started it in the instant before. A score that it has
    chosen itself by then stays.

    Source: Linux man-pages, proc_pid_oom_score_adj(5); 300 is three tenths of all memory.
    """
    with suppress(OSError, ValueError):  # it has ended; a sandbox
        ours, its = (int(read_bytes(f"/proc/{each}/oom_score_adj")) for each in ("self", str(pid)))
        if its == ours:
            _write(f"/proc/{pid}/oom_score_adj", b"%d" % min(ours + _OOM_STEP, 1000))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


class OomCount:
    """Tells whether the kernel has killed somebody in our cgroup for want of memory."""

    def __init__(self) -> None:
        self._path = ""
        with suppress(OSError):
            for path in oom_files(read_bytes("/proc/self/cgroup").decode("utf-8", "replace")):
                if not self._path and self._read(path) is not None:
                    self._path = path
        self._seen = self._read(self._path) or 0

    def has_grown(self) -> bool:
        """Tell whether it has since the last time; False where it cannot be read."""
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


# ---- this process ------------------------------------------------------------------------


def set_subreaper(*, on: bool) -> bool:
    """Become (or stop being) the parent of descendants whose own parent dies.

    Returns:
        Whether we were one before.

    Raises:
        OSError: The kernel or a sandbox refuses.
    """
    before = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))
    return bool(before.value)


def _prctl(option: int, argument: object) -> None:
    nothing = ctypes.c_ulong(0)
    if _libc.prctl(option, argument, nothing, nothing, nothing) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def has_zombie() -> bool:
    """Tell whether any child, whoever started it, waits to be reaped; reaps nothing."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def reap_zombies(is_ours: Callable[[Proc], bool]) -> int:
    """Reap the zombies among our children that *is_ours* accepts; returns how many.

    Never waits for *any* child: that would steal the exit codes of others in this process.
    """
    zombies = [each for each in scan() if each.ppid == os.getpid() and not each.is_alive]
    return sum(reap(each.pid, each.start) for each in zombies if is_ours(each))


def reap(pid: int, start: int) -> bool:
    """Reap exactly this process; False if it is not a zombie and a child of ours."""
    found = find(pid)
    if found is None or found.start != start or found.is_alive or found.ppid != os.getpid():
        return False
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


_first_nofile: tuple[int, int] | None = None


def raise_nofile_limit() -> int:
    """Raise our soft limit of open files to the hard one; children get the old one back.

    Some programs (select(2) users, anything that closes every possible descriptor) break
    under a high soft limit, so the raise is for us only.

    Returns:
        The soft limit that now holds.
    """
    global _first_nofile  # like the limit itself: one per process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _first_nofile = _first_nofile or (soft, hard)
    return hard


def restore_nofile_limit(pid: int) -> None:
    """Give a new child the limit that we had before ``raise_nofile_limit``; else do nothing."""
    if _first_nofile is not None:
        with suppress(OSError):  # it has ended, or has become another user
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _first_nofile)
