"""One HTTP/1.1 exchange as an ASGI application sees it: ``receive``, ``send``, and their ends.

The head of an answer is held back until the first piece of its body is at hand, or until the
event loop comes round, so that both go out in one write and a slow first piece delays nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from .errors import ClientDisconnectedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[
    [Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
"""An ASGI 3 application."""

LOG = logging.getLogger("swapchart.h1")

_JOIN_BYTES = 1 << 16  # larger pieces are not copied to be sent together with their framing
_COALESCE = 256  # pieces of a request's body that are kept apart; tiny chunks cost memory
_FRAMING = frozenset({b"connection", b"content-length", b"keep-alive", b"transfer-encoding"})
_LOOKED_AT = _FRAMING | {b"date"}
_BODILESS = frozenset({204, 304})
_BREAKING = b"\r\n\0"
_DISCONNECT = "http.disconnect"

_ENDED: Scope = {}

FULL_RESPONSE = "swapchart.full_response"
"""ASGI extension `(status, headers, body) -> bool`: send a complete response without waiting.

False means that it cannot be sent now and has to go through `send`.
"""
FULL_BODY = "swapchart.full_body"
"""ASGI extension `() -> bytes | None`: take the complete body of the request.

None means that it is not complete or not in one piece and has to be read with `receive`.
"""
ON_DISCONNECT = "swapchart.on_disconnect"
"""ASGI extension `(callback or None) -> None`: set what is called when the client disconnects.

For an application that does not call `receive` for a while, because it has no room for the body.
"""


class ConnectionContext(Protocol):
    """What all connections of a server have in common."""

    date: bytes  # the whole Date field of now, with its CRLF
    keep_alive: bytes  # the whole Keep-Alive field
    is_draining: Callable[[], bool]

    def flush_later(self, exchange: RequestCycle) -> None:
        """Call ``flush_head`` when the event loop comes round."""


class ClientConnection(Protocol):
    """What an exchange asks of the connection it runs on."""

    loop: asyncio.AbstractEventLoop
    is_paused: bool  # `body_taken` is waited for
    stalled: asyncio.Future[None] | None  # pending while the client does not read

    @property
    def hub(self) -> ConnectionContext:
        """What the connections have in common."""

    def write(self, data: bytes) -> None:
        """Send, at the end of the loop's turn at the latest."""

    def write_parts(self, parts: Iterable[bytes]) -> None:
        """Send at once what is too large to be copied together."""

    def body_taken(self) -> None:
        """The application has taken what was buffered of the request's body."""

    async def wait_writable(self) -> None:
        """Wait while the client does not read."""

    def run(self, exchange: RequestCycle, app: App) -> None:
        """Let *app* serve *exchange*, in a task."""

    def answered(self, exchange: RequestCycle) -> None:
        """The answer is complete."""

    def ended(self, exchange: RequestCycle) -> None:
        """The application has returned."""

    def abort(self) -> None:
        """Cut the client off: what it got must not look complete."""

    def refuse(self, exchange: RequestCycle, status: int) -> None:
        """Answer *exchange*, of whose answer nothing was sent, with an error, and close."""


