"""Serve HTTP/1.1 with our own protocol inside uvicorn.

uvicorn takes anybody's protocol class (``Config(http=...)``), so nothing of it is replaced.
Sockets, lifespan and TLS stay uvicorn's, and so do websockets: such connections are handed, with
the bytes read so far, to the class that it has for them.

How that class is called, and what a protocol has to do with ``ServerState``, is written nowhere
but in uvicorn's own protocols. Where it is not what we know, uvicorn serves as it is, and one
warning says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from ..asgi_types import fast_path_of
from .connection import ServerConnection
from .connections import ConnectionManager
from .request_cycle import App, RequestCycle
from .stock import guarded_uvicorn
from .validation import H1Limits

LOG = logging.getLogger("swapchart.h1")

_ARGUMENTS = {"config", "server_state", "app_state", "_loop"}
_OPTIONS = (
    "access_log", "encoded_headers", "limit_concurrency", "loaded_app", "root_path", "ssl",
    "timeout_graceful_shutdown", "ws_protocol_class",
)  # fmt: skip
_UNKNOWN = "uvicorn serves HTTP/1.1 by itself, slower and without our limits: %s"
_MARGIN_S = 0.1  # how long before uvicorn's own deadline we cut what is left


def uvicorn_protocol(
    limits: H1Limits, is_draining: Callable[[], bool] = lambda: False
) -> type[asyncio.Protocol] | str:
    """Return what makes uvicorn serve by our protocol, for its ``Config(http=...)``.

    A server that is configured for what only uvicorn does (access log, fields of its own, a root
    path, a limit of connections) is served by uvicorn's own class, within the limits of `h1_stock`.

    Args:
        limits: What one client may ask of us.
        is_draining: Tells whether answers are to carry ``Connection: close`` already; asked for
            each answer. A server that is being shut down drains anyhow.
    """
    try:
        from uvicorn.protocols.http.auto import AutoHTTPProtocol  # an optional extra
    except ImportError as exc:
        LOG.warning(_UNKNOWN, exc)
        return "auto"
    guarded = guarded_uvicorn(limits)
    houses: dict[Any, _ServerContext | None] = {}  # of servers; nearly always of one
    is_told = False

    def house_of(args: tuple[Any, ...], given: dict[str, Any]) -> _ServerContext | None:
        nonlocal is_told
        if problem := _find_problem(args, given):
            if not is_told:
                LOG.warning(_UNKNOWN, problem)
            is_told = True
            return None
        state = given["server_state"]
        if state not in houses:
            is_ours = _is_ours(given["config"])
            houses[state] = _ServerContext(given, limits, is_draining) if is_ours else None
        return houses[state]

    def accept(*args: Any, **given: Any) -> asyncio.Protocol:
        house = house_of(args, given)
        if house is not None:
            return _AcceptedConnection(house)
        stock: Any = AutoHTTPProtocol if is_told or guarded is None else guarded
        return cast("asyncio.Protocol", stock(*args, **given))

    # It is called, and asked for alpn_protocols, and that is all that is done with it.
    return cast("type[asyncio.Protocol]", accept)


def _find_problem(args: tuple[Any, ...], given: dict[str, Any]) -> str:
    """Return why a uvicorn that calls like this is not one we know; empty if it is."""
    if args or set(given) != _ARGUMENTS:
        return "it makes protocols from other arguments"
    config, state = given["config"], given["server_state"]
    missing = [name for name in _OPTIONS if not hasattr(config, name)]
    if missing:
        return f"its Config has no {missing[0]}"
    if not isinstance(getattr(state, "connections", None), set):
        return "its ServerState has no set of connections"
    if not isinstance(getattr(state, "total_requests", None), int):
        return "its ServerState counts no requests"
    return ""


def _is_ours(config: Any) -> bool:
    """Tell whether a server needs nothing that only uvicorn's own protocol does."""
    return (
        not config.access_log
        and not config.encoded_headers
        and not config.root_path
        and config.limit_concurrency is None
        and not getattr(config, "reset_contextvars", False)
    )


class _ServerContext:
    """What the connections of one server have in common, besides the hub.

    Attributes:
        hub: Looks after them.
        loop: The running loop.
        config: uvicorn's.
        state: uvicorn's ``ServerState``.
        app_state: What the lifespan left for the scopes.
        take: Serves a request without a task, or returns False; None if the application cannot.
    """

    __slots__ = ("_app", "_take", "app_state", "config", "hub", "loop", "state", "take")

    def __init__(
        self, given: dict[str, Any], limits: H1Limits, is_draining: Callable[[], bool]
    ) -> None:
        self.config, self.state, self.app_state = (
            given["config"], given["server_state"], given["app_state"],
        )  # fmt: skip
        self.loop: asyncio.AbstractEventLoop = given["_loop"] or asyncio.get_running_loop()
        self.hub = ConnectionManager(self.loop, limits, is_draining)
        self._app: App = self.config.loaded_app
        self._take = fast_path_of(self._app)
        self.take = None if self._take is None else self._count_taken

    def app(self, *args: Any) -> Any:
        """Call the application for a request, and count it."""
        self.state.total_requests += 1
        return self._app(*args)

    def _count_taken(self, exchange: RequestCycle) -> bool:
        assert self._take is not None
        is_taken = self._take(exchange)
        self.state.total_requests += is_taken
        return is_taken


class _AcceptedConnection(asyncio.Protocol):
    """A connection as uvicorn knows it: it is waited for until its socket and its tasks are over.

    Only the accept comes here; then the transport's protocol is the connection itself.
    """

    __slots__ = ("_house", "_transport")

    def __init__(self, house: _ServerContext) -> None:
        self._house = house
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        house, self._transport = self._house, cast("asyncio.Transport", transport)
        connection = ServerConnection(
            house.hub,
            house.app,
            house.loop,
            state=house.app_state or None,
            hand_on=None if house.config.ws_protocol_class is None else self._hand_on,
            take=house.take,
        )
        house.state.connections.add(self)
        connection.finished.add_done_callback(self._forget)
        self._transport.set_protocol(connection)
        connection.connection_made(transport)

    def shutdown(self) -> None:
        """Let all connections of the server end; uvicorn asks each of those it knows."""
        limit_s = self._house.config.timeout_graceful_shutdown
        self._house.hub.drain(None if limit_s is None else limit_s - _MARGIN_S)

    def _hand_on(self, data: bytes) -> None:
        """Let uvicorn go on with a websocket, from the first byte of its head."""
        house, transport = self._house, self._transport
        websocket = house.config.ws_protocol_class(
            config=house.config, server_state=house.state, app_state=house.app_state
        )
        transport.set_protocol(websocket)
        websocket.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        websocket.data_received(data)

    def _forget(self, _: object) -> None:
        self._house.state.connections.discard(self)
