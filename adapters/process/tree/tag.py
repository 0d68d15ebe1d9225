"""Tag of a run: a number that every descendant inherits, whatever its environment and session.

The tag is the soft limit RLIMIT_RTTIME in microseconds, so large that it limits nothing. Its bits
identify the proxy and the run. Resource limits are inherited by fork and exec, by daemons (double
fork, setsid), under ``env -i`` and by programs of another user started with sudo, and
/proc/PID/limits is readable by every user. Only descendants carry the tag, since its 61 bits are
random.

A descendant loses the tag when it sets this limit itself, as pam_limits does if configured so, and
as container runtimes may. Where the limit cannot be set there are no tags.

Source: Linux man-pages, getrlimit(2), proc_pid_limits(5).
"""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from .. import procfs

_MARK = 1 << 61  # some 73,000 years of CPU time: never reached
_RUN_BITS = 32
_FIELD = b"Max realtime timeout"


def make(instance: str, run_id: str) -> int:
    """Return the tag of one run of one proxy process."""
    return _prefix(instance) << _RUN_BITS | int(run_id[:8], 16)


def is_of(tag: int, instance: str) -> bool:
    """Return True if *tag* marks any run of the proxy process *instance*."""
    return tag >> _RUN_BITS == _prefix(instance)


def _prefix(instance: str) -> int:
    digest = hashlib.sha256(str(instance).encode("utf-8", "replace")).digest()
    return _MARK >> _RUN_BITS | int.from_bytes(digest[:4], "big") >> 3


def prefix(instance: str) -> int:
    """Return the upper bits that all tags of *instance* share, for ``guard_process.py``."""
    return _prefix(instance)


def read(pid: int) -> int:
    """Return the tag of *pid*; 0 if it has none or has ended.

    Raises:
        OSError: There is no free descriptor or memory.
    """
    _, _, rest = procfs.read_bytes(f"/proc/{pid}/limits").partition(_FIELD)
    value = rest.split(None, 1)[0] if rest else b""
    number = int(value) if value.isdigit() and len(value) < 20 else 0
    return number if number >> 61 == 1 else 0


@contextmanager
def applied(tag: int) -> Iterator[None]:
    """Give *tag* to the processes that are started in the block."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard))
    except (OSError, ValueError):  # a lower hard limit, a sandbox
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))
