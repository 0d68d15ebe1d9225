"""Bytes that the peer of a connection has not acknowledged."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from contextlib import suppress


def count_undelivered(transport: asyncio.Transport) -> int:
    """Return the number of bytes that were written and not acknowledged, those in the kernel too.

    Only there does progress show: the kernel accepts more for a slow reader a megabyte at a time.
    """
    size = transport.get_write_buffer_size()
    with suppress(OSError, AttributeError):  # it is closed
        fd = transport.get_extra_info("socket").fileno()
        size += int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return size
