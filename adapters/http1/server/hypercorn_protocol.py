"""HTTP/1.1 of this package inside hypercorn's worker.

hypercorn spends some 126 us of CPU on a request that costs an application nothing, has no limits
on heads and bodies, and does not notice the disconnect of a client that has sent one byte too
many. So its ``TCPServer`` is replaced, per connection, by a protocol on httptools; sockets,
lifespan, signals and TLS stay hypercorn's, and so do websockets: such connections are handed back
to the stock class with the bytes read so far.

The class is a private name, looked up as a module global for each connection. Where it is not
what is expected here, nothing is replaced, hypercorn serves as it is, and one warning says so.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from ....runtime.fence import kept
from ...system import threads
from .. import hypercorn_import
from ..asgi_types import fast_path_of
from .connection import ServerConnection
from .connections import LOG, ConnectionManager
from .errors import ClientDisconnectedError
from .stock import guarded_hypercorn
from .validation import H1Limits

__all__ = ["ClientDisconnectedError", "ConnectionManager", "H1Limits", "patched_hypercorn"]


_ARGUMENTS = ["self", "app", "loop", "config", "context", "state", "reader", "writer"]
_MARGIN_S = 0.1  # how long before hypercorn's own deadline remaining connections are aborted
_ORPHAN_S = 5.0  # that an application goes on after the client of its websocket disconnected


@contextmanager
def patched_hypercorn(
    limits: H1Limits, is_draining: Callable[[], bool] = lambda: False, *, is_stock: bool = False
) -> Iterator[bool]:
    """Let hypercorn serve HTTP/1.1 with the protocol of this package, while the context lasts.

    A server that is configured for what only stock hypercorn does (access log, statsd, server
    names, a request limit, WSGI) is served by it, within the limits of `stock`.

    Args:
        limits: Limits of each client.
        is_draining: Returns True if responses have to carry ``Connection: close`` already; called
            for each response. A server that is being shut down drains anyhow.
        is_stock: Serve all by hypercorn's class, within the limits of `stock`.

    Yields:
        True if the class was replaced; False means that hypercorn serves as it is.
    """
    found = _find_hook()
    if isinstance(found, str):
        LOG.warning("hypercorn serves HTTP/1.1 by itself, slower and without limits: %s", found)
        yield False
        return
    module, stock = found

    @cache
    def guarded_class() -> Any:
        hypercorn_import.load()
        return guarded_hypercorn(stock, limits)

    if not hypercorn_import.is_partial():
        guarded_class()  # warns if this version is unknown
    managers: WeakKeyDictionary[Any, ConnectionManager] = WeakKeyDictionary()
    watchers: set[asyncio.Task[None]] = set()

    def manager_of(loop: asyncio.AbstractEventLoop, config: Any, context: Any) -> ConnectionManager:
        manager = managers.get(context)
        if manager is None:
            manager = managers[context] = ConnectionManager(loop, limits, is_draining)
            watcher = loop.create_task(kept(_drain_at_end, manager, config, context))
            watchers.add(watcher)
            watcher.add_done_callback(watchers.discard)
        return manager

    def serve(*args: Any) -> Any:
        app, _, config, context, _, reader, writer = args
        if not is_stock and _is_ours(app, config, context, reader, writer):
            return _ServedConnection(guarded_class, manager_of, args)
        return guarded_class()(*args)

    module.TCPServer = serve
    try:
        yield True
    finally:
        module.TCPServer = stock


async def _drain_at_end(manager: ConnectionManager, config: Any, context: Any) -> None:
    await context.terminated.wait()
    manager.drain(config.graceful_timeout - _MARGIN_S)


def _find_hook() -> tuple[Any, Any] | str:
    """Return hypercorn's module and class, or why they cannot be used."""
    try:
        from hypercorn.asyncio import run  # an optional extra
    except ImportError as exc:
        return str(exc)
    stock = getattr(run, "TCPServer", None)
    if stock is None:
        return "hypercorn.asyncio.run has no TCPServer"
    if list(inspect.signature(getattr(stock, "__init__", stock)).parameters) != _ARGUMENTS:
        return "its TCPServer takes other arguments"
    return run, stock


