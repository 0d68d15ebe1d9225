"""Interface of a supervisor for its parts.

`lease`, `idle_loader` and `hook_recovery` are used by the supervisor and call it through this
protocol, so that there is no import cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from .lifecycle import Lifecycle
from .request_wait import RequestWait
from .scheduler import Scheduler


class ServiceHost(Protocol):
    """Interface of a supervisor for its parts."""

    @property
    def scheduler(self) -> Scheduler:
        """Scheduler of all services."""
        ...

    def __contains__(self, name: object) -> bool:
        """Return True if there is a service of that name."""
        ...

    def __getitem__(self, name: str) -> Lifecycle:
        """Return the lifecycle of *name*.

        Raises:
            UnknownServiceError: There is no such service; a `KeyError` too.
        """
        ...

    async def acquire(
        self, name: str, *, priority: int = 0, client: str = "", wait: RequestWait | None = None
    ) -> None:
        """Wait until *name* is ready and hold it; pair with `release`."""
        ...

    def release(self, name: str) -> None:
        """Release one hold of *name*."""
        ...

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        """Run *function* in the supervisor's task group."""
        ...

    def review(self) -> None:
        """Decide again on waiting requests."""
        ...
