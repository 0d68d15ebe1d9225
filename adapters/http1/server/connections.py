"""All connections of one server: their clock, their date, their shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

from ..write_batch import WriteBatch
from .connection import ServerConnection
from .request_cycle import RequestCycle
from .validation import H1Limits

LOG = logging.getLogger("swapchart.h1")


_LOOK_S = 0.5  # how often connections are looked at; bounds how late a timeout is noticed


class ConnectionManager:
    """The connections of one server: their clock, their date, and their common end.

    Attributes:
        limits: What one client may ask of us.
        outbox: Of the answers that are sent at the end of the loop's turn.
        date: The whole Date field of now, with its CRLF.
        keep_alive: The whole Keep-Alive field of an answer whose connection is kept.
        spare: Bytes that connections may read beyond their limits; see ``H1Limits.stuck_bytes``.
        connections: Those that are open, or whose applications still run.
        is_draining: Tells whether connections are to end with the answer they are at.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: H1Limits,
        is_draining: Callable[[], bool],
    ) -> None:
        self.limits = limits
        self.outbox = WriteBatch()
        self.date = b""
        self.keep_alive = b"keep-alive: timeout=%d\r\n" % limits.keep_alive_s
        self.spare = limits.stuck_bytes_in_all
        self.connections: set[ServerConnection] = set()
        self._loop = loop
        self.is_draining = is_draining
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._heads: list[RequestCycle] = []  # of answers whose bodies have not begun
        shortest_s = min(
            limits.header_timeout_s,
            limits.keep_alive_s,
            limits.body_idle_s,
            limits.write_timeout_s,
            limits.linger_s,
            limits.drain_idle_s,
        )
        self._look_s = min(_LOOK_S, max(shortest_s / 4, 0.01))

    def flush_later(self, exchange: RequestCycle) -> None:
        """Call ``flush_head`` when the event loop comes round; one callback for all of a turn."""
        if not self._heads:
            self._loop.call_soon(self._flush_heads)
        self._heads.append(exchange)

    def _flush_heads(self) -> None:
        heads, self._heads = self._heads, []
        for exchange in heads:
            try:
                exchange.flush_head()
            except Exception:  # of one; others are not to wait for ever
                LOG.exception("the head of a response could not be sent")

    def add(self, connection: ServerConnection) -> None:
        """Look after a connection."""
        self.connections.add(connection)
        if self._timer is None:
            self._look()

    def discard(self, connection: ServerConnection) -> None:
        """Look no more; it is finished."""
        self.connections.discard(connection)

    def drain(self, deadline_s: float | None) -> None:
        """Let every connection end with the answer it is at, and cut those left at the deadline.

        The first call counts; others change nothing.

        Args:
            deadline_s: How long they have; seconds from now. None: as long as they take.
        """
        if self._is_ending:
            return
        self._is_ending = True
        self.is_draining = lambda: True
        if deadline_s is not None:
            self._loop.call_later(max(deadline_s, 0.0), self.cancel)

    def cancel(self) -> None:
        """Cut everybody off, and end what is done for them."""
        for connection in list(self.connections):
            connection.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self.connections:
            return
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        now = self._loop.time()
        for connection in list(self.connections):
            try:
                connection.look(now)
            except Exception:  # of one; the limits of all others hold
                LOG.exception("a connection could not be looked after, and is cut")
                self.connections.discard(connection)
                with suppress(Exception):
                    connection.cancel()
        self._timer = self._loop.call_later(self._look_s, self._look)
