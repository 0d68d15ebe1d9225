"""Bodies of requests that do not travel in one write with the head: large ones, and iterators.

They are sent in a task of their own, so that a response that comes early is read meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

_SLICE_BYTES = 1 << 18  # bodies are written in such pieces, each waiting for the last


class BodyWriter(Protocol):
    """What sends the pieces, and is told how it ended."""

    async def write(self, data: bytes | memoryview, /) -> None:
        """Send *data*, and wait until the kernel has taken most of it.

        Raises:
            OSError: The connection is gone.
        """

    def note_sent(self) -> None:
        """The whole body was sent."""

    def fail(self, why: str, /) -> None:
        """The exchange fails for reason *why*."""

    def fail_with(self, error: BaseException, /) -> None:
        """The exchange fails with *error*."""


async def send_slices(writer: BodyWriter, body: bytes) -> None:
    """Send *body*, slice by slice."""
    view = memoryview(body)
    try:
        for at in range(0, len(view), _SLICE_BYTES):
            await writer.write(view[at : at + _SLICE_BYTES])
    except OSError as exc:
        writer.fail(str(exc))
    else:
        writer.note_sent()


async def send_pieces(writer: BodyWriter, pieces: AsyncIterator[bytes], length: int | None) -> None:
    """Send what *pieces* give: *length* bytes in all, or chunked if that is None."""
    # No `finally`: one that awaits leaves the exception behind in compiled code.
    failure: BaseException | None = None
    try:
        await _send_each(writer, pieces, length)
    except BaseException as exc:  # noqa: BLE001 - raised again below
        failure = exc
    if isinstance(pieces, AsyncGenerator):
        await pieces.aclose()  # it may be in the middle, and its owner waits for an answer
    if failure is not None:
        raise failure


async def _send_each(writer: BodyWriter, pieces: AsyncIterator[bytes], length: int | None) -> None:
    count = 0
    try:
        async for piece in pieces:
            count += len(piece)
            if length is not None and count > length:
                break
            if not piece:
                continue
            if length is None:
                await writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                await writer.write(piece)
        if length is None:
            await writer.write(b"0\r\n\r\n")
        elif count != length:
            writer.fail(f"the body has {count} bytes or more where {length} were announced")
            return
    except asyncio.CancelledError:
        raise
    except Exception as exc:  # noqa: BLE001 - the caller's own error, handed back to it
        writer.fail_with(exc)
    else:
        writer.note_sent()
