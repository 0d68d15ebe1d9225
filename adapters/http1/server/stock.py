"""The limits of slow clients for the HTTP/1.1 layers that hypercorn and uvicorn bring along.

They serve with ``--stock``, websockets, and servers that are configured for what ours has not.
Left to themselves they read a head or a body for as long as it trickles, hypercorn speaks HTTP/2
to whoever begins with its preface or asks for ``h2c``, and a request that crosses the close of an
idle connection is reset. Here a client gets the times of ``H1Limits`` (uvicorn's also its size of
a head), HTTP/2 is refused, ``h2c`` ignored as RFC 9110 7.8 allows, and idle connections end by half
a close first. What these layers make of odd requests stays theirs.

Their classes are private; `guarded_hypercorn` and `guarded_uvicorn` return a class as it was where
it is not what is known here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .validation import H1Limits

LOG = logging.getLogger("swapchart.h1")

RATE_WINDOW_S = 60.0
"""Over how long the least rate of a body is measured; seconds."""

_LOOK_S = 0.5
_READ_BYTES = 1 << 16


@dataclass(slots=True)
class BodyClock:
    """Decides whether a body that is being sent comes too slowly.

    Attributes:
        limits: What is too slow.
        at: When a byte came last; loop time in seconds.
        window_at: When the window of the rate began.
        window_bytes: What has come in it.
    """

    limits: H1Limits
    at: float = 0.0
    window_at: float = 0.0
    window_bytes: int = 0

    def start(self, now: float) -> None:
        """Begin anew: the client could not have sent before *now*."""
        self.at = self.window_at = now
        self.window_bytes = 0

    def count(self, now: float, size: int) -> None:
        """Note that *size* bytes have come."""
        self.at = now
        self.window_bytes += size

    def wait(self, time_s: float) -> None:
        """Leave out *time_s* in which the client had to wait for us."""
        self.at += time_s
        self.window_at += time_s

    def is_too_slow(self, now: float) -> bool:
        """Return True if the client has to be cut."""
        if now - self.at >= self.limits.body_idle_s:
            return True
        if now - self.window_at < RATE_WINDOW_S:
            return False
        is_slow = self.window_bytes < self.limits.body_rate * RATE_WINDOW_S
        self.window_at, self.window_bytes = now, 0
        return is_slow


class _OverError(Exception):
    """The connection has been answered for the last time."""


def guarded_hypercorn(stock: Any, limits: H1Limits) -> Any:
    """Return hypercorn's ``TCPServer`` with *limits*, and without HTTP/2.

    Args:
        stock: The class.
        limits: What one client may ask of us.
    """
    try:
        import h11
        from hypercorn.events import Closed, RawData
        from hypercorn.protocol.h11 import H11Protocol
    except ImportError:
        return stock
    methods = ("_read_data", "_initiate_server_close", "_close")
    if not all(hasattr(stock, name) for name in methods) or not hasattr(
        H11Protocol, "_check_protocol"
    ):
        LOG.warning("hypercorn's own HTTP layer is not what we know, and serves without limits")
        return stock

    class Http1(H11Protocol):
        async def _check_protocol(self, event: Any) -> None:
            if event.http_version not in (b"1.0", b"1.1"):
                await self._send_error_response(505)
                raise _OverError

    class Guarded(stock):  # type: ignore[misc]
        _is_over = False  # what still comes is thrown away

        async def _read_data(self) -> None:
            inner = self.protocol.protocol
            if type(inner) is H11Protocol:
                inner.__class__ = Http1
            with suppress(_OverError):
                await self._read_within_limits(inner)
            await self.protocol.handle(Closed())
            await self.idle_task.stop()  # the connection would last as long

        async def _read_within_limits(self, inner: Any) -> None:
            since, body = self.loop.time(), BodyClock(limits)
            is_in_head, is_in_body = True, False  # the first head is waited for
            while not self.reader.at_eof():
                due = since + limits.header_timeout_s if is_in_head else None
                try:
                    data = await self._read(due, body if is_in_body else None)
                except TimeoutError:
                    if is_in_body and inner.connection.our_state is not h11.SEND_RESPONSE:
                        is_in_body = False  # it has an answer, and need not send
                        continue
                    if is_in_head and inner.connection.trailing_data[0]:
                        await inner._send_error_response(408)
                    return
                except OSError:
                    return
                if self._is_over:
                    continue
                body.count(began := self.loop.time(), len(data))
                await self.protocol.handle(RawData(data))
                body.wait(self.loop.time() - began)
                state, was_in_head = inner.connection.their_state, is_in_head
                is_in_head = state is h11.IDLE and bool(inner.connection.trailing_data[0])
                if is_in_head and not was_in_head:
                    since = self.loop.time()
                was_in_body, is_in_body = is_in_body, state is h11.SEND_BODY
                if is_in_body and not was_in_body:
                    body.start(self.loop.time())

        async def _read(self, due: float | None, body: BodyClock | None) -> bytes:
            """Return what comes next.

            Raises:
                TimeoutError: It has not come in time.
            """
            if due is not None:
                async with asyncio.timeout_at(due):
                    return bytes(await self.reader.read(_READ_BYTES))
            if body is None:
                return bytes(await self.reader.read(_READ_BYTES))
            now = self.loop.time()
            if body.is_too_slow(now):
                raise TimeoutError
            async with asyncio.timeout_at(now + limits.body_idle_s):
                return bytes(await self.reader.read(_READ_BYTES))

        async def _initiate_server_close(self) -> None:
            self._is_over = True
            await self.protocol.handle(Closed())
            if not self.context.terminated.is_set():
                with suppress(NotImplementedError, OSError, RuntimeError):  # TLS, or closed
                    self.writer.write_eof()
                    await asyncio.sleep(limits.linger_s)
            self.writer.close()

    return Guarded


def guarded_uvicorn(limits: H1Limits) -> Any:
    """Return uvicorn's protocol on httptools with *limits*, for its ``Config(http=...)``, or None.

    Args:
        limits: What one client may ask of us.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
    except ImportError as error:
        LOG.warning("uvicorn serves HTTP/1.1 without our limits: %s", error)
        return None

    class Guarded(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
        _clock: BodyClock
        _head_at: float | None = None  # when a head began that has not ended
        _head_bytes = 0
        _is_in_body = False
        _is_over = False
        _looker: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._clock = BodyClock(limits)
            self._head_at = self.loop.time()
            self._look_later()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._looker is not None:
                self._looker.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_over:
                return
            self._head_bytes += len(data)
            super().data_received(data)
            if self._head_bytes > limits.header_bytes:  # trailers count too
                self._refuse(431)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head_at = self.loop.time()

        def on_headers_complete(self) -> None:
            self._head_at, self._head_bytes, self._is_in_body = None, 0, True
            self._clock.start(self.loop.time())
            if self.parser.should_upgrade() and not self._should_upgrade() and self._has_body():
                raise ValueError("its body would be lost")  # which is answered with 400
            super().on_headers_complete()

        def _has_body(self) -> bool:
            return any(
                (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
                for name, value in self.headers
            )

        def on_body(self, body: bytes) -> None:
            self._head_bytes = 0
            self._clock.count(self.loop.time(), len(body))
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._head_bytes, self._is_in_body = 0, False
            super().on_message_complete()

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.is_closing() or not self.transport.can_write_eof():
                super().timeout_keep_alive_handler()
                return
            self._is_over = True
            self.transport.write_eof()
            self.loop.call_later(limits.linger_s, self.transport.close)

        def _look_later(self) -> None:
            shortest_s = min(limits.header_timeout_s, limits.body_idle_s)
            self._looker = self.loop.call_later(min(_LOOK_S, shortest_s / 4), self._look)

        def _look(self) -> None:
            self._looker = None
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return  # it is over, or a websocket now
            now = self.loop.time()
            if self._head_at is not None:
                if now - self._head_at >= limits.header_timeout_s and not self._is_over:
                    self._refuse(408 if self._head_bytes else 0)
                    return
            elif self._is_in_body:
                cycle = self.cycle
                if (
                    self.flow.read_paused
                    or cycle.waiting_for_100_continue
                    or cycle.response_started
                ):
                    self._clock.start(now)  # it need not send now
                elif self._clock.is_too_slow(now):
                    self._refuse(408)
                    return
            self._look_later()

        def _refuse(self, status: int) -> None:
            """Answer with *status*, unless it is 0 or an answer has begun, and close."""
            self._is_over = True
            is_busy = self.cycle is not None and not self.cycle.response_complete
            if status and not (is_busy and (self.cycle.response_started or self.pipeline)):
                self.transport.write(
                    STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
                )
            if is_busy:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.close()

    return Guarded
