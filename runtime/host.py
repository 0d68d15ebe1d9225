"""What a part of the supervisor may ask of the whole.

`leases`, `on_idle` and `owed` work on behalf of a supervisor and are used by it; they know it by
this protocol, so that the imports go one way.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from .lifecycle import Lifecycle
from .scheduler import Scheduler


class ServiceHost(Protocol):
    """The supervisor, as its parts see it."""

    @property
    def scheduler(self) -> Scheduler:
        """Return the scheduler of all services."""
        ...

    def __contains__(self, name: object) -> bool:
        """Return True if there is a service of that name."""
        ...

    def __getitem__(self, name: str) -> Lifecycle:
        """Return the lifecycle of *name*; raises KeyError."""
        ...

    async def acquire(self, name: str, *, priority: int = 0, client: str = "") -> None:
        """Wait until *name* is ready and hold it; pair with `release`."""
        ...

    def release(self, name: str) -> None:
        """Give back one hold of *name*."""
        ...

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        """Run *function* in the supervisor's task group."""
        ...

    def review(self) -> None:
        """Decide anew on requests that wait."""
        ...
