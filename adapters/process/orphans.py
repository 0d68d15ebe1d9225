"""Ends what an earlier run of the proxy left behind, at the start of this one.

The guard process does this at once when we are killed. This is for the day on which the guard
was killed too. Never by name and never by a bare pid: a process is ended if its environment or its
tag (``proctag``) carries the id of a proxy process that the journal knows, or if it is the very
leader that was launched (same pid, same start, same boot), with its group. Daemons of a container
engine are left to it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import anyio

from . import pidfd, procfs, users
from .tree import descendants
from .tree import tag as proctag

log = logging.getLogger(__name__)

_LIMIT_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LaunchRecord(Protocol):
    """One launch that an earlier proxy wrote down; see ``store.journal.Launched``."""

    @property
    def instance(self) -> str:
        """Id of the proxy that launched it."""
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
        """When it started, in clock ticks since boot."""
        ...

    @property
    def boot(self) -> str:
        """Id of the boot of the machine in which it ran."""
        ...


def boot_id() -> str:
    """Return the id of this boot; empty where there is none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def started_of(pid: int) -> int | None:
    """Return when *pid* started, in clock ticks since boot, or None."""
    proc = procfs.find(pid)
    return None if proc is None else proc.start


def find_orphans(launched: Sequence[LaunchRecord]) -> list[tuple[procfs.Proc, str]]:
    """Return live processes of *launched* trees, each with its service."""
    services = {item.instance: item.service for item in launched}
    boot = boot_id()
    leaders = {(item.pid, item.started): item.service for item in launched if item.boot == boot}
    groups: dict[int, str] = {}
    found: list[tuple[procfs.Proc, str]] = []
    everyone = [proc for proc in procfs.scan() if proc.is_alive]
    for proc in everyone:
        service = leaders.get((proc.pid, proc.start))
        if service is not None:
            groups[proc.pid] = service
    for proc in everyone:
        service = groups.get(proc.pgid)
        if service is None:
            instance = procfs.variable(proc.pid, "SWAPCHART_INSTANCE")
            if instance is None or instance not in services:
                tag = proctag.read(proc.pid)
                instance = next((each for each in services if proctag.is_of(tag, each)), None)
            if instance is None or descendants.is_below_engine(proc):
                continue
            service = procfs.variable(proc.pid, "SWAPCHART_SERVICE") or services[instance]
        found.append((proc, service))
    return found


async def kill_orphans(launched: Sequence[LaunchRecord]) -> list[str]:
    """End what lives of *launched*; returns the services that something was ended of."""
    services: set[str] = set()
    denied: set[procfs.Proc] = set()
    with anyio.move_on_after(_LIMIT_S):
        while found := [each for each in find_orphans(launched) if each[0] not in denied]:
            for proc, service in found:
                if service not in services:
                    log.warning("%s: ending what an earlier run left behind", service)
                services.add(service)
                if not pidfd.send(proc, signal.SIGKILL) and users.is_denied(proc):
                    user = users.name(users.uid(proc.pid))
                    log.error("%s: pid %d of user %s cannot be ended", service, proc.pid, user)
                    denied.add(proc)
            await pidfd.wait_gone([proc for proc, _ in found if proc not in denied])
    return sorted(services)
