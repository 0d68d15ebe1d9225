"""The owner of agents: which proxy it is, and whether it is dead."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return this process as an owner, with an id that no other one has."""
    return {
        "id": secrets.token_hex(8), "host": socket.gethostname(), "boot": _boot(),
        "pid": os.getpid(), "start": _start(os.getpid()),
    }  # fmt: skip


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Return True if *owner* was a process of this machine that has ended.

    A process in another pid namespace has another boot id or host name, or looks dead and is not:
    containers of one host need names of their own.
    """
    if owner["boot"] != _boot() or owner["host"] != socket.gethostname():
        return False
    return _start(owner["pid"]) != int(owner["start"])


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> int:
    """Return the start of a process in clock ticks since boot; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
