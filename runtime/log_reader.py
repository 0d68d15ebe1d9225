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

    def section(self, number: int) -> list[bytes] | None:
        """Return what is kept of a section, in pieces; None if no such section is known."""
        ...

    def is_open(self, number: int) -> bool:
        """Return True if section *number* is the last one, so that more may come."""
        ...

    def add_reader(self, reader: LogReader) -> None:
        """Attach *reader*: it gets every later write."""
        ...

    def discard_reader(self, reader: LogReader) -> None:
        """Detach *reader*; a no-op if it is not attached."""
        ...


async def follow(
    ring: LogSource, *, history: bool, section: int | None, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes that *ring* keeps (if *history*), then later ones; see `LogRing.stream`."""
    reader = LogReader(limit_bytes, has_end=section is not None)
    if history:
        kept = ring.pieces() if section is None else ring.section(section)
        for piece in kept or ():  # shared by all readers, so that many need no more memory
            reader.offer(piece, force=True)
    if section is not None and not ring.is_open(section):
        reader.end_section()
    ring.add_reader(reader)
    try:
        while await reader.wait():
            yield reader.take()  # not held here while the caller handles it
    finally:
        ring.discard_reader(reader)


class LogReader:
    """The unread bytes of one reader.

    Args:
        limit: Maximum number of unread bytes.
        has_end: It gets nothing after the end of the section in which it begins.
    """

    def __init__(self, limit: int, *, has_end: bool = False) -> None:
        self._limit, self._size, self._dropped = limit, 0, 0
        self._has_end, self._has_ended = has_end, False
        self._chunks: deque[bytes] = deque()
        self._wake = anyio.Event()

    def offer(self, data: bytes, *, force: bool = False) -> None:
        """Keep *data* for the reader, or count it as lost; *force* ignores the limit."""
        if not data or self._has_ended:
            return
        if self._size + len(data) > self._limit and not force:
            self._dropped += len(data)
            return
        if self._dropped:
            self._note_loss()
        self._chunks.append(data)
        self._size += len(data)
        self._wake.set()

    def end_section(self) -> None:
        """Take nothing more, if the reader has an end."""
        if self._has_end:
            self._has_ended = True
            self._wake.set()

    def _note_loss(self) -> None:
        note = f"\n[{self._dropped} bytes dropped]\n".encode()
        self._dropped = 0
        self._chunks.append(note)
        self._size += len(note)
        self._wake.set()

    async def wait(self) -> bool:
        """Wait for bytes; return False if none will come any more."""
        while not self._chunks:
            if self._dropped:
                self._note_loss()
            elif self._has_ended:
                return False
            else:
                self._wake = anyio.Event()
                await self._wake.wait()
        return True

    def take(self) -> bytes:
        """Return at most 64 KiB of the unread bytes, or one larger chunk; there must be some."""
        chunks = [self._chunks.popleft()]
        size = len(chunks[0])
        while self._chunks and size + len(self._chunks[0]) <= _CHUNK_BYTES:
            chunks.append(self._chunks.popleft())
            size += len(chunks[-1])
        self._size -= size
        return b"".join(chunks)
