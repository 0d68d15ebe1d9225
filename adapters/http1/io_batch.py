"""Batches of reads and of writes that one turn of the event loop deals with together.

A turn under load reads from many sockets and writes to many. If all of the work on a request lies
between two system calls, it evicts the kernel from the processor's caches, and the kernel evicts
it; and each response that is written at once finds its reader asleep, and waking it costs more
than sending. Writes together cost a third less. The data of reads is worked on step by step, since
code that has just run for another connection is in the caches, and what comes of it is written
right behind. A single read or write is done at once: waiting would only cost time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from time import perf_counter
from typing import Protocol

log = logging.getLogger(__name__)

#: ``batches`` are the batches of writes that the reads of this turn have filled so far.
_turn = threading.local()

_MAX_WRITERS = 64  # that wait: the first of a long turn does not wait for all of it
_MAX_READ_BYTES = 1 << 14  # of one read that waits; more is worth a turn of its own
_BUSY_S = 50e-6  # a read or a write within that time after the one before is not single


class BatchedWriter(Protocol):
    """Connection with data to send."""

    def send_pending(self) -> None:
        """Send all that is pending."""

    def write_failed(self) -> None:
        """End the connection after `send_pending` raised, which no transport reports."""


class BatchedReader(Protocol):
    """Connection that receives data.

    Attributes:
        transport: Its transport.
    """

    transport: asyncio.Transport

    def take_read(self, data: bytes) -> None:
        """Parse *data*."""

    def act_on_read(self) -> None:
        """Act on what was parsed; does nothing without that."""


class _Batch:
    """Reads or writes of one event loop."""

    __slots__ = ("_at", "_is_busy")

    def __init__(self) -> None:
        self._is_busy = False  # the last turn that waited had several
        self._at = 0.0  # when the last one came that did not wait; on the performance counter

    def _is_single(self) -> bool:
        """Return True if there is no other at this time."""
        if self._is_busy:
            return False
        before, self._at = self._at, perf_counter()
        return self._at - before > _BUSY_S


class ReadBatch(_Batch):
    """Data that connections of one event loop have received."""

    __slots__ = ("_reads",)

    def __init__(self) -> None:
        super().__init__()
        self._reads: list[tuple[BatchedReader, bytes]] = []

    def add(self, loop: asyncio.AbstractEventLoop, reader: BatchedReader, data: bytes) -> bool:
        """Let *reader* deal with *data*, at the end of this turn of *loop* at the latest.

        Returns:
            True if that is still to be done. The reader must not add more data before.
        """
        reads = self._reads
        if len(data) > _MAX_READ_BYTES:
            self.flush()
        elif reads or not self._is_single():
            if not reads:
                loop.call_soon(self.flush)
            reads.append((reader, data))
            return True
        reader.take_read(data)
        reader.act_on_read()
        return False

    def flush(self) -> None:
        """Deal with all data, each step for all of it, and send what came of it."""
        reads, self._reads = self._reads, []
        if not reads:
            return  # it was dealt with already
        self._is_busy = len(reads) > 1
        earlier = getattr(_turn, "batches", None)
        batches: list[WriteBatch] = []
        _turn.batches = batches
        try:
            _deal_with(reads)
        finally:
            _turn.batches = earlier
            for batch in batches:
                batch.flush()


def _deal_with(reads: list[tuple[BatchedReader, bytes]]) -> None:
    for reader, data in reads:
        try:
            reader.take_read(data)
        except Exception:  # of one; the others go on
            log.exception("reading from a connection failed")
            reader.transport.abort()
    for reader, _ in reads:
        try:
            reader.act_on_read()
        except Exception:
            log.exception("reading from a connection failed")
            reader.transport.abort()


class WriteBatch(_Batch):
    """Writers of one event loop that have data to send."""

    __slots__ = ("_writers",)

    def __init__(self) -> None:
        super().__init__()
        self._writers: list[BatchedWriter] = []

    def add(self, loop: asyncio.AbstractEventLoop, writer: BatchedWriter) -> None:
        """Let *writer* send, at the end of this turn of *loop* at the latest."""
        writers = self._writers
        if not writers:
            batches: list[WriteBatch] | None = getattr(_turn, "batches", None)
            if batches is not None:
                batches.append(self)
            elif self._is_single():
                writer.send_pending()
                return
            else:
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
