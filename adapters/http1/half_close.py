"""Half-close of a connection whose peer may have reset it."""

from __future__ import annotations

import asyncio
from contextlib import suppress


def half_close(transport: asyncio.WriteTransport) -> bool:
    """End this side of a connection behind what was written; the peer may go on sending.

    Returns:
        False if *transport* is closing, or cannot do this (TLS); close it instead.
    """
    if transport.is_closing() or not transport.can_write_eof():
        return False
    # The kernel learns of a reset before the event loop does, and asyncio raises what shutdown(2)
    # then says. What the peer had sent is read first, and behind it the loop finds the reset.
    with suppress(OSError):
        transport.write_eof()
    return True
