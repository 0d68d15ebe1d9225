"""Zombies: become the subreaper of daemons, and collect exit statuses."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

from .pidfd import _libc
from .procfs import Proc, find, scan

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def set_subreaper(*, on: bool) -> bool:
    """Become (or stop being) the parent of descendants whose own parent ends.

    Returns:
        True if this process was a subreaper before.

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
    """Return True if any child of this process is a zombie; reap none."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def reap_zombies(is_ours: Callable[[Proc], bool]) -> int:
    """Reap the zombie children that *is_ours* accepts; return their number.

    Other children are not reaped, since other code of this process may wait for their exit status.
    """
    zombies = [each for each in scan() if each.ppid == os.getpid() and not each.is_alive]
    return sum(reap(each.pid, each.start) for each in zombies if is_ours(each))


def reap(pid: int, start: int) -> bool:
    """Reap exactly this process; return False if it is not a zombie child."""
    found = find(pid)
    if found is None or found.start != start or found.is_alive or found.ppid != os.getpid():
        return False
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False
