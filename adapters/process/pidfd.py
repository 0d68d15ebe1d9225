"""Process file descriptors (pidfd): open, signal, and wait for the end of a process."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.to_thread

from .procfs import Proc, is_same

_SYS_PIDFD_SEND_SIGNAL = 424  # the same number on every architecture that Python runs on
_SYS_PIDFD_OPEN = 434

_libc = ctypes.CDLL(None, use_errno=True)


def open_pidfd(pid: int) -> int:
    """Return a descriptor of a process, readable once it has ended.

    Many builds of Python lack the function, since the system that built them lacked it.

    Raises:
        OSError: There is no such process, no free descriptor, or no support by the kernel.
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
    """Send a signal to exactly this process, never to a later one with the same pid.

    Returns:
        False if it has ended, may not be signaled, or cannot be examined.
    """
    try:
        with _pidfd(proc.pid) as fd:
            if not is_same(proc):
                return False
            _send(fd, signum)
    except ProcessLookupError:
        return False
    except OSError:  # no pidfd support or no free descriptor; a race of microseconds remains
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
    except OSError:  # no pidfd support or no free descriptor: poll with growing pauses
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
    """Wait until child *pid* has ended, without reaping it.

    Without pidfd support (old kernels, some sandboxes) a thread waits; without threads it polls.
    """
    try:
        fd = open_pidfd(pid)
    except OSError:
        with suppress(ChildProcessError):
            how, wait = os.WEXITED | os.WNOWAIT, anyio.to_thread.run_sync
            one = anyio.CapacityLimiter(1)
            try:
                await wait(os.waitid, os.P_PID, pid, how, abandon_on_cancel=True, limiter=one)
            except (RuntimeError, MemoryError):  # no thread can be created
                while os.waitid(os.P_PID, pid, how | os.WNOHANG) is None:  # noqa: ASYNC110, ASYNC222
                    await anyio.sleep(0.05)
        return
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)
