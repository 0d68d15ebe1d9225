"""HTTP/1.1 of this package inside uvicorn.

uvicorn takes any protocol class (``Config(http=...)``), so nothing of it is replaced. Sockets,
lifespan and TLS stay uvicorn's, and so do websockets: such connections are handed over, with the
bytes read so far, to the class that it has for them.

How that class is called, and what a protocol has to do with ``ServerState``, is documented only by
uvicorn's own protocols. Where they differ from what is expected here, uvicorn serves as it is, and
one warning says so.
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
_UNKNOWN = "uvicorn serves HTTP/1.1 by itself, slower and without limits: %s"
_MARGIN_S = 0.1  # how long before uvicorn's own deadline the remaining connections are aborted


def uvicorn_protocol(
    limits: H1Limits, is_draining: Callable[[], bool] = lambda: False
) -> type[asyncio.Protocol] | str:
    """Return the protocol of this package for uvicorn's ``Config(http=...)``.

    A server that is configured for what only uvicorn does (access log, fields of its own, a root
    path, a limit of connections) is served by uvicorn's own class, within the limits of `stock`.

    Args:
        limits: Limits of each client.
        is_draining: Returns True if responses have to carry ``Connection: close`` already; called
            for each response. A server that is being shut down drains anyhow.
    """
    try:
        from uvicorn.protocols.http.auto import AutoHTTPProtocol  # an optional extra
    except ImportError as exc:
        LOG.warning(_UNKNOWN, exc)
        return "auto"
    guarded = guarded_uvicorn(limits)
    contexts: dict[Any, _ServerContext | None] = {}  # of servers; nearly always of one
    has_warned = False

    def context_of(args: tuple[Any, ...], given: dict[str, Any]) -> _ServerContext | None:
        nonlocal has_warned
        if problem := _find_problem(args, given):
            if not has_warned:
                LOG.warning(_UNKNOWN, problem)
            has_warned = True
            return None
        state = given["server_state"]
        if state not in contexts:
            is_ours = _is_ours(given["config"])
            contexts[state] = _ServerContext(given, limits, is_draining) if is_ours else None
        return contexts[state]

    def accept(*args: Any, **given: Any) -> asyncio.Protocol:
        context = context_of(args, given)
        if context is not None:
            return _AcceptedConnection(context)
        stock: Any = AutoHTTPProtocol if has_warned or guarded is None else guarded
        return cast("asyncio.Protocol", stock(*args, **given))

    # uvicorn only calls it and asks it for alpn_protocols.
    return cast("type[asyncio.Protocol]", accept)


def _find_problem(args: tuple[Any, ...], given: dict[str, Any]) -> str:
    """Return why this uvicorn is not supported; empty if it is."""
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
    """Return True if a server needs nothing that only uvicorn's own protocol does."""
    return (
        not config.access_log
        and not config.encoded_headers
        and not config.root_path
        and config.limit_concurrency is None
        and not getattr(config, "reset_contextvars", False)
    )


class _ServerContext:
    """One server of uvicorn, as its connections see it.

    Attributes:
        manager: Manager of the connections.
        loop: The running loop.
        config: uvicorn's.
        state: uvicorn's ``ServerState``.
        app_state: State of the lifespan, for the scopes.
        try_fast_path: Serves a request without a task, or returns False; None if the application
            cannot.
    """

    __slots__ = (
        "_app", "_fast_path", "app_state", "config", "loop", "manager", "state", "try_fast_path",
    )  # fmt: skip

    def __init__(
        self, given: dict[str, Any], limits: H1Limits, is_draining: Callable[[], bool]
    ) -> None:
        self.config, self.state, self.app_state = (
            given["config"], given["server_state"], given["app_state"],
        )  # fmt: skip
        self.loop: asyncio.AbstractEventLoop = given["_loop"] or asyncio.get_running_loop()
        self.manager = ConnectionManager(self.loop, limits, is_draining)
        self._app: App = self.config.loaded_app
        self._fast_path = fast_path_of(self._app)
        self.try_fast_path = None if self._fast_path is None else self._count_fast_path

    def app(self, *args: Any) -> Any:
        """Call the application for a request, and count it."""
        self.state.total_requests += 1
        return self._app(*args)

    def _count_fast_path(self, cycle: RequestCycle) -> bool:
        assert self._fast_path is not None
        is_served = self._fast_path(cycle)
        self.state.total_requests += is_served
        return is_served


class _AcceptedConnection(asyncio.Protocol):
    """A connection as uvicorn knows it: uvicorn waits until its socket and its tasks have ended.

    Only `connection_made` is called here; then the transport's protocol is the connection itself.
    """

    __slots__ = ("_context", "_transport")

    def __init__(self, context: _ServerContext) -> None:
        self._context = context
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        context, self._transport = self._context, cast("asyncio.Transport", transport)
        connection = ServerConnection(
            context.manager,
            context.app,
            context.loop,
            state=context.app_state or None,
            upgrade=None if context.config.ws_protocol_class is None else self._upgrade,
            try_fast_path=context.try_fast_path,
        )
        context.state.connections.add(self)
        connection.finished.add_done_callback(self._forget)
        self._transport.set_protocol(connection)
        connection.connection_made(transport)

    def shutdown(self) -> None:
        """Drain all connections of the server; uvicorn calls this for each connection."""
        limit_s = self._context.config.timeout_graceful_shutdown
        self._context.manager.drain(None if limit_s is None else limit_s - _MARGIN_S)

    def _upgrade(self, data: bytes) -> None:
        """Hand a websocket over to uvicorn, from the first byte of its head."""
        context, transport = self._context, self._transport
        websocket = context.config.ws_protocol_class(
            config=context.config, server_state=context.state, app_state=context.app_state
        )
        transport.set_protocol(websocket)
        websocket.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        websocket.data_received(data)

    def _forget(self, _: object) -> None:
        self._context.state.connections.discard(self)
