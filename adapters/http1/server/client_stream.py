"""Client connection of a websocket as a stream of bytes, behind the head of its handshake.

`websocket` makes one of a connection that hypercorn or uvicorn has accepted, and gives it to the
application as the ASGI extension `TUNNEL`.

Invariants: at most `_HIGH_BYTES` and one read are buffered of what a client sends; a disconnect is
noticed although the client is not read from; a connection that was closed ends at the latest when
its client has taken nothing for `_FLUSH_S`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import select
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from ..half_close import half_close
from ..http_date import http_date
from ..request_id import REQUEST_ID, request_id_of
from ..undelivered import count_undelivered

LOG = logging.getLogger("swapchart.h1")

TUNNEL = "swapchart.tunnel"
"""ASGI extension of websockets: the `ClientStream`, in place of `receive` and `send`."""

_HIGH_BYTES = 1 << 18  # buffered input above which the client is not read from
_EARLY_BYTES = 1 << 16  # before the response to the handshake; RFC 6455 section 4.1 allows none
_CHECK_S = 0.5  # between two checks of a connection that is not read from, or that closes
_LINGER_S = 2.0  # that a client may go on sending after everything was sent to it
_FLUSH_S = 60.0  # that a closed connection lasts while its client takes nothing of the rest
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset shows
_RESET = select.POLLERR | select.POLLHUP
_VERSION = "expected Sec-WebSocket-Version: 13"
_ASGI = {"version": "3.0", "spec_version": "2.4"}

Headers = list[tuple[bytes, bytes]]


class ClientStream(asyncio.Protocol):
    """Connection of a client behind the head of its handshake.

    Attributes:
        left: Resolved when the client has ended its side, even if that is not read yet.
        finished: Resolved when the socket is closed and the application has returned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.left: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._transport: asyncio.Transport
        self._request_id = b""  # of the handshake, set by `start`
        self._task: asyncio.Task[None] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._stalled: asyncio.Future[None] | None = None  # pending while the client does not read
        self._has_responded = self._is_paused = self._is_closing = False
        self._is_ended = self._is_lost = False
        self._undelivered = 0  # bytes when a closing connection was checked last
        self._undelivered_at = 0.0  # when that changed last
        self._timer: asyncio.TimerHandle | None = None
        self._poll = select.poll()

    # -- start -------------------------------------------------------------------------

    def start(self, app: Any, scope: dict[str, Any], early: bytes = b"") -> None:
        """Let *app* serve the websocket.

        Args:
            app: The ASGI application; uses the extension `TUNNEL`.
            scope: Of the websocket, without extensions.
            early: Bytes that were read behind the head.
        """
        self._request_id = request_id_of(scope["headers"])
        problem = handshake_problem(scope["headers"], scope["http_version"])
        if problem:
            status = 426 if problem == _VERSION else 400
            error = {"message": problem, "type": "invalid_request_error", "code": status}
            fields = [(b"content-type", b"application/json"), (b"sec-websocket-version", b"13")]
            self.respond(status, fields, json.dumps({"error": error}).encode())
            self._check_finished()
            return
        scope["extensions"] = {TUNNEL: self, REQUEST_ID: self._request_id}
        self._task = self._loop.create_task(self._run(app, scope))
        if early:
            self.data_received(early)
        if not self._transport.is_reading() and not self._is_paused:
            self._transport.resume_reading()

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, _unsupported, _unsupported)
        except Exception:
            LOG.exception("the websocket %s failed", scope["path"])
            self.respond(500, [], b"")
        finally:
            self.close()
            self._task = None
            self._check_finished()

    # -- callbacks of the transport ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; also called by hand for a transport that was accepted by others."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), _RDHUP)

    def data_received(self, data: bytes) -> None:
        """Buffer *data*; pauses the transport while the reader does not keep up."""
        if self._is_closing:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._wake()
        if not self._has_responded and self._size > _EARLY_BYTES:
            self.abort()
        elif self._size > _HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
            self._check_later()

    def eof_received(self) -> bool:
        """Note that the client has ended its side."""
        self._is_ended = True
        self._set_left()
        if self._is_closing:
            self._transport.close()
        return self._transport.can_write_eof()  # ours is ended by `close`

    def connection_lost(self, exc: Exception | None) -> None:
        """End everything."""
        self._is_lost = self._is_ended = True
        self._chunks.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._set_left()
        self.resume_writing()
        self._check_finished()

    def pause_writing(self) -> None:
        """Make `drain` wait."""
        if self._stalled is None:
            self._stalled = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let `drain` go on."""
        stalled, self._stalled = self._stalled, None
        if stalled is not None and not stalled.done():
            stalled.set_result(None)

    # -- interface of the application --------------------------------------------------

    @property
    def is_full(self) -> bool:
        """True while the client does not keep up with what is written."""
        return self._stalled is not None

    @property
    def unsent(self) -> int:
        """Bytes that were written and are still in memory."""
        return 0 if self._is_lost else self._transport.get_write_buffer_size()

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that the client has not taken."""
        return 0 if self._is_lost else count_undelivered(self._transport)

    async def read(self) -> bytes:
        """Return the bytes that have come; waits for some, b"" means that the client has ended."""
        while not self._chunks:
            if self._is_ended:
                return b""
            self._waiter = self._loop.create_future()
            await self._waiter
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._is_paused and not self._is_lost:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send *data*; drops it if the client has disconnected."""
        if not (self._is_lost or self._transport.is_closing()):
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client takes more, or has disconnected."""
        if self._stalled is not None:
            await asyncio.shield(self._stalled)

    def switch(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Accept the handshake with 101 and *headers*; from now on both sides may send."""
        self._has_responded = True
        upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        self.write(_head(101, self._request_id, [*headers, *upgrade]))

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Reject the handshake with a response, unless one was sent; and close."""
        if not self._has_responded:
            self._has_responded = True
            length = (b"content-length", b"%d" % len(body))
            date = (b"date", http_date())
            fields = [*headers, length, date, (b"connection", b"close")]
            self.write(_head(status, self._request_id, fields) + body)
        self.close()

    def close(self) -> None:
        """Close when everything is sent and the client had time to read it. Idempotent.

        Closing with bytes unread resets the connection, and a reset drops what was sent last.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._undelivered_at = self._loop.time()
        self._chunks.clear()
        if self._is_lost or self._transport.is_closing():
            return
        if self._is_ended or not half_close(self._transport):
            self._transport.close()
        elif self._is_paused:
            self._transport.resume_reading()
        self._check_later()

    def abort(self) -> None:
        """Disconnect the client at once."""
        if not self._is_lost:
            self._transport.abort()

    def cancel(self) -> None:
        """Disconnect the client, and cancel the application that serves it."""
        self.abort()
        if self._task is not None:
            self._task.cancel()

    # -- internals ---------------------------------------------------------------------

    def _set_left(self) -> None:
        if not self.left.done():
            self.left.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_finished(self) -> None:
        if self._is_lost and self._task is None and not self.finished.done():
            self.finished.set_result(None)

    def _check_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_CHECK_S, self._check)

    def _check(self) -> None:
        """Check for a disconnect behind bytes that are not read, and for a timeout."""
        self._timer = None
        if self._is_lost:
            return
        if self._is_closing:
            if self._is_overdue():
                self.abort()
                return
        elif self._is_paused:
            events = sum(found for _, found in self._poll.poll(0))
            if events & _RESET:
                self.abort()
                return
            if events:
                self._set_left()
        else:
            return
        self._check_later()

    def _is_overdue(self) -> bool:
        """Return True if a closing connection made no progress for too long, in the kernel either.

        What an aborted socket still has in the kernel is lost with the next byte of its client.
        """
        waiting, now = self.undelivered, self._loop.time()
        if waiting != self._undelivered:
            self._undelivered, self._undelivered_at = waiting, now
        return now - self._undelivered_at >= (_FLUSH_S if waiting else _LINGER_S)


async def _unsupported(*_: object) -> Any:
    raise RuntimeError(f"this websocket is served by the extension {TUNNEL!r} only")


def handshake_problem(headers: Sequence[tuple[bytes, bytes]], http_version: str) -> str:
    """Return the problem of a handshake as a text for the client; empty if there is none.

    Source: RFC 6455 section 4.2.1.
    """
    keys = sum(name == b"sec-websocket-key" for name, _ in headers)
    fields = dict(headers)
    key = fields.get(b"sec-websocket-key", b"")
    try:
        size = len(base64.b64decode(key.strip(), validate=True))
    except binascii.Error:
        size = 0
    if http_version != "1.1" or size != 16 or keys != 1:
        return "expected a WebSocket handshake of HTTP/1.1 with one Sec-WebSocket-Key of 16 bytes"
    return "" if fields.get(b"sec-websocket-version", b"").strip() == b"13" else _VERSION


def _head(status: int, request_id: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    fields = [*headers, (b"x-request-id", request_id)]
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase.encode(), lines)


def scope_of(
    target: bytes, headers: Headers, *, http_version: str, transport: asyncio.BaseTransport,
    root_path: str, state: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the ASGI scope of a websocket, without its extensions.

    Args:
        target: Path and query.
        headers: Names in lower case.
        http_version: Such as ``1.1``.
        transport: Of the connection.
        root_path: Of the server.
        state: Of the lifespan; is copied.
    """
    raw_path, _, query = target.partition(b"?")
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol")
    is_secure = transport.get_extra_info("sslcontext") is not None
    return {
        "type": "websocket",
        "asgi": _ASGI,
        "http_version": http_version,
        "scheme": "wss" if is_secure else "ws",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": headers,
        "subprotocols": [
            token.decode("latin-1") for part in offered.split(b",") if (token := part.strip())
        ],
        "client": _address(transport.get_extra_info("peername")),
        "server": _address(transport.get_extra_info("sockname")),
        "state": {} if state is None else state.copy(),
    }


def _address(name: object) -> tuple[str, int] | None:
    return (name[0], name[1]) if isinstance(name, tuple) else None
