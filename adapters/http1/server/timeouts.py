"""Timeouts of a connection: an upload that trickles, a response that is not taken, idling.

The clocks only measure, and `ConnectionTimeouts` says what is due; the connection acts on it.
Nothing here needs a timer: the connection asks a few times a second.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Protocol

from ....dataclass import dataclass
from ..undelivered import count_undelivered
from .hangup import HangupDetector, has_unread_input
from .input_buffer import InputBuffer
from .request_cycle import RequestCycle
from .request_parser import RequestParser
from .validation import H1Limits
from .writer import ConnectionWriter

RATE_WINDOW_S = 60.0
"""Time over which the minimum rate of a request body is measured; seconds."""

_ACKED_AT = 120  # offset of tcpi_bytes_acked in a tcp_info; linux/tcp.h


@dataclass(slots=True)
class BodyClock:
    """Decides whether the body of a request arrives too slowly.

    Attributes:
        limits: The idle time and the rate that are too slow.
        at: When the last byte came; loop time in seconds.
        window_at: When the current window of the rate began; loop time in seconds.
        window_bytes: Bytes that have come in that window.
    """

    limits: H1Limits
    at: float = 0.0
    window_at: float = 0.0
    window_bytes: int = 0

    def start(self, now: float) -> None:
        """Start measuring at *now*: the client could not have sent before."""
        self.at = self.window_at = now
        self.window_bytes = 0

    def count(self, now: float, size: int) -> None:
        """Count *size* bytes that have come since the last call."""
        self.at = now
        self.window_bytes += size

    def wait(self, time_s: float) -> None:
        """Exclude *time_s* seconds in which the client had to wait for the server."""
        self.at += time_s
        self.window_at += time_s

    def is_too_slow(self, now: float) -> bool:
        """Return True if the client has to be disconnected."""
        if now - self.at >= self.limits.body_idle_s:
            return True
        if now - self.window_at < RATE_WINDOW_S:
            return False
        is_slow = self.window_bytes < self.limits.body_rate * RATE_WINDOW_S
        self.window_at, self.window_bytes = now, 0
        return is_slow


class BodyProgress:
    """Body clock of a connection, which starts anew for each of its requests."""

    __slots__ = ("_clock", "_cycle", "_received")

    def __init__(self, limits: H1Limits) -> None:
        self._clock = BodyClock(limits)
        self._cycle: RequestCycle | None = None  # whose body was looked at last
        self._received = 0  # bytes of it that had come then

    def is_too_slow(self, now: float, cycle: RequestCycle, *, is_paused: bool) -> bool:
        """Return True if the client of *cycle* sends its body too slowly.

        Args:
            now: Loop time in seconds.
            cycle: The request whose body is being received.
            is_paused: The server does not read from the client at the moment.
        """
        received = cycle.received
        if cycle is not self._cycle or is_paused or cycle.is_waiting:
            # The body begins here, or the client waits for the server, or it has its response.
            self._cycle = cycle
            self._clock.start(now)
        elif received != self._received:
            self._clock.count(now, received - self._received)
        self._received = received
        return self._clock.is_too_slow(now)


class WriteProgress:
    """Tracks whether a client takes what was written to its connection.

    Attributes:
        undelivered: Bytes, or a number that changes with them, that the client has not taken; 0
            means that it has taken all.
        since: When that number changed last; loop time in seconds.
    """

    __slots__ = ("_before", "since", "undelivered")

    def __init__(self) -> None:
        self.undelivered = self._before = 0
        self.since = 0.0

    def start(self, transport: asyncio.Transport, now: float) -> None:
        """Start measuring at *now*."""
        self._before = _count(transport)
        self.since = now

    def update(self, transport: asyncio.Transport, now: float) -> None:
        """Look at what the client has taken by *now*."""
        self.undelivered = size = _count(transport)
        if size and size != self._before:
            self._before, self.since = size, now


def _count(transport: asyncio.Transport) -> int:
    """Return the bytes that the client has not taken, those in the kernel too.

    Under TLS the bytes it has acknowledged are added twice, so that the sum moves with them: the
    buffer between the transport and the kernel cannot be seen. 0 means the same.
    """
    size = count_undelivered(transport)
    if size and transport.get_extra_info("ssl_object") is not None:
        with suppress(OSError):
            info = transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8
            )
            size += 2 * int.from_bytes(info[_ACKED_AT:], sys.byteorder)
    return size


class Due(Enum):
    """Reaction of a connection to a timeout that has expired."""

    NOTHING = 0
    ABORT = 1  # disconnect the client at once
    REJECT = 2  # send 408, or disconnect where a response has begun
    CLOSE = 3  # close an idle connection
    END = 4  # close what was closed for writing


class DrainState(Protocol):
    """Server that may be shutting down."""

    is_draining: Callable[[], bool]


class ConnectionTimeouts:
    """Timeouts of one connection.

    Attributes:
        write_progress: What the client has taken.
    """

    __slots__ = (
        "_body_progress", "_buffer", "_hangup", "_limits", "_parser", "_server", "_writer",
        "write_progress",
    )  # fmt: skip

    def __init__(
        self,
        limits: H1Limits,
        server: DrainState,
        parser: RequestParser,
        buffer: InputBuffer,
        writer: ConnectionWriter,
    ) -> None:
        self.write_progress = WriteProgress()
        self._body_progress = BodyProgress(limits)
        self._hangup: HangupDetector | None = None
        self._limits = limits
        self._server = server
        self._parser, self._buffer, self._writer = parser, buffer, writer

    def check(self, now: float, idle_since: float | None, *, is_closing: bool) -> Due:
        """Return what is due of a connection.

        Args:
            now: Loop time in seconds.
            idle_since: When it began, or had its last response; None while it serves a request.
            is_closing: The last response was written.
        """
        if is_closing or self._writer.stalled is not None:
            due = self.check_writing(now, is_closing=is_closing)
            if is_closing or due is not Due.NOTHING:
                return due
        return self.check_request(now) if idle_since is None else self.check_idle(now, idle_since)

    def check_writing(self, now: float, *, is_closing: bool) -> Due:
        """Return what is due of a connection that closes, or whose client is stalled.

        Args:
            now: Loop time in seconds.
            is_closing: The last response was written.
        """
        limits, progress, transport = self._limits, self.write_progress, self._writer.transport
        progress.update(transport, now)
        took = now - progress.since
        if progress.undelivered:
            return Due.ABORT if took >= limits.write_timeout_s else Due.NOTHING
        linger_s = limits.linger_s
        if self._server.is_draining():  # idle pools look at a connection when they next use it
            linger_s = min(linger_s, limits.drain_idle_s)
        if not is_closing or took < linger_s:
            return Due.NOTHING
        if transport.is_closing() or transport.can_write_eof():
            return Due.ABORT
        progress.since = now
        return Due.END

    def check_idle(self, now: float, idle_since: float) -> Due:
        """Return what is due of a connection that serves no request.

        Args:
            now: Loop time in seconds.
            idle_since: When the connection began, or had its last response; loop time.
        """
        limits, parser = self._limits, self._parser
        if parser.is_in_head:
            is_late = now - parser.head_since >= limits.header_timeout_s
            return Due.REJECT if is_late else Due.NOTHING
        if self._server.is_draining():
            limit_s = limits.drain_idle_s
        elif parser.is_unused:
            limit_s = limits.header_timeout_s
        else:
            limit_s = limits.keep_alive_s + limits.keep_alive_spare_s
        if now - idle_since < limit_s or has_unread_input(self._writer.transport):
            return Due.NOTHING
        return Due.CLOSE

    def check_request(self, now: float) -> Due:
        """Return what is due of a connection that serves a request.

        Lends room to a client that stays paused, to find out whether it has left.
        """
        buffer, incoming = self._buffer, self._parser.incoming
        if incoming is not None and self._body_progress.is_too_slow(
            now, incoming, is_paused=buffer.is_paused
        ):
            return Due.REJECT
        if buffer.is_paused:
            if self._hangup is None:
                self._hangup = HangupDetector(self._writer.transport)
            if self._hangup.has_hung_up(is_stuck=buffer.is_stuck):
                return Due.ABORT
            buffer.extend(0 if incoming is None else incoming.size)
        return Due.NOTHING
