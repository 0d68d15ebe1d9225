"""Spool for the beginning of a body whose destination is not known yet: in memory, then on disk.

The file has no name, so it disappears with its descriptor, even after a crash.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO

from ...system import threads
from .errors import BodyTooLargeError

_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18


class Spool:
    """Bytes in order of arrival; the caller closes it.

    Args:
        limit_bytes: Maximum size in bytes.

    Attributes:
        size: Size in bytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Add *data*.

        Raises:
            BodyTooLargeError: The spool would exceed its limit.
            OSError: The disk is full.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLargeError(self._limit)
        self._memory += data
        if len(self._memory) > _MEMORY_BYTES:
            await threads.run(self._spill)

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="swapchart-form-")  # noqa: SIM115
        self._file.write(self._memory)
        self._memory.clear()

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from *start* up to *end* in chunks."""
        stored = self.size - len(self._memory)
        at = start
        while at < min(end, stored):
            piece = await threads.run(self._read, at, min(_PIECE_BYTES, min(end, stored) - at))
            at += len(piece)
            yield piece
        if end > max(at, stored):
            yield bytes(self._memory[max(at, stored) - stored : end - stored])

    def _read(self, at: int, count: int) -> bytes:
        assert self._file is not None, "the file exists once something was spilled"
        self._file.seek(at)
        return self._file.read(count)

    def close(self) -> None:
        """Free memory and disk space."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
