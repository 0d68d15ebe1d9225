"""Manager of all connections of one server: timeouts, the Date field, shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ..http_date import http_date
from ..io_batch import ReadBatch, WriteBatch
from .connection import ServerConnection
from .request_cycle import RequestCycle
from .validation import H1Limits

LOG = logging.getLogger("swapchart.h1")

_CHECK_S = 0.5  # between two checks of the timeouts; bounds how late one is noticed


class ConnectionManager:
    """Connections of one server.

    Attributes:
        limits: Limits of each client.
        read_batch: Data of clients, which the end of the loop's turn deals with.
        write_batch: Connections whose responses are sent at the end of the loop's turn.
        date: The complete Date field of now, with its CRLF.
        keep_alive: The complete Keep-Alive field of a response whose connection is kept.
        spare: Bytes that connections may read beyond their limits; see ``H1Limits.stuck_bytes``.
        connections: Connections that are open, or whose applications still run.
        is_draining: Returns True if each connection has to close behind its current response.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: H1Limits,
        is_draining: Callable[[], bool],
    ) -> None:
        self.limits = limits
        self.read_batch = ReadBatch()
        self.write_batch = WriteBatch()
        self.date = b""
        self.keep_alive = b"keep-alive: timeout=%d\r\n" % limits.keep_alive_s
        self.spare = limits.stuck_bytes_in_all
        self.connections: set[ServerConnection] = set()
        self._loop = loop
        self.is_draining = is_draining
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._heads: list[RequestCycle] = []  # of responses whose bodies have not begun
        shortest_s = min(
            limits.header_timeout_s,
            limits.keep_alive_s,
            limits.body_idle_s,
            limits.write_timeout_s,
            limits.linger_s,
            limits.drain_idle_s,
        )
        self._check_s = min(_CHECK_S, max(shortest_s / 4, 0.01))

    def flush_later(self, cycle: RequestCycle) -> None:
        """Call ``flush_head`` of *cycle* in the next turn of the event loop, with all others."""
        if not self._heads:
            self._loop.call_soon(self._flush_heads)
        self._heads.append(cycle)

    def _flush_heads(self) -> None:
        heads, self._heads = self._heads, []
        for cycle in heads:
            try:
                cycle.flush_head()
            except Exception:  # of one; the others go on
                LOG.exception("the head of a response could not be sent")

    def add(self, connection: ServerConnection) -> None:
        """Check the timeouts of *connection* from now on."""
        self.connections.add(connection)
        if self._timer is None:
            self._check()

    def discard(self, connection: ServerConnection) -> None:
        """Forget *connection*, which is finished."""
        self.connections.discard(connection)

    def drain(self, deadline_s: float | None) -> None:
        """Close each connection behind its current response, and all at the deadline.

        Only the first call has an effect.

        Args:
            deadline_s: Time until all connections are aborted; seconds from now. None means that
                they never are.
        """
        if self._is_ending:
            return
        self._is_ending = True
        self.is_draining = lambda: True
        if deadline_s is not None:
            self._loop.call_later(max(deadline_s, 0.0), self.cancel)

    def cancel(self) -> None:
        """Abort all connections, and cancel the applications that serve them."""
        for connection in list(self.connections):
            connection.cancel()

    def _check(self) -> None:
        self._timer = None
        if not self.connections:
            return
        self.date = b"date: %b\r\n" % http_date()
        now = self._loop.time()
        for connection in list(self.connections):
            try:
                connection.check_timeouts(now)
            except Exception:  # of one; the timeouts of all others hold
                LOG.exception("the timeouts of a connection could not be checked; it is aborted")
                self.connections.discard(connection)
                with suppress(Exception):
                    connection.cancel()
        self._timer = self._loop.call_later(self._check_s, self._check)
