"""Live reader of a log; it can never slow the log down.

A reader that does not keep up loses bytes, and a line in its stream gives their number. This is a
module of its own, since a compiled module cannot have asynchronous generators.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import Protocol

import anyio

_CHUNK_BYTES = 1 << 16


class LogSource(Protocol):
    """A log that readers can be attached to."""

    def pieces(self) -> list[bytes]:
        """Return the bytes that are kept, in pieces that are not copied."""
        ...

    def add_reader(self, reader: LogReader) -> None:
        """Attach *reader*: it gets every later write."""
        ...

    def discard_reader(self, reader: LogReader) -> None:
        """Detach *reader*; a no-op if it is not attached."""
        ...


async def follow(
    ring: LogSource, *, history: bool, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes that *ring* keeps (if *history*), then later ones; see `LogRing.stream`."""
    reader = LogReader(limit_bytes)
    if history:
        for piece in ring.pieces():  # shared by all readers, so that many need no more memory
            reader.offer(piece, force=True)
    ring.add_reader(reader)
    try:
        while True:
            yield await reader.read()
    finally:
        ring.discard_reader(reader)


class LogReader:
    """The unread bytes of one reader.

    Args:
        limit: Maximum number of unread bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size, self._dropped = limit, 0, 0
        self._chunks: deque[bytes] = deque()
        self._wake = anyio.Event()

    def offer(self, data: bytes, *, force: bool = False) -> None:
        """Keep *data* for the reader, or count it as lost; *force* ignores the limit."""
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

    async def read(self) -> bytes:
        """Wait for bytes and return at most 64 KiB of them, or one larger chunk."""
        while not self._chunks:
            if self._dropped:
                self._note_loss()
                break
            self._wake = anyio.Event()
            await self._wake.wait()
        chunks = [self._chunks.popleft()]
        size = len(chunks[0])
        while self._chunks and size + len(self._chunks[0]) <= _CHUNK_BYTES:
            chunks.append(self._chunks.popleft())
            size += len(chunks[-1])
        self._size -= size
        return b"".join(chunks)
