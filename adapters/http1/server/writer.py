"""Output of a connection: responses that wait for the end of the event loop's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..io_batch import WriteBatch

JOIN_BYTES = 1 << 16  # larger pieces are not copied to be sent together with their framing
_PENDING_BYTES = 1 << 16  # that wait for the end of the loop's turn, at most


class ConnectionWriter:
    """Writer to one client, a `BatchedWriter`.

    Attributes:
        stalled: Pending while the client does not take what was written; None while it does.
        transport: Of the connection; set when the connection is made.
    """

    __slots__ = ("_batch", "_loop", "_pending", "stalled", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: WriteBatch) -> None:
        self.transport: asyncio.Transport
        self.stalled: asyncio.Future[None] | None = None
        self._loop = loop
        self._batch = batch
        self._pending = b""

    def write(self, data: bytes) -> None:
        """Send *data* at the end of the loop's turn, or at once when much waits already."""
        if self._pending:
            self._pending += data
        else:
            self._pending = data
            self._batch.add(self._loop, self)
        if len(self._pending) > _PENDING_BYTES:
            self.send_pending()

    def write_chunk(self, head: bytes, body: bytes, more: bool) -> None:
        """Send *head* and *body* with the framing of a chunk; the last one unless *more* come."""
        end = b"" if more else b"0\r\n\r\n"
        if not body:
            if head or end:
                self.write(head + end)
        elif len(body) <= JOIN_BYTES:
            self.write(b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end))
        else:
            self.write_parts((b"%b%x\r\n" % (head, len(body)), body, b"\r\n" + end))

    def write_parts(self, parts: Iterable[bytes]) -> None:
        """Send *parts*, which are too large to be copied together, at once behind what waits."""
        self.send_pending()
        transport = self.transport
        if transport.is_closing():
            return
        if isinstance(self._loop, asyncio.BaseEventLoop):
            # Some 3.12 and 3.13 of the standard library never pause a protocol for writelines.
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)

    def send_pending(self) -> None:
        """Send what waits."""
        pending, self._pending = self._pending, b""
        if pending and not self.transport.is_closing():
            self.transport.write(pending)

    def discard(self) -> None:
        """Drop what waits."""
        self._pending = b""

    def write_failed(self) -> None:
        """Abort the connection after a write that failed."""
        self.transport.abort()

    def pause(self) -> None:
        """Make `wait_writable` wait."""
        if self.stalled is None:
            self.stalled = self._loop.create_future()

    def resume(self) -> None:
        """End all waiting in `wait_writable`."""
        stalled, self.stalled = self.stalled, None
        if stalled is not None and not stalled.done():
            stalled.set_result(None)

    async def wait_writable(self) -> None:
        """Wait until the client takes more, or is disconnected."""
        if self.stalled is not None:
            await asyncio.shield(self.stalled)