class _ServedConnection:
    """Takes the place of hypercorn's ``TCPServer`` for one connection; awaited until its end."""

    def __init__(
        self,
        stock: Callable[[], Any],
        manager_of: Callable[[Any, Any, Any], ConnectionManager],
        args: Sequence[Any],
    ) -> None:
        self._stock, self._manager_of, self._args = stock, manager_of, args

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        app, loop, config, context, state, reader, writer = self._args
        transport = writer.transport
        if transport.is_closing():  # the client left before its turn came
            return
        stream = transport.get_protocol()
        disconnected: asyncio.Future[None] | None = None

        def upgrade(data: bytes) -> None:
            nonlocal disconnected
            # From now on: earlier applications may have to end first.
            disconnected = _watch_disconnect(loop, reader)
            stream._drain_waiters = deque()
            transport.set_protocol(stream)
            reader.feed_data(data)
            if not transport.is_reading():
                transport.resume_reading()

        connection = ServerConnection(
            self._manager_of(loop, config, context),
            app.app,
            loop,
            root_path=config.root_path,
            state=state or None,
            upgrade=upgrade,
            try_fast_path=fast_path_of(app.app),
        )
        transport.set_protocol(connection)
        stream._drain_waiters = ()  # an empty deque takes 0.8 kB of each connection
        connection.connection_made(transport)
        _move_input(reader, connection)
        try:
            await connection.finished
        except asyncio.CancelledError:
            connection.cancel()
            raise
        finally:
            if disconnected is None:
                stream.connection_lost(None)  # the transport no longer calls it
        if disconnected is not None:
            await self._run_stock(disconnected)

    async def _run_stock(self, disconnected: asyncio.Future[None]) -> None:
        """Let hypercorn go on; end what it does for a client that has *disconnected*.

        Where a client sends bytes behind a websocket's handshake without waiting for 101,
        hypercorn responds 400, and the application never gets a disconnect event.
        """
        loop = self._args[1]

        def limit_rest(_: object) -> None:
            with suppress(RuntimeError):  # it has ended in this moment
                limit.reschedule(loop.time() + _ORPHAN_S)

        try:
            async with asyncio.timeout(None) as limit:
                disconnected.add_done_callback(limit_rest)
                await threads.run(hypercorn_import.load)
                await self._stock()(*self._args)
        except TimeoutError:
            LOG.debug("cancelled an application whose client had disconnected")
        finally:
            disconnected.remove_done_callback(limit_rest)


def _watch_disconnect(loop: asyncio.AbstractEventLoop, reader: Any) -> asyncio.Future[None]:
    """Return a future that is resolved when nothing more will come from the client of *reader*."""
    disconnected = loop.create_future()

    def resolving(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            method(*args)
            if not disconnected.done():
                disconnected.set_result(None)

        return call

    reader.feed_eof = resolving(reader.feed_eof)
    reader.set_exception = resolving(reader.set_exception)
    return disconnected


def _is_ours(app: Any, config: Any, context: Any, reader: Any, writer: Any) -> bool:
    """Return True if a connection needs nothing that only stock hypercorn does."""
    return (
        type(app).__name__ == "ASGIWrapper"
        and not _speaks_h2(writer)
        and isinstance(getattr(reader, "_buffer", None), bytearray)
        and config.accesslog is None
        and config.statsd_host is None
        and not config.server_names
        and context.max_requests is None
    )


def _speaks_h2(writer: Any) -> bool:
    """Return True if TLS negotiated HTTP/2, which a server has to be configured for."""
    tls = writer.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"


def _move_input(reader: Any, connection: ServerConnection) -> None:
    """Pass on what came before *connection* was made: the reader receives since the accept."""
    data = bytes(reader._buffer)
    reader._buffer.clear()
    if not connection.transport.is_reading():
        connection.transport.resume_reading()
    if data:
        connection.data_received(data)
    if reader.at_eof():
        connection.eof_received()
        connection.transport.close()
