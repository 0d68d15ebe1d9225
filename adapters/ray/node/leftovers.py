"""Processes that an earlier agent of this node, or a killed guard, has left behind."""

from __future__ import annotations

import os
import signal
import time

SCAN_S = 0.02
QUIET_SCANS = 3  # a child between fork and exec has no environment of its own yet


def marked(markers: dict[str, str], spared: dict[str, str]) -> list[int]:
    """Return the running processes whose first environment holds all *markers*.

    Args:
        markers: Variables that it must hold.
        spared: Variables by which a process is left alone.
    """
    wanted = [f"\0{name}={value}\0".encode() for name, value in markers.items()]
    others = [f"\0{name}={value}\0".encode() for name, value in spared.items()]
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                environment = b"\0" + file.read()
            if not all(marker in environment for marker in wanted):
                continue
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                stat = file.read()
        except OSError:
            continue
        is_dead = stat[stat.rindex(b")") + 2 :][:1] in b"ZX"
        if not is_dead and not any(marker in environment for marker in others):
            found.append(int(name))
    return found


def end_marked(
    markers: dict[str, str], spared: dict[str, str], *, patience_s: float, limit_s: float
) -> list[int]:
    """Wait for the end of marked processes, and kill those that are left; blocks.

    Args:
        markers: As for `marked`.
        spared: As for `marked`.
        patience_s: How long their own guards may take.
        limit_s: How long to go on with SIGKILL then.

    Returns:
        The processes that are still running; empty is what is to be expected.
    """
    began, quiet = time.monotonic(), 0
    left: list[int] = []
    while quiet < QUIET_SCANS and time.monotonic() - began < patience_s + limit_s:
        left = marked(markers, spared)
        quiet = 0 if left else quiet + 1
        if time.monotonic() - began >= patience_s:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
        time.sleep(SCAN_S)
    return left
