"""Upstreams: the servers of models and peers, each with its connection pool.

An `UpstreamRegistry` holds one `Upstream` per model and peer. An upstream whose address or timeouts
change is replaced. The old one, called retired, gets no new requests and finishes those in flight.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from ...runtime import Supervisor, Transition
from ..http1.client.pool import ConnectionPool
from .models.definitions import ModelDefinition, PeerDefinition, UpstreamTimeouts

#: Events after which a model that is being stopped no longer waits for its requests in flight.
_ABORTING_EVENTS = frozenset({"drain_expired", "unhealthy", "kill"})


class Upstream:
    """One upstream: a base URL, its timeouts and its connection pool.

    Args:
        endpoint: Base URL, such as ``http://127.0.0.1:5800/base``.
        limits: Timeouts of its requests.

    Attributes:
        endpoint: See above.
        limits: See above.
        host: Value of the Host header: host and port of the base URL.
        prefix: Path of the base URL, prepended to the path of each request; no slash at its end.
        header_timeout_s: Time limit until the response headers arrive, in seconds; None means
            unlimited.
        stall_s: Time limit between two pieces of a response body, in seconds; None means unlimited.
        pool: Its connections.
    """

    __slots__ = ("endpoint", "header_timeout_s", "host", "limits", "pool", "prefix", "stall_s")

    def __init__(self, endpoint: str, limits: UpstreamTimeouts) -> None:
        url = urlsplit(endpoint)
        host, port = url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80)
        context = ssl.create_default_context() if url.scheme == "https" else None
        self.endpoint, self.limits = endpoint, limits
        self.host = url.netloc.rpartition("@")[2].encode()
        self.prefix = url.path.rstrip("/").encode()
        begins_s = [s for s in (limits.header_s, limits.first_byte_s) if s is not None]
        self.header_timeout_s, self.stall_s = min(begins_s, default=None), limits.stall_s
        self.pool = ConnectionPool(host, port, ssl=context, connect_timeout_s=limits.connect_s)


class UpstreamRegistry:
    """Connection pools of all models and peers.

    Args:
        supervisor: Knows the addresses of models; its transitions end requests of stopped models.
        models: Id to definition.
        peers: Id to definition.
    """

    def __init__(
        self, supervisor: Supervisor, models: Mapping[str, ModelDefinition],
        peers: Mapping[str, PeerDefinition],
    ) -> None:  # fmt: skip
        self._supervisor, self._models, self._peers = supervisor, models, peers
        self._of_models: dict[str, Upstream] = {}
        self._of_peers: dict[str, Upstream] = {}
        self._retired: dict[str, list[Upstream]] = {}  # of models, with requests in flight
        self._stop_listening = supervisor.listen(self._on_transition)

    def configure(
        self, models: Mapping[str, ModelDefinition], peers: Mapping[str, PeerDefinition]
    ) -> None:
        """Use other definitions; retire the upstreams that are gone or have other timeouts."""
        self._models, self._peers = models, peers
        for name, upstream in list(self._of_models.items()):
            if name not in models or models[name].limits != upstream.limits:
                self._retire(name, self._of_models.pop(name))
        # Without a reference here, a pool serves its requests and lets its idle connections expire.
        self._of_peers = {
            name: upstream for name, upstream in self._of_peers.items()
            if name in peers
            and (peers[name].url, peers[name].limits) == (upstream.endpoint, upstream.limits)
        }  # fmt: skip

    def of_model(self, definition: ModelDefinition) -> Upstream:
        """Return the upstream of a local model; *definition* may be an earlier one."""
        return self.at(definition, self._supervisor[definition.id].endpoint)

    def at(self, definition: ModelDefinition, endpoint: str) -> Upstream:
        """Return the upstream of a local model, whose server is at *endpoint*."""
        upstream = self._of_models.get(definition.id)
        if upstream is None or upstream.endpoint != endpoint:
            if upstream is not None:
                self._retire(definition.id, upstream)
            limits = self._models.get(definition.id, definition).limits
            upstream = self._of_models[definition.id] = Upstream(endpoint, limits)
        return upstream

    def of_peer(self, definition: PeerDefinition) -> Upstream:
        """Return the upstream of a peer."""
        upstream = self._of_peers.get(definition.id)
        if upstream is None:
            upstream = self._of_peers[definition.id] = Upstream(definition.url, definition.limits)
        return upstream

    def _retire(self, name: str, upstream: Upstream) -> None:
        """Keep *upstream* for as long as it has connections, so that they can be closed."""
        kept = [old for old in self._retired.get(name, ()) if old.pool.open]
        self._retired[name] = [*kept, upstream]

    def _on_transition(self, record: Transition) -> None:
        """Abort the requests of a model whose shutdown no longer waits for them, or that was lost.

        A model server with a request in flight may ignore SIGTERM and save no slot: without this,
        the stop hooks and the grace period after the drain would time out too. From a node that was
        lost comes no packet that would end them.
        """
        if record.event in _ABORTING_EVENTS and "stopping" in record.configuration:
            self._abort(record.service, f"the model is being stopped: {record.cause}")
        elif record.event == "proc_exited":
            if record.service in self._of_models:  # the next one may be another program
                self._of_models[record.service].pool.streams.is_kept = False
            ended = self._supervisor[record.service].last_exit
            if ended is not None and ended.is_lost:
                self._abort(record.service, f"the model was lost: {record.cause}")

    def _abort(self, name: str, why: str) -> None:
        upstreams = self._retired.pop(name, [])
        if name in self._of_models:
            upstreams.append(self._of_models[name])
        for upstream in upstreams:
            upstream.pool.abort_connections(why)

    async def aclose(self) -> None:
        """Close all connections."""
        self._stop_listening()
        retired = [upstream for those in self._retired.values() for upstream in those]
        for upstream in (*self._of_models.values(), *self._of_peers.values(), *retired):
            await upstream.pool.aclose()
