"""What all handlers share: the supervisor, the models as clients see them, and how to behave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ...runtime import Supervisor
from .cards import ModelCard, PeerCard
from .catalogue import Catalogue
from .exchange import Exchange, Flights
from .gate import Gate
from .options import ProxyOptions
from .origins import ProxyTrust
from .profiles import Profiles
from .relay import Upstream
from .resolve import Resolver


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
        trusts: Tells whether the client at an address is a proxy of ours.
        history: None: nothing is remembered.
        profiles: Which of them is active.
        resolver: Finds models by name.
        flights: Requests that are not over.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: Catalogue, options: ProxyOptions, *,
        history: History | None = None,
        on_finished: Callable[[Exchange], None] | None = None,
    ) -> None:  # fmt: skip
        self.supervisor, self.catalogue, self.options = supervisor, catalogue, options
        self.gate = Gate(options)
        self.trusts = ProxyTrust(options.trusted_proxies).allows
        self.history = history
        self.on_finished = on_finished
        self.profiles = Profiles(catalogue.profiles)
        self.resolver = Resolver(supervisor, catalogue, self.profiles)
        self.flights = Flights()
        self._upstreams: dict[str, Upstream] = {}
        self._peers: dict[str, Upstream] = {}

    def upstream_of(self, card: ModelCard) -> Upstream:
        """Return the connections to the server of a model of ours."""
        endpoint = self.supervisor[card.id].spec.endpoint
        upstream = self._upstreams.get(card.id)
        if upstream is None or upstream.endpoint != endpoint:
            upstream = self._upstreams[card.id] = Upstream(endpoint, card.limits)
        return upstream

    def upstream_of_peer(self, card: PeerCard) -> Upstream:
        """Return the connections to a peer."""
        upstream = self._peers.get(card.id)
        if upstream is None:
            upstream = self._peers[card.id] = Upstream(card.url, card.limits)
        return upstream

    async def aclose(self) -> None:
        """Close all connections to upstreams."""
        for upstream in (*self._upstreams.values(), *self._peers.values()):
            await upstream.pool.aclose()
