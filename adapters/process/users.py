"""Users of processes: user ids, names and permission to signal."""

from __future__ import annotations

import os
import pwd

from . import procfs
from .procfs import Proc


def uid(pid: int) -> int:
    """Return the effective user id of *pid*; -1 if it has ended."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116  (root's if the process may not be dumped)
    except OSError:
        return -1


def real_uid(pid: int) -> int:
    """Return the real user id of *pid* from /proc/PID/status; -1 if it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return -1


def name(number: int) -> str:
    """Return the name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def is_denied(proc: Proc) -> bool:
    """Return True if *proc* is running and this process may not signal it."""
    try:
        os.kill(proc.pid, 0)
    except PermissionError:
        return procfs.is_same(proc)
    except OSError:
        return False
    return False
