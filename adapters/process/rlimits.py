"""Limit of open files: raised for this process, restored for its children."""

from __future__ import annotations

import resource
from contextlib import suppress

_first_nofile: tuple[int, int] | None = None


def raise_nofile_limit() -> int:
    """Raise the soft limit of open files to the hard limit; children get the old limit.

    Some programs break under a high soft limit: users of select(2), and programs that close every
    possible descriptor.

    Returns:
        The new soft limit.
    """
    global _first_nofile  # like the limit itself: one per process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _first_nofile = _first_nofile or (soft, hard)
    return hard


def restore_nofile_limit(pid: int) -> None:
    """Give a new child the limit from before ``raise_nofile_limit``; a no-op if not raised."""
    if _first_nofile is not None:
        with suppress(OSError):  # it has ended, or has become another user
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _first_nofile)
