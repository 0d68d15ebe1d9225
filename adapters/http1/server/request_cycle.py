"""Request and response of HTTP/1.1 as one call of an ASGI application.

The head of a response is held back until the first piece of its body is at hand, or until the
event loop comes round, so that both go out in one write and a slow first piece delays nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from ...system.log_facts import request_fact
from ..repeated_head import RepeatedHead
from ..request_id import REQUEST_ID
from .errors import ClientDisconnectedError
from .extensions import FULL_BODY, FULL_RESPONSE, ON_DISCONNECT, WRITE_BODY
from .input_buffer import InputBuffer
from .response_head import EncodedHead, encode_head
from .writer import JOIN_BYTES, ConnectionWriter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[
    [Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
"""An ASGI 3 application."""

LOG = logging.getLogger("swapchart.h1")

_COALESCE = 256  # chunks of a request's body that are kept apart; tiny ones cost memory
_BODILESS = frozenset({204, 304})
_DISCONNECT = "http.disconnect"

_ENDED: Scope = {}


class ConnectionContext(Protocol):
    """Server that a connection belongs to, as its requests see it."""

    date: bytes  # the complete Date field of now, with its CRLF
    keep_alive: bytes  # the complete Keep-Alive field, with its CRLF
    is_draining: Callable[[], bool]

    def flush_later(self, cycle: RequestCycle) -> None:
        """Call ``flush_head`` of *cycle* in the next turn of the event loop."""


class ClientConnection(Protocol):
    """Connection that a request came by."""

    loop: asyncio.AbstractEventLoop
    input_buffer: InputBuffer
    writer: ConnectionWriter

    @property
    def manager(self) -> ConnectionContext:
        """The server that the connection belongs to."""

    def body_consumed(self) -> None:
        """Read on: the application has taken what was buffered of the request's body."""

    def run(self, cycle: RequestCycle, app: App) -> None:
        """Let *app* serve *cycle*, in a task."""

    def response_complete(self, cycle: RequestCycle) -> None:
        """Go on behind the response of *cycle*."""

    def application_returned(self, cycle: RequestCycle) -> None:
        """Forget *cycle*, whose application has returned."""

    def abort(self) -> None:
        """Disconnect the client at once: what it got must not look complete."""

    def reject(self, cycle: RequestCycle, status: int) -> None:
        """Send an error for *cycle*, of whose response nothing was sent, and close."""


