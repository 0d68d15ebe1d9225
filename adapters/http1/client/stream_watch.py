"""Observation of an upstream: whether its connections can be used again behind an event stream.

llama-server announces Keep-Alive, and closes a connection right behind an event stream: the next
request on it would be lost. So a connection that carried an event stream is used again only if
another one, which carried no further request, was left open for a while before. That holds until
the process of the upstream ends, or one is closed early.
"""

from __future__ import annotations

import asyncio

from .connection import Connection

_MAX_WATCHED = 8  # connections at a time


class StreamWatch:
    """Connections of one pool behind event streams.

    Args:
        watch_s: How long a connection has to stay open, in seconds, > 0.

    Attributes:
        is_kept: The upstream leaves connections open.
    """

    __slots__ = ("_timers", "_watch_s", "is_kept")

    def __init__(self, watch_s: float) -> None:
        self.is_kept = False
        self._watch_s = watch_s
        self._timers: dict[Connection, asyncio.TimerHandle] = {}

    def begin(self, conn: Connection) -> None:
        """Watch *conn*, which carries no further request, and close it in the end."""
        conn.idle_since = conn.loop.time()
        if len(self._timers) < _MAX_WATCHED:
            self._timers[conn] = conn.loop.call_later(self._watch_s, self._end, conn)
        else:
            conn.discard()

    def _end(self, conn: Connection) -> None:
        del self._timers[conn]
        self.is_kept = conn.is_usable()
        conn.is_behind_stream = False  # it is closed by the proxy
        conn.discard()

    def note_closing(self, conn: Connection) -> None:
        """Note that *conn* is unusable from now on; its last response was an event stream."""
        timer = self._timers.pop(conn, None)
        if timer is not None:
            timer.cancel()
        if conn.loop.time() - conn.idle_since < self._watch_s:
            self.is_kept = False
