"""Read files ahead into the page cache, so that a program that starts soon finds them there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

#: The kernel reads no more of one request: `read_ahead_kb` of a disk is 128 by default.
_PIECE_BYTES = 128 << 10


def read_ahead(paths: Iterable[Path], most_bytes: int, is_wanted: Callable[[], bool]) -> int:
    """Ask the kernel to read *paths*, in this order; returns the bytes that were asked for.

    It blocks while the disk is busy, so it belongs into a thread. Files that cannot be read are
    skipped, and the rest is skipped where the system has no ``posix_fadvise``.

    Args:
        paths: The files.
        most_bytes: Maximum number of bytes.
        is_wanted: Asked before each piece; False ends it.
    """
    advise = getattr(os, "posix_fadvise", None)
    asked = 0
    for path in paths:
        with suppress(OSError):
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                size = os.fstat(number).st_size
                for offset in range(0, size, _PIECE_BYTES):
                    length = min(_PIECE_BYTES, size - offset)
                    if advise is None or asked + length > most_bytes or not is_wanted():
                        return asked
                    advise(number, offset, length, os.POSIX_FADV_WILLNEED)
                    asked += length
            finally:
                os.close(number)
    return asked