class RequestCycle:
    """One request and its response.

    Attributes:
        scope: The ASGI scope; its extensions are added when a task begins to serve the request.
        request_id: Id of the request, which the response has as ``X-Request-ID``.
        task: Runs the application; None before its turn (pipelining) and on the fast path.
        keep_alive: The client allows another request on the connection.
        is_head: The response has no body, whatever its fields say.
        is_received: The request is complete.
        is_started: The application has begun to respond.
        is_head_sent: Bytes of the response are on their way.
        is_complete: The response is complete.
        is_disconnected: The client has left, or was disconnected.
        is_expecting: The client waits for ``100 Continue`` before it sends the body.
        size: Buffered bytes of the request's body.
        received: Bytes of the request's body that have come so far.
        waiter: Future that ``receive`` waits for, if it does.
        repeated_head: Head that the request has in common with earlier ones; None if it has none.
        on_disconnect: Called when the client disconnects; for an application that serves the
            request without a task, or does not call `receive` for a while.
    """

    # Not slots: what nearly every request leaves as it is costs nothing as a default here.
    task: asyncio.Task[None] | None = None
    waiter: asyncio.Future[None] | None = None
    repeated_head: RepeatedHead | None = None
    on_disconnect: Callable[[], None] | None = None
    is_head = False
    is_received = False
    is_started = False
    is_head_sent = False
    is_complete = False
    is_disconnected = False
    size = 0
    received = 0
    _end_delivered = False  # the application knows that the request's body has ended
    _status = 0
    _chunked = False
    _has_body = True
    _remaining = -1  # bytes that the announced length still lacks; -1 when none is announced
    _head: Iterable[tuple[bytes, bytes]] = ()
    _encoded: EncodedHead | None = None

    def __init__(
        self,
        connection: ClientConnection,
        scope: Scope,
        *,
        request_id: bytes,
        keep_alive: bool,
        is_1_0: bool,
        is_expecting: bool,
    ) -> None:
        self.scope = scope
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.is_expecting = is_expecting
        self._connection = connection
        self._writer = connection.writer
        self._is_1_0 = is_1_0
        self._chunks: list[bytes] = []
        if scope["method"] == "HEAD":
            self.is_head = True

    @property
    def is_waiting(self) -> bool:
        """True if the client need not send its body now."""
        return self.is_expecting or self.is_head_sent

    # -- the request -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Buffer a piece of the request's body."""
        if self.is_complete or self.is_disconnected:
            return
        self.is_expecting = False  # it did not wait
        chunks = self._chunks
        chunks.append(data)
        self.size += len(data)
        self.received += len(data)
        if len(chunks) > _COALESCE:
            chunks[:] = [b"".join(chunks)]
        if self.waiter is not None:
            self.wake()

    def wake(self) -> None:
        """Let ``receive`` look again."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def disconnect(self) -> None:
        """Note that the client has left, and drop what it has sent."""
        self.is_disconnected = True
        self._chunks.clear()
        self.size = 0
        self.wake()
        if self.on_disconnect is not None:
            self.on_disconnect()

    async def receive(self) -> Message:
        """Return the next ASGI message; by one task at a time.

        Pieces of the body that came together are returned together. ``http.disconnect`` is
        returned as soon as the client has left or has its complete response, even before a body
        that is still buffered.
        """
        while True:
            if self.is_disconnected or self.is_complete:
                return {"type": _DISCONNECT}
            if self._chunks:
                chunks = self._chunks
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                chunks.clear()
                self.size = 0
                self._end_delivered = self.is_received
                if self._connection.input_buffer.is_paused:
                    self._connection.body_consumed()
                return {"type": "http.request", "body": body, "more_body": not self.is_received}
            if self.is_received and not self._end_delivered:
                self._end_delivered = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self.is_expecting and not self.is_received:
                self.is_expecting = False
                if not self.is_head_sent:
                    self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._wait()

    def set_on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Set *callback* to be called when the client disconnects; at once if it already has."""
        self.on_disconnect = callback
        if self.is_disconnected and callback is not None:
            callback()

    @property
    def full_body(self) -> bytes | None:
        """Complete body of the request; None while it is incomplete or not in one piece."""
        if self._end_delivered or self.is_disconnected or not self.is_received:
            return None
        return self._chunks[0] if len(self._chunks) == 1 else None

    def take_body(self) -> bytes | None:
        """Return `full_body` and consume it, as `receive` would."""
        body = self.full_body
        if body is not None:
            self._end_delivered = True
            self.size = 0
            self._chunks.clear()
            if self._connection.input_buffer.is_paused:
                self._connection.body_consumed()
        return body

    async def _wait(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            raise RuntimeError("receive() is already being waited for")
        self.waiter = self._connection.loop.create_future()
        await self.waiter

    # -- the response ------------------------------------------------------------------

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take an ASGI message; waits while the client does not keep up.

        Raises:
            ClientDisconnectedError: The client left or was disconnected.
            RuntimeError: The message is of an unknown type, or not in its place.
            ValueError: A header field would break the head, or the body has not the length that
                was announced.
        """
        if self.is_disconnected:
            raise ClientDisconnectedError("the client has disconnected")
        kind = message["type"]
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            if self.is_started:
                raise RuntimeError("the response has already been started")
            self._status = message["status"]
            self._head = message.get("headers", ())
            self.is_started = True
            self._connection.manager.flush_later(self)
        else:
            raise RuntimeError(f"unexpected message {kind!r}")
        if self._writer.stalled is not None:
            await self._writer.wait_writable()
            if self.is_disconnected and not self.is_complete:
                raise ClientDisconnectedError("the client has disconnected")

    def write_body(self, piece: bytes, chunk: bytes = b"") -> bool:
        """Send a piece of the body, which is not the last; False means that nothing was sent.

        *chunk* is the piece with the framing of a chunk, or b"". Raises the errors of `send`.
        """
        if self.is_disconnected:
            raise ClientDisconnectedError("the client has disconnected")
        if self._writer.stalled is not None:
            return False
        if chunk and self._chunked and self.is_head_sent and not self.is_complete:
            self._writer.write(chunk)
        else:
            self._send_body(piece, more=True)
        return True

    @property
    def can_send_full_response(self) -> bool:
        """True if `send_full_response` would send."""
        return not (self.is_disconnected or self.is_started or self._writer.stalled is not None)

    def send_full_response(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes,
        encoded: EncodedHead | None = None,
    ) -> bool:  # fmt: skip
        """Send a complete response without waiting; False means that `send` has to be used.

        *encoded* is the encoded head, if it has been sent before with another length.

        Raises:
            ClientDisconnectedError: The client left or was disconnected.
            ValueError: As `send`.
        """
        if self.is_disconnected:
            raise ClientDisconnectedError("the client has disconnected")
        if not self.can_send_full_response:
            return False
        self._status, self._head, self.is_started = status, headers, True
        self._encoded = encoded
        self._send_body(body, more=False)
        return True

    def flush_head(self) -> None:
        """Send a head whose body has not come in the same turn of the loop."""
        if self.is_head_sent or self.is_disconnected:
            return
        try:
            head = self._build_head(None)
        except (ValueError, TypeError):
            return  # raised again, to the application, with the first piece
        self.is_head_sent = True
        self._writer.write(head)

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self.is_started:
            raise RuntimeError("a body before the response was started")
        if self.is_complete:
            raise RuntimeError("a body behind the end of the response")
        head = b"" if self.is_head_sent else self._build_head(None if more else len(body))
        if self._remaining >= 0:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise ValueError("the body has not the length that was announced")
        self.is_head_sent = True
        if not self._has_body:
            if head:
                self._writer.write(head)
        elif self._chunked:
            self._writer.write_chunk(head, body, more)
        elif len(body) > JOIN_BYTES:
            self._writer.write_parts((head, body))
        elif head or body:
            self._writer.write(head + body)
        if not more:
            self.is_complete = True
            self._connection.response_complete(self)
            if self.waiter is not None:
                self.wake()

    def _build_head(self, length: int | None) -> bytes:
        """Encode the head; decides how the body is framed and whether the connection lasts.

        Args:
            length: Length of the complete body, where it is at hand; bytes.
        """
        manager, encoded = self._connection.manager, self._encoded
        if encoded is not None and length is not None:
            head, closes, framing = encoded.with_length(length), encoded.closes, b""
            date = b"" if encoded.has_date else manager.date
            self._remaining = length
        else:
            head, date, announced, closes = encode_head(self._status, self._head, manager.date)
            framing = _settle_framing(self, announced, length)
        if closes:
            self.keep_alive = False
        # A response to half a request closes too: its rest could be taken for the next one.
        if not (self.keep_alive and self.is_received) or manager.is_draining():
            self.keep_alive = False
            framing += b"connection: close\r\n"
        else:
            if self._is_1_0:
                framing += b"connection: keep-alive\r\n"
            framing += manager.keep_alive
        return b"%b%bx-request-id: %b\r\n%b\r\n" % (head, framing, self.request_id, date)

    def run_in_task(self, app: App) -> None:
        """Let *app* serve this request in a task; no task has served it until now."""
        self._connection.run(self, app)

    def finish(self) -> None:
        """End a request that was served without a task."""
        self.scope = _ENDED
        self.on_disconnect = None
        self._connection.application_returned(self)

    async def run(self, app: App) -> None:
        """Run *app* to its end; a response that it leaves incomplete never looks complete."""
        _extend_scope(self)
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnectedError:
            pass  # the application knows: `send` raised it
        except Exception:
            LOG.exception(
                "%s %s failed", self.scope["method"], self.scope["path"],
                extra=request_fact(self.request_id),
            )  # fmt: skip
            self.fail()
        except BaseException:  # cancelled
            self._connection.abort()
            raise
        else:
            if not (self.is_complete or self.is_disconnected):
                LOG.error(
                    "the application sent no complete response to %s %s",
                    self.scope["method"], self.scope["path"], extra=request_fact(self.request_id),
                )  # fmt: skip
                self.fail()
        finally:
            self.scope = _ENDED  # breaks a reference cycle, which saves garbage collection
            self._connection.application_returned(self)

    def fail(self) -> None:
        """Send 500, or disconnect the client where it has got a part of a response."""
        if self.is_complete or self.is_disconnected:
            return
        if self.is_head_sent:
            self._connection.abort()
        else:
            self._connection.reject(self, 500)


def _extend_scope(cycle: RequestCycle) -> None:
    """Add the extensions of this HTTP layer to the scope of *cycle*; see `extensions`."""
    cycle.scope["extensions"] = {
        **cycle.scope.get("extensions", _ENDED),
        FULL_RESPONSE: cycle.send_full_response, FULL_BODY: cycle.take_body,
        WRITE_BODY: cycle.write_body,
        ON_DISCONNECT: cycle.set_on_disconnect, REQUEST_ID: cycle.request_id,
    }  # fmt: skip


def _settle_framing(cycle: RequestCycle, announced: bytes | None, length: int | None) -> bytes:
    """Decide how the body is framed; returns the field that says so, unless it is there."""
    if announced is not None:
        if not announced.isdigit():
            raise ValueError(f"expected a decimal Content-Length, got {announced!r}")
        cycle._remaining = int(announced)
    if cycle.is_head or cycle._status in _BODILESS:
        cycle._has_body = False
        cycle._remaining = -1
        return b""
    if announced is not None:
        return b""
    if length is not None:
        return b"content-length: %d\r\n" % length
    if cycle._is_1_0:
        cycle.keep_alive = False  # the end of the connection ends the body
        return b""
    cycle._chunked = True
    return b"transfer-encoding: chunked\r\n"
