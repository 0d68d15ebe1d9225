"""Timeouts and size limits for uvicorn's own HTTP/1.1; imports uvicorn, which is optional."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..half_close import half_close
from ..request_id import new_request_id
from .timeouts import BodyClock
from .validation import H1Limits

_CHECK_S = 0.5  # between two checks of the timeouts


class LimitedHttpTools(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """uvicorn's protocol on httptools, within limits.

    Attributes:
        limits: Limits of each client; set by a derived class.
    """

    limits: H1Limits
    _clock: BodyClock
    _head_since: float | None = None  # when the current head began; None outside of a head
    _head_bytes = 0
    _is_in_body = False
    _ignores_input = False  # what still comes is thrown away
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and wait for the first head."""
        super().connection_made(transport)
        self._clock = BodyClock(self.limits)
        self._head_since = self.loop.time()
        self._check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the checks."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse *data*; rejects a head or a trailer that is too large."""
        if self._ignores_input:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.limits.header_bytes:
            self._reject(431)

    def send_400_response(self, msg: str) -> None:
        """Reject malformed input."""
        self.transport.write(_error(400, msg.encode("ascii")))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Note when a head begins."""
        super().on_message_begin()
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Start the clock of the body, and let uvicorn serve the request."""
        self._head_since, self._head_bytes, self._is_in_body = None, 0, True
        self._clock.start(self.loop.time())
        if self.parser.should_upgrade() and not self._should_upgrade() and self._has_body():
            raise ValueError("its body would be lost")  # makes uvicorn respond with 400
        super().on_headers_complete()

    def _has_body(self) -> bool:
        return any(
            (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
            for name, value in self.headers
        )

    def on_body(self, body: bytes) -> None:
        """Count a piece of a body."""
        self._head_bytes = 0
        self._clock.count(self.loop.time(), len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        self._head_bytes, self._is_in_body = 0, False
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection by a half-close first."""
        if self.transport.is_closing() or not self.transport.can_write_eof():
            super().timeout_keep_alive_handler()
        else:
            self._close()

    def _close(self) -> None:
        """Close, and discard what still comes for a while first: unread, it would cause a reset."""
        self._ignores_input = True
        if not half_close(self.transport):
            self.transport.close()
            return
        self.flow.resume_reading()
        self.loop.call_later(self.limits.linger_s, self.transport.close)

    def _check_later(self) -> None:
        shortest_s = min(self.limits.header_timeout_s, self.limits.body_idle_s)
        self._timer = self.loop.call_later(min(_CHECK_S, shortest_s / 4), self._check)

    def _check(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # it has ended, or is a websocket now
        now = self.loop.time()
        if self._head_since is not None:
            is_late = now - self._head_since >= self.limits.header_timeout_s
            if is_late and not self._ignores_input:
                self._reject(408 if self._head_bytes else 0)
                return
        elif self._is_in_body:
            if (
                self.flow.read_paused
                or self.cycle.waiting_for_100_continue
                or self.cycle.response_started
            ):
                self._clock.start(now)  # the client need not send now
            elif self._clock.is_too_slow(now):
                self._reject(408)
                return
        self._check_later()

    def _reject(self, status: int) -> None:
        """Send *status*, unless it is 0 or a response has begun, and close."""
        self._ignores_input = True
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if status and not (is_busy and (self.cycle.response_started or self.pipeline)):
            self.transport.write(_error(status, b""))
        if is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._close()


def _error(status: int, text: bytes) -> bytes:
    """Return a response of the server itself, behind which it closes the connection."""
    head = b"%bx-request-id: %b\r\ncontent-type: text/plain\r\n"
    framing = b"content-length: %d\r\nconnection: close\r\n\r\n"
    return head % (STATUS_LINE[status], new_request_id()) + framing % len(text) + text
