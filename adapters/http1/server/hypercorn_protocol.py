"""Serve HTTP/1.1 with our own protocol inside hypercorn's worker.

hypercorn spends some 126 us of CPU on a request that costs an application nothing, has no limits
on heads and bodies, and does not see a client leave that has sent one byte too many. So its
``TCPServer`` is replaced, per connection, by a protocol on httptools; sockets, lifespan, signals
and TLS stay hypercorn's, and so do websockets: such connections are handed back to the stock
class with the bytes read so far.

The class is a private name, looked up as a module global for each connection. Where it is not
what we know, nothing is replaced, hypercorn serves as it is, and one warning says so.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from ....runtime.fence import kept
from ..asgi_types import fast_path_of
from .connection import ServerConnection
from .connections import LOG, ConnectionManager
from .errors import ClientDisconnectedError
from .stock import guarded_hypercorn
from .validation import H1Limits

__all__ = ["ClientDisconnectedError", "ConnectionManager", "H1Limits", "patched_hypercorn"]


_ARGUMENTS = ["self", "app", "loop", "config", "context", "state", "reader", "writer"]
_MARGIN_S = 0.1  # how long before hypercorn's own deadline we cut what is left
_ORPHAN_S = 5.0  # how long an application goes on after its websocket's client is gone


@contextmanager
def patched_hypercorn(
    limits: H1Limits, is_draining: Callable[[], bool] = lambda: False, *, is_stock: bool = False
) -> Iterator[bool]:
    """Let hypercorn serve HTTP/1.1 with our protocol, while the context lasts.

    A server that is configured for what only stock hypercorn does (access log, statsd, server
    names, a request limit, WSGI) is served by it, within the limits of `h1_stock`.

    Args:
        limits: What one client may ask of us.
        is_draining: Tells whether answers are to carry ``Connection: close`` already; asked for
            each answer. A server that is being shut down drains anyhow.
        is_stock: Serve all by hypercorn's class, within the limits of `h1_stock`.

    Yields:
        Whether the class was replaced; False means that hypercorn serves as it is.
    """
    found = _find_hook()
    if isinstance(found, str):
        LOG.warning("hypercorn serves HTTP/1.1 by itself, slower and without our limits: %s", found)
        yield False
        return
    module, stock = found
    guarded = guarded_hypercorn(stock, limits)
    hubs: WeakKeyDictionary[Any, ConnectionManager] = WeakKeyDictionary()
    watchers: set[asyncio.Task[None]] = set()

    def hub_of(loop: asyncio.AbstractEventLoop, config: Any, context: Any) -> ConnectionManager:
        hub = hubs.get(context)
        if hub is None:
            hub = hubs[context] = ConnectionManager(loop, limits, is_draining)
            watcher = loop.create_task(kept(_drain_at_end, hub, config, context))
            watchers.add(watcher)
            watcher.add_done_callback(watchers.discard)
        return hub

    def serve(*args: Any) -> Any:
        app, _, config, context, _, reader, writer = args
        if not is_stock and _is_ours(app, config, context, reader, writer):
            return _Served(guarded, hub_of, args)
        return guarded(*args)

    module.TCPServer = serve
    try:
        yield True
    finally:
        module.TCPServer = stock


async def _drain_at_end(hub: ConnectionManager, config: Any, context: Any) -> None:
    await context.terminated.wait()
    hub.drain(config.graceful_timeout - _MARGIN_S)


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


class _Served:
    """Takes the place of hypercorn's ``TCPServer`` for one connection; awaited until its end."""

    def __init__(
        self, stock: Any, hub_of: Callable[[Any, Any, Any], ConnectionManager], args: Sequence[Any]
    ) -> None:
        self._stock, self._hub_of, self._args = stock, hub_of, args

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        app, loop, config, context, state, reader, writer = self._args
        transport = writer.transport
        if transport.is_closing():  # the client left before its turn came
            return
        stream = transport.get_protocol()
        gone: asyncio.Future[None] | None = None

        def hand_on(data: bytes) -> None:
            nonlocal gone
            gone = _gone(loop, reader)  # from now on: earlier applications may have to end first
            transport.set_protocol(stream)
            reader.feed_data(data)
            if not transport.is_reading():
                transport.resume_reading()

        connection = ServerConnection(
            self._hub_of(loop, config, context),
            app.app,
            loop,
            root_path=config.root_path,
            state=state or None,
            hand_on=hand_on,
            take=fast_path_of(app.app),
        )
        transport.set_protocol(connection)
        connection.connection_made(transport)
        _move_input(reader, connection)
        try:
            await connection.finished
        except asyncio.CancelledError:
            connection.cancel()
            raise
        finally:
            if gone is None:
                stream.connection_lost(None)  # it does not hear of it from the transport
        if gone is not None:
            await self._run_stock(gone)

    async def _run_stock(self, gone: asyncio.Future[None]) -> None:
        """Let hypercorn go on; end what it does for a client that is *gone*.

        Where a client sends bytes behind a websocket's handshake without waiting for 101,
        hypercorn answers 400, and never tells the application.
        """
        loop = self._args[1]

        def is_gone(_: object) -> None:
            with suppress(RuntimeError):  # it has ended in this moment
                limit.reschedule(loop.time() + _ORPHAN_S)

        try:
            async with asyncio.timeout(None) as limit:
                gone.add_done_callback(is_gone)
                await self._stock(*self._args)
        except TimeoutError:
            LOG.debug("ended an application that was not told that its client is gone")
        finally:
            gone.remove_done_callback(is_gone)


def _gone(loop: asyncio.AbstractEventLoop, reader: Any) -> asyncio.Future[None]:
    """Return what is resolved when nothing more will come from the client of *reader*."""
    gone = loop.create_future()

    def tells(method: Callable[..., None]) -> Callable[..., None]:
        def told(*args: Any) -> None:
            method(*args)
            if not gone.done():
                gone.set_result(None)

        return told

    reader.feed_eof, reader.set_exception = tells(reader.feed_eof), tells(reader.set_exception)
    return gone


def _is_ours(app: Any, config: Any, context: Any, reader: Any, writer: Any) -> bool:
    """Tell whether a connection needs nothing that only stock hypercorn does."""
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
    """Tell whether HTTP/2 was agreed on, which only a server does that was configured for it."""
    tls = writer.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"


def _move_input(reader: Any, connection: ServerConnection) -> None:
    """Hand on what came before we did: the stream reader has been receiving since the accept."""
    data = bytes(reader._buffer)
    reader._buffer.clear()
    if not connection.transport.is_reading():
        connection.transport.resume_reading()
    if data:
        connection.data_received(data)
    if reader.at_eof():
        connection.eof_received()
        connection.transport.close()
