"""Websockets of hypercorn and uvicorn as streams of bytes.

Both servers speak WebSocket themselves, and pass complete messages to an application: they collect
a frame of any announced size, inflate what a client compressed, and cannot pass on a part of a
message. A proxy needs none of that. So once an HTTP layer has read the head of the handshake, the
transport is taken from the server, and the application gets it as the ASGI extension
`client_stream.TUNNEL`. Under TLS and with ``--stock`` it is the same.

uvicorn takes any class for that. hypercorn's is a private name, looked up as a module global for
each connection; where it is not what is expected here, hypercorn speaks WebSocket by itself, and
one warning says so.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httptools

from .. import hypercorn_import
from .client_stream import ClientStream, Headers, scope_of

LOG = logging.getLogger("swapchart.h1")

_ARGUMENTS = [
    "self", "app", "config", "context", "task_group", "ssl", "client", "server", "send",
    "stream_id",
]  # fmt: skip
_UNKNOWN = "hypercorn speaks WebSocket by itself, with unlimited memory: %s"


class UvicornWebsocket(ClientStream):
    """Protocol for uvicorn's ``Config(ws=...)``; gets a connection together with its head."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        super().__init__(_loop or asyncio.get_running_loop())
        self._config, self._state, self._app_state = config, server_state, app_state
        self._target = b""
        self._fields: Headers = []
        self._is_started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._state.connections.add(self)
        self.finished.add_done_callback(lambda _: self._state.connections.discard(self))

    def data_received(self, data: bytes) -> None:
        """Parse the head, which comes in one piece; then buffer what the client sends."""
        if self._is_started:
            super().data_received(data)
            return
        self._is_started = True
        parser = httptools.HttpRequestParser(self)
        early = b""
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            early = data[error.args[0] :]
        except httptools.HttpParserError:
            self._fields.clear()
        self.start(
            self._config.loaded_app,
            scope_of(
                self._target, self._fields, http_version=parser.get_http_version(),
                transport=self._transport, root_path=self._config.root_path, state=self._app_state,
            ),
            early,
        )  # fmt: skip

    def on_url(self, target: bytes) -> None:
        """Collect the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field."""
        self._fields.append((name.lower(), value))

    def shutdown(self) -> None:
        """Do nothing: a tunnel ends with its model, which is in flight until then."""


class _HypercornWebsocket:
    """Takes the place of hypercorn's ``WSStream`` for one connection over HTTP/1.1."""

    idle = False

    def __init__(
        self, app: Any, config: Any, context: Any, task_group: Any, ssl: bool,
        client: object, server: object, send: Callable[..., Any], stream_id: int,
    ) -> None:  # fmt: skip
        self._app, self._config, self._protocol = app.app, config, send.__self__  # type: ignore[attr-defined]

    async def handle(self, event: Any) -> None:
        """Take the connection over at the head of a request, and serve it to its end."""
        headers = getattr(event, "headers", None)
        if headers is None:
            return
        server = self._protocol.send.__self__
        reader, transport = server.reader, server.writer.transport
        stream = transport.get_protocol()
        rest = self._protocol.connection.buffer
        early = bytes(rest) + bytes(reader._buffer)
        rest.clear()
        reader._buffer.clear()
        client = ClientStream(asyncio.get_running_loop())
        try:
            if transport.is_closing() or reader.at_eof():
                return
            transport.set_protocol(client)
            client.connection_made(transport)
            fields = [(name.lower(), value) for name, value in headers]
            scope = scope_of(
                event.raw_path, fields, http_version=event.http_version, transport=transport,
                root_path=self._config.root_path, state=event.state,
            )  # fmt: skip
            client.start(self._app, scope, early)
            await client.finished
        except asyncio.CancelledError:
            client.cancel()
            raise
        finally:
            transport.abort()
            stream.connection_lost(None)  # the transport no longer calls it


@contextmanager
def hypercorn_websockets() -> Iterator[bool]:
    """Give applications under hypercorn their websockets as `TUNNEL`, while the context lasts.

    Yields:
        True if that is so, or will be once hypercorn has imported its protocols; False means that
        this hypercorn is unknown, which a warning says.
    """
    replaced: list[tuple[Any, Any]] = []
    is_partial = hypercorn_import.is_partial()
    hypercorn_import.when_loaded(lambda: _replace_websocket(replaced))
    try:
        yield is_partial or bool(replaced)
    finally:
        for module, stock in replaced:
            module.WSStream = stock


def _replace_websocket(replaced: list[tuple[Any, Any]]) -> None:
    """Put our class in place of hypercorn's, and note the latter and its module."""
    try:
        from hypercorn.protocol import h11  # an optional extra
    except ImportError as exc:
        LOG.warning(_UNKNOWN, exc)
        return
    module: Any = h11
    stock = getattr(module, "WSStream", None)
    if list(inspect.signature(getattr(stock, "__init__", int)).parameters) != _ARGUMENTS:
        LOG.warning(_UNKNOWN, "its WSStream is not as expected")
        return
    module.WSStream = _HypercornWebsocket
    replaced.append((module, stock))
