"""Lock file: one process at a time holds it; the lock ends with that process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .private_files import open_file


class LockedError(Exception):
    """Another process, or another part of this one, holds the lock.

    Attributes:
        holder: Process id of the holder; empty if it is unknown.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"locked by pid {holder}" if holder else "locked")
        self.holder = holder


def lock_file(path: Path) -> int:
    """Create and lock the file at *path*, write the process id into it, and return it open.

    Raises:
        LockedError: The lock is held.
        OSError: The file cannot be created or written, or another user can write it.
    """
    lock = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _written(lock)
        os.close(lock)
        raise LockedError(holder) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def holder_of(path: Path) -> str | None:
    """Return the process id of the holder of the lock at *path*; empty if it is unknown.

    Nothing is created or changed. None means that the lock is not held.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written(lock)
    finally:
        os.close(lock)
    return None


def _written(lock: int) -> str:
    """Return the process id that the holder of *lock* has written."""
    return os.read(lock, 32).decode("ascii", "replace").strip()
