"""Output of a process while it starts, for servers that print how much memory they take.

Only the first 4 MiB are read, and nothing once the service is ready: no user can write there until
then. Reading keeps no bytes and never delays the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .log_reader import LogReader

_MOST_BYTES = 4 << 20


class SizeReader(Protocol):
    """Finds sizes of memory in the output of one start."""

    def feed(self, data: bytes) -> None:
        """Read the next bytes; never raises, never waits."""
        ...

    def amounts(self) -> Mapping[str, int]:
        """Return the bytes by device, main memory as ``RAM``; empty if nothing is known."""
        ...


class StartOutput(LogReader):
    """Reader of a log that passes the first bytes on.

    Args:
        sizes: Gets the bytes.
        limit: Maximum number of bytes that it gets.

    Attributes:
        sizes: Gets the bytes.
    """

    def __init__(self, sizes: SizeReader, limit: int = _MOST_BYTES) -> None:
        super().__init__(0)
        self.sizes, self._left = sizes, limit

    def offer(self, data: bytes, *, force: bool = False) -> None:
        """Pass *data* on until the limit is reached."""
        del force  # there is no queue that it could exceed
        if self._left > 0:
            self.sizes.feed(data[: self._left])
            self._left -= len(data)
