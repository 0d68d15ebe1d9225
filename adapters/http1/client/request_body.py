"""Sends request bodies that are too large for one write with the headers, or are iterators.

Each is sent by a task of its own, so that a response that arrives early is read meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

_SLICE_BYTES = 1 << 18  # per write; the next one waits until the kernel has room


class BodyWriter(Protocol):
    """Connection that carries the body."""

    async def write(self, data: bytes | memoryview, /) -> None:
        """Send *data* and wait until the write buffer has room.

        Raises:
            OSError: The connection is closed.
        """

    def note_sent(self) -> None:
        """Note that the whole body was sent."""

    def fail(self, why: str, /) -> None:
        """End the exchange with an error for reason *why*."""

    def fail_with(self, error: BaseException, /) -> None:
        """End the exchange with *error*."""


async def send_slices(writer: BodyWriter, body: bytes) -> None:
    """Send *body* in slices of 256 KiB."""
    view = memoryview(body)
    try:
        for at in range(0, len(view), _SLICE_BYTES):
            await writer.write(view[at : at + _SLICE_BYTES])
    except OSError as exc:
        writer.fail(str(exc))
    else:
        writer.note_sent()


async def send_chunks(writer: BodyWriter, chunks: AsyncIterator[bytes], length: int | None) -> None:
    """Send a body that is given in parts.

    Args:
        writer: The connection.
        chunks: The parts; closed at the end if it is an asynchronous generator.
        length: Their total size in bytes; None sends them with chunked transfer coding.
    """
    # No `finally`: in compiled code a `finally` that awaits loses the exception.
    failure: BaseException | None = None
    try:
        await _send_each(writer, chunks, length)
    except BaseException as exc:  # noqa: BLE001 - re-raised below
        failure = exc
    if isinstance(chunks, AsyncGenerator):
        await chunks.aclose()  # it may be suspended, and its owner waits for the response
    if failure is not None:
        raise failure


async def _send_each(writer: BodyWriter, chunks: AsyncIterator[bytes], length: int | None) -> None:
    count = 0
    try:
        async for chunk in chunks:
            count += len(chunk)
            if length is not None and count > length:
                break
            if not chunk:
                continue
            if length is None:
                await writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            else:
                await writer.write(chunk)
        if length is None:
            await writer.write(b"0\r\n\r\n")
        elif count != length:
            writer.fail(f"the request body has {count} bytes or more, expected {length}")
            return
    except asyncio.CancelledError:
        raise
    except Exception as exc:  # noqa: BLE001 - the caller's own error, raised to it
        writer.fail_with(exc)
    else:
        writer.note_sent()
