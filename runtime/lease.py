"""Lease: a ready service that is held for a block.

This is a module of its own, since a compiled module cannot have asynchronous generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..dataclass import dataclass
from .host import ServiceHost


@dataclass(frozen=True, slots=True)
class Lease:
    """A ready service that is not stopped while the lease lasts.

    Attributes:
        service: Name of the service.
        endpoint: Base URL of the service.
        pid: Process id of its leader, or None.
        incarnation: Number of this run of the service, counted from 1.
    """

    service: str
    endpoint: str
    pid: int | None
    incarnation: int


@asynccontextmanager
async def leased(
    supervisor: ServiceHost, name: str, priority: int, client: str
) -> AsyncIterator[Lease]:
    """Hold service *name* ready; see ``Supervisor.lease``."""
    await supervisor.acquire(name, priority=priority, client=client)
    lifecycle = supervisor[name]
    try:
        pid = lifecycle.process.pid or None if lifecycle.process is not None else None
        yield Lease(name, lifecycle.endpoint, pid, lifecycle.incarnation)
    finally:
        supervisor.release(name)
