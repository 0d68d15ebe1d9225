"""A ready service that is held for a block.

In a module of its own: what is compiled has no asynchronous generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .host import ServiceHost


@dataclass(frozen=True, slots=True)
class Lease:
    """A ready service that stays ready while it is held.

    Attributes:
        service: Its name.
        endpoint: Base URL where it serves.
        pid: Process id of its leader.
        incarnation: Which run of the service this is.
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
    life = supervisor[name]
    try:
        pid = life.process.pid if life.process is not None else None
        yield Lease(name, life.spec.endpoint, pid, life.incarnation)
    finally:
        supervisor.release(name)
