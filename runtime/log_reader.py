"""A live reader of a log, which can never slow it.

One that does not keep up loses bytes, and is told how many in its own stream. In a module of its
own: what is compiled has no asynchronous generators.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import Protocol

import anyio

_TAKEN_BYTES = 1 << 16


class LogSource(Protocol):
    """A log that readers can be attached to."""

    def pieces(self) -> list[bytes]:
        """Return the bytes that are kept, in pieces; nothing is copied."""
        ...

    def add_reader(self, reader: LogReader) -> None:
        """Offer *reader* every later write."""
        ...

    def discard_reader(self, reader: LogReader) -> None:
        """Detach *reader*; a no-op when it is not attached."""
        ...


async def follow(
    ring: LogSource, *, history: bool, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield what *ring* keeps (if *history*) and then what comes; see ``LogRing.stream``."""
    reader = LogReader(limit_bytes)
    if history:
        for piece in ring.pieces():  # shared by all readers: a thousand take no more than one
            reader.offer(piece, force=True)
    ring.add_reader(reader)
    try:
        while True:
            yield await reader.take()
    finally:
        ring.discard_reader(reader)


class LogReader:
    """What one reader has not read yet.

    Args:
        limit: How much that may be; bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size, self._dropped = limit, 0, 0
        self._chunks: deque[bytes] = deque()
        self._wake = anyio.Event()

    def offer(self, data: bytes, *, force: bool = False) -> None:
        """Take *data*, or count it as lost; with *force* it is taken in any case."""
        if not data:
            return
        if self._size + len(data) > self._limit and not force:
            self._dropped += len(data)
            return
        if self._dropped:
            self._note_loss()
        self._chunks.append(data)
        self._size += len(data)
        self._wake.set()

    def _note_loss(self) -> None:
        note = f"\n[{self._dropped} bytes dropped]\n".encode()
        self._dropped = 0
        self._chunks.append(note)
        self._size += len(note)
        self._wake.set()

    async def take(self) -> bytes:
        """Wait for something to read, and return it; at most 64 KiB, or one larger piece."""
        while not self._chunks:
            if self._dropped:
                self._note_loss()
                break
            self._wake = anyio.Event()
            await self._wake.wait()
        taken = [self._chunks.popleft()]
        size = len(taken[0])
        while self._chunks and size + len(self._chunks[0]) <= _TAKEN_BYTES:
            taken.append(self._chunks.popleft())
            size += len(taken[-1])
        self._size -= size
        return b"".join(taken)
