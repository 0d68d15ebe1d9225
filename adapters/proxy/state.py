"""What all handlers share: the supervisor, the models as clients see them, and how to behave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ...runtime import Supervisor
from .catalogue import Catalogue
from .gate import Gate
from .options import ProxyOptions
from .relay import Exchange, Upstream


class History(Protocol):
    """Remembers transitions."""

    def __call__(self, name: str, /, *, limit: int) -> Awaitable[list[dict[str, Any]]]:
        """Return the last transitions of model *name*, the newest first."""
        ...


class Proxy:
    """What all handlers share.

    Attributes:
        supervisor: Runs the models.
        catalogue: The models as clients see them.
        options: How to behave.
        gate: What every request passes first.
        history: None: nothing is remembered.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: Catalogue, options: ProxyOptions, *,
        history: History | None = None,
        on_finished: Callable[[Exchange], None] | None = None,
    ) -> None:  # fmt: skip
        self.supervisor, self.catalogue, self.options = supervisor, catalogue, options
        self.gate = Gate(options)
        self.history = history
        self.on_finished = on_finished
        self._upstreams: dict[str, Upstream] = {}

    def upstream_of(self, name: str) -> Upstream:
        """Return the connections to the server of local model *name*."""
        endpoint = self.supervisor[name].spec.endpoint
        upstream = self._upstreams.get(name)
        if upstream is None or upstream.endpoint != endpoint:
            upstream = self._upstreams[name] = Upstream(endpoint)
        return upstream

    async def aclose(self) -> None:
        """Close all connections to upstreams."""
        for upstream in self._upstreams.values():
            await upstream.pool.aclose()
