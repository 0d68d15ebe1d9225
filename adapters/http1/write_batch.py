"""Batch of writes that go out together at the end of one turn of the event loop.

A turn under load has read from many sockets. Written at once, each response finds its reader
asleep, and waking it costs more than sending; and all of the work on a request lies between two
system calls, which evicts the kernel from the processor's caches. Written together they cost a
third less. A single write is sent at once: waiting would only cost time.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Protocol

log = logging.getLogger(__name__)

_MAX_WRITERS = 64  # that wait: the first of a long turn does not wait for all of it
_BUSY_S = 50e-6  # a write within that time after the one before is not single


class BatchedWriter(Protocol):
    """Connection with data to send."""

    def send_pending(self) -> None:
        """Send all that is pending."""

    def write_failed(self) -> None:
        """End the connection after `send_pending` raised, which no transport reports."""


class WriteBatch:
    """Writers of one event loop that have data to send."""

    __slots__ = ("_at", "_is_busy", "_writers")

    def __init__(self) -> None:
        self._writers: list[BatchedWriter] = []
        self._is_busy = False  # the last turn that waited had several writers
        self._at = 0.0  # when the last one came that did not wait; on the performance counter

    def add(self, loop: asyncio.AbstractEventLoop, writer: BatchedWriter) -> None:
        """Let *writer* send, at the end of this turn of *loop* at the latest."""
        writers = self._writers
        if not writers:
            if not self._is_busy:
                before, self._at = self._at, perf_counter()
                if self._at - before > _BUSY_S:
                    writer.send_pending()
                    return
            loop.call_soon(self.flush)
        writers.append(writer)
        if len(writers) >= _MAX_WRITERS:
            self.flush()

    def flush(self) -> None:
        """Let all writers send."""
        writers, self._writers = self._writers, []
        if writers:  # else they were many, and have sent
            self._is_busy = len(writers) > 1
        for writer in writers:
            try:
                writer.send_pending()
            except Exception:  # of one; the others still send
                log.exception("writing to a connection failed")
                writer.write_failed()
