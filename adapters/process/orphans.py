"""Orphans: processes of an earlier run of the proxy, killed at the start of the next.

Normally the guard process kills them as soon as the proxy dies; these are left if the guard was
killed too. No process is killed by its name or its bare pid. Its environment or its tag (see
``tree.tag``) must carry the id of a proxy process in the journal, or it must be a leader that was
launched (same pid, start and boot) or in the group of one. Daemons of container engines are spared.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import anyio

from . import pidfd, procfs, users
from .tree import descendants, tag

log = logging.getLogger(__name__)

_LIMIT_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LaunchRecord(Protocol):
    """Launch of a process tree by an earlier run; see ``store.journal.Launched``."""

    @property
    def instance(self) -> str:
        """Id of the run of the proxy that launched it."""
        ...

    @property
    def service(self) -> str:
        """Name of the service."""
        ...

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        ...

    @property
    def started(self) -> int:
        """Start time of the leader, in clock ticks since boot."""
        ...

    @property
    def boot(self) -> str:
        """Id of the boot of that time."""
        ...


def boot_id() -> str:
    """Return the id of this boot; empty if the kernel reports none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def started_of(pid: int) -> int | None:
    """Return the start time of *pid* in clock ticks since boot; None if it has ended."""
    proc = procfs.find(pid)
    return None if proc is None else proc.start


def find_orphans(launched: Sequence[LaunchRecord]) -> list[tuple[procfs.Proc, str]]:
    """Return the running processes of *launched* trees, each with its service."""
    services = {item.instance: item.service for item in launched}
    boot = boot_id()
    leaders = {(item.pid, item.started): item.service for item in launched if item.boot == boot}
    groups: dict[int, str] = {}
    found: list[tuple[procfs.Proc, str]] = []
    running = [proc for proc in procfs.scan() if proc.is_alive]
    for proc in running:
        service = leaders.get((proc.pid, proc.start))
        if service is not None:
            groups[proc.pid] = service
    for proc in running:
        service = groups.get(proc.pgid)
        if service is None:
            instance = procfs.variable(proc.pid, "SWAPCHART_INSTANCE")
            if instance is None or instance not in services:
                found_tag = tag.read(proc.pid)
                instance = next((each for each in services if tag.is_of(found_tag, each)), None)
            if instance is None or descendants.is_below_engine(proc):
                continue
            service = procfs.variable(proc.pid, "SWAPCHART_SERVICE") or services[instance]
        found.append((proc, service))
    return found


async def kill_orphans(launched: Sequence[LaunchRecord]) -> list[str]:
    """Kill the running processes of *launched*; return the names of their services."""
    services: set[str] = set()
    denied: set[procfs.Proc] = set()
    with anyio.move_on_after(_LIMIT_S):
        while found := [each for each in find_orphans(launched) if each[0] not in denied]:
            for proc, service in found:
                if service not in services:
                    log.warning(
                        "%s: killing processes that an earlier run of the proxy left behind",
                        service,
                    )
                services.add(service)
                if not pidfd.send(proc, signal.SIGKILL) and users.is_denied(proc):
                    user = users.name(users.uid(proc.pid))
                    log.error("%s: pid %d of user %s cannot be killed", service, proc.pid, user)
                    denied.add(proc)
            await pidfd.wait_gone([proc for proc, _ in found if proc not in denied])
    return sorted(services)