class RequestCycle:
    """One request and its answer.

    Attributes:
        scope: The ASGI scope.
        task: Runs the application; None before its turn (pipelining).
        keep_alive: The client allows another request on the connection.
        is_head: The answer has no body, whatever its fields say.
        is_received: The whole request is here.
        is_started: The application has begun to answer.
        is_head_sent: Bytes of the answer are on their way.
        is_answered: The answer is complete.
        is_gone: There is no client any more.
        is_expecting: The client waits for ``100 Continue`` before it sends the body.
        size: Buffered bytes of the request's body.
        received: Bytes of it that have come so far.
        waiter: What ``receive`` waits for, if it does.
        on_disconnect: Called when the client leaves; for who serves it without a task, or does not
            `receive` for a while.
    """

    # Not slots: what nearly every exchange leaves as it is costs nothing as a default here.
    task: asyncio.Task[None] | None = None
    waiter: asyncio.Future[None] | None = None
    on_disconnect: Callable[[], None] | None = None
    is_head = False
    is_received = False
    is_started = False
    is_head_sent = False
    is_answered = False
    is_gone = False
    size = 0
    received = 0
    _end_delivered = False  # that the request's body has ended
    _status = 0
    _chunked = False
    _has_body = True
    _left = -1  # bytes that the announced length still lacks; -1 when none is announced
    _head: Iterable[tuple[bytes, bytes]] = ()

    def __init__(
        self,
        line: ClientConnection,
        scope: Scope,
        *,
        keep_alive: bool,
        is_1_0: bool,
        is_expecting: bool,
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.is_expecting = is_expecting
        self._line = line
        self._is_1_0 = is_1_0
        self._pieces: list[bytes] = []
        if scope["method"] == "HEAD":
            self.is_head = True

    @property
    def is_waiting(self) -> bool:
        """Tell whether the client need not send its body now."""
        return self.is_expecting or self.is_head_sent

    # -- the request -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Buffer a piece of the request's body."""
        if self.is_answered or self.is_gone:
            return
        self.is_expecting = False  # it did not wait
        pieces = self._pieces
        pieces.append(data)
        self.size += len(data)
        self.received += len(data)
        if len(pieces) > _COALESCE:
            pieces[:] = [b"".join(pieces)]
        if self.waiter is not None:
            self.wake()

    def wake(self) -> None:
        """Let ``receive`` look again."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def disconnect(self) -> None:
        """Note that the client is gone."""
        self.is_gone = True
        self._pieces.clear()
        self.size = 0
        self.wake()
        if self.on_disconnect is not None:
            self.on_disconnect()

    async def receive(self) -> Message:
        """Return the next ASGI message; by one task at a time.

        Pieces of the body that came together come together; ``http.disconnect`` is told as soon
        as the client is gone or has its whole answer, even before a body that is still here.
        """
        while True:
            if self.is_gone or self.is_answered:
                return {"type": _DISCONNECT}
            if self._pieces:
                pieces = self._pieces
                body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self.size = 0
                self._end_delivered = self.is_received
                if self._line.is_paused:
                    self._line.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self.is_received}
            if self.is_received and not self._end_delivered:
                self._end_delivered = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self.is_expecting and not self.is_received:
                self.is_expecting = False
                if not self.is_head_sent:
                    self._line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._wait()

    def set_on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Set *callback* to be called when the client disconnects; at once if it already has."""
        self.on_disconnect = callback
        if self.is_gone and callback is not None:
            callback()

    @property
    def full_body(self) -> bytes | None:
        """Complete body of the request; None while it is incomplete or not in one piece."""
        if not self.is_received or self._end_delivered or self.is_gone or len(self._pieces) != 1:
            return None
        return self._pieces[0]

    def take_body(self) -> bytes | None:
        """Return `full_body` and consume it, as `receive` would."""
        body = self.full_body
        if body is not None:
            self._end_delivered = True
            self.size = 0
            self._pieces.clear()
            if self._line.is_paused:
                self._line.body_taken()
        return body

    async def _wait(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            raise RuntimeError("receive() is already being waited for")
        self.waiter = self._line.loop.create_future()
        await self.waiter

    # -- the answer --------------------------------------------------------------------

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take an ASGI message; waits while the client does not keep up.

        Raises:
            ClientDisconnectedError: The client left or was cut.
            RuntimeError: The message is not one of ours, or not in its place.
            ValueError: A field of the head would break it, or the body has not the length said.
        """
        if self.is_gone:
            raise ClientDisconnectedError("the client is gone")
        kind = message["type"]
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            if self.is_started:
                raise RuntimeError("the answer has been started before")
            self._status = message["status"]
            self._head = message.get("headers", ())
            self.is_started = True
            self._line.hub.flush_later(self)
        else:
            raise RuntimeError(f"unexpected message {kind!r}")
        if self._line.stalled is not None:
            await self._line.wait_writable()
            if self.is_gone and not self.is_answered:
                raise ClientDisconnectedError("the client is gone")

    @property
    def can_send_full_response(self) -> bool:
        """Tell whether `send_full_response` would."""
        return not (self.is_gone or self.is_started or self._line.stalled is not None)

    def send_full_response(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Send a whole answer without waiting; False: not now, `send` it.

        Raises:
            ClientDisconnectedError: The client left or was cut.
            ValueError: As `send`.
        """
        if self.is_gone:
            raise ClientDisconnectedError("the client is gone")
        if not self.can_send_full_response:
            return False
        self._status, self._head, self.is_started = status, headers, True
        self._send_body(body, more=False)
        return True

    def flush_head(self) -> None:
        """Send a head whose body has not come in the same turn of the loop."""
        if self.is_head_sent or self.is_gone:
            return
        try:
            head = self._build_head(None)
        except (ValueError, TypeError):
            return  # said again, to the application, with the first piece
        self.is_head_sent = True
        self._line.write(head)

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self.is_started:
            raise RuntimeError("a body before the answer was started")
        if self.is_answered:
            raise RuntimeError("a body behind the end of the answer")
        head = b"" if self.is_head_sent else self._build_head(None if more else len(body))
        if self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise ValueError("the body has not the length that was announced")
        self.is_head_sent = True
        line = self._line
        if not self._has_body:
            if head:
                line.write(head)
        elif self._chunked:
            self._write_chunk(head, body, more)
        elif len(body) > _JOIN_BYTES:
            line.write_parts((head, body))
        elif head or body:
            line.write(head + body)
        if not more:
            self.is_answered = True
            line.answered(self)
            if self.waiter is not None:
                self.wake()

    def _write_chunk(self, head: bytes, body: bytes, more: bool) -> None:
        end = b"" if more else b"0\r\n\r\n"
        line = self._line
        if not body:
            if head or end:
                line.write(head + end)
        elif len(body) <= _JOIN_BYTES:
            line.write(b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end))
        else:
            line.write_parts((b"%b%x\r\n" % (head, len(body)), body, b"\r\n" + end))

    def _build_head(self, length: int | None) -> bytes:
        """Write the head, and settle how the body is framed and whether the connection lasts.

        Args:
            length: Length of the whole body, where it is at hand; bytes.
        """
        line = self._line
        parts = [_STATUS_LINES.get(self._status) or status_line(self._status)]
        announced: bytes | None = None
        date = line.hub.date
        for name, value in self._head:
            low = name.lower()
            if low in _LOOKED_AT:
                if low == b"content-length":
                    announced = value
                    if self._status == 204:
                        continue
                elif low == b"date":
                    date = b""
                else:
                    if low == b"connection" and value.lower() == b"close":
                        self.keep_alive = False
                    continue
            parts += (name, b": ", value, b"\r\n")
        head = b"".join(parts)
        if len(head) - len(head.translate(None, _BREAKING)) != (len(parts) + 3) // 2:
            raise ValueError("CR, LF or NUL in the head of an answer")
        framing = self._settle_framing(announced, length)
        # An answer to half a request closes too: its rest could be taken for the next one.
        if not (self.keep_alive and self.is_received) or line.hub.is_draining():
            self.keep_alive = False
            framing += b"connection: close\r\n"
        elif self._is_1_0:
            framing += b"connection: keep-alive\r\n" + line.hub.keep_alive
        else:
            framing += line.hub.keep_alive
        return b"%b%b%b\r\n" % (head, framing, date)

    def _settle_framing(self, announced: bytes | None, length: int | None) -> bytes:
        """Decide how the body is framed; returns the field that says so, unless it is there."""
        if announced is not None:
            if not announced.isdigit():
                raise ValueError(f"expected a decimal Content-Length, got {announced!r}")
            self._left = int(announced)
        if self.is_head or self._status in _BODILESS:
            self._has_body = False
            self._left = -1
            return b""
        if announced is not None:
            return b""
        if length is not None:
            return b"content-length: %d\r\n" % length
        if self._is_1_0:
            self.keep_alive = False  # the end of the connection ends the body
            return b""
        self._chunked = True
        return b"transfer-encoding: chunked\r\n"

    # -- the application ---------------------------------------------------------------

    def run_in_task(self, app: App) -> None:
        """Let *app* serve this exchange, which nobody has served by a task until now."""
        self._line.run(self, app)

    def finish(self) -> None:
        """End what was served without a task."""
        self.scope = _ENDED
        self.on_disconnect = None
        self._line.ended(self)

    async def run(self, app: App) -> None:
        """Run *app* to its end; whatever it leaves undone is never passed off as an answer."""
        try:
            await app(self.scope, self.receive, self.send)
        except ClientDisconnectedError:
            pass  # it was told, and need not mind
        except Exception:
            LOG.exception("%s %s failed", self.scope["method"], self.scope["path"])
            self.fail()
        except BaseException:  # cancelled
            self._line.abort()
            raise
        else:
            if not (self.is_answered or self.is_gone):
                LOG.error("%s %s was not answered", self.scope["method"], self.scope["path"])
                self.fail()
        finally:
            self.scope = _ENDED  # it leads back here, and the collector is to have nothing to do
            self._line.ended(self)

    def fail(self) -> None:
        """Answer 500, or cut the client off where it has got a part of an answer."""
        if self.is_answered or self.is_gone:
            return
        if self.is_head_sent:
            self._line.abort()
        else:
            self._line.refuse(self, 500)


def status_line(status: int) -> bytes:
    """Return the first line of an answer, with its CRLF; statuses are 200..599 here."""
    if not 200 <= status <= 599:
        raise ValueError(f"expected a status of 200..599, got {status}")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


_STATUS_LINES = {s.value: status_line(s.value) for s in HTTPStatus if s.value >= 200}
