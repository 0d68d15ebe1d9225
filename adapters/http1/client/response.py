"""Response of an upstream, as its reader sees it: the head, and chunks of the body as they come.

The parser fills a response in, the connection notifies its reader, and one task reads it. A
response is attached to its connection until its last byte arrived, an error occurred, or it was
closed; from then on it holds only what was not read yet.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, Self, cast

from ..undelivered import count_undelivered
from .errors import Stage, UpstreamBroken, UpstreamTimeout
from .retry import may_send_again


class ResponseListener(Protocol):
    """What is told that there is news of an answer; a future is one."""

    def done(self) -> bool:
        """Tell whether it wants to be told no longer."""

    def set_result(self, result: None, /) -> None:
        """There is news."""


class ResponseConnection(Protocol):
    """What a response needs of the connection that it arrives on."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    name: str  # of the upstream, for messages

    @property
    def is_full(self) -> bool:
        """True while the kernel takes no more."""

    async def wait_writable(self) -> None:
        """Wait until the kernel takes more, or the connection is gone."""

    def resume_reading(self) -> None:
        """Read on, after the reader has caught up."""

    def discard(self) -> None:
        """Close at once."""


class UpstreamResponse:
    """An answer whose head is here and whose body may still be coming.

    Use it as an async context manager, or call ``close``; it is read by one task at a time.

    Attributes:
        status: Status code, 101 or 200..599; interim answers (1xx) are dropped.
        reason: Reason phrase as it came; may be empty.
        headers: All fields of the head, as they came; shape (n, 2). Trailers are dropped.
        content_length: Length the body has by its head; bytes, or None when unknown. The
            answer to a HEAD request has it too, and an empty body all the same.
        upgraded: The upstream switched protocols: ``read`` gives raw bytes, ``write`` sends.
        bytes_received: Bytes of the body that have come so far.

    The parser and the connection also set:

    Attributes:
        chunks: Chunks of the body that were not read yet.
        buffered_bytes: Their size; the connection stops reading when it is too large.
        is_paused: The connection has stopped reading for that reason.
    """

    __slots__ = (
        "_conn",
        "_done",
        "_error",
        "_waiter",
        "buffered_bytes",
        "bytes_received",
        "chunks",
        "content_length",
        "headers",
        "is_paused",
        "reason",
        "status",
        "upgraded",
    )

    def __init__(self, conn: ResponseConnection) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.upgraded = False
        self.bytes_received = self.buffered_bytes = 0
        self.chunks: list[bytes] = []
        self.is_paused = False
        self._conn: ResponseConnection | None = conn
        self._done = False
        self._error: BaseException | None = None
        self._waiter: ResponseListener | None = None

    @property
    def at_end(self) -> bool:
        """Tell whether the whole body came and has been read."""
        return self._done and not self.chunks

    @property
    def is_complete(self) -> bool:
        """Tell whether the whole body came."""
        return self._done

    @property
    def may_send_again(self) -> bool:
        """True if the request of `Connection.begin` failed, and may go over another connection."""
        error = self._error
        return isinstance(error, UpstreamBroken) and may_send_again(
            error, is_reused=True, is_repeatable=False, retries=0
        )  # the pool hands out idle connections for it, and it is a POST

    def raise_if_failed(self) -> None:
        """Raise the error if the exchange failed before the head of a response arrived."""
        if not self.status and self._error is not None:
            raise self._error

    def set_listener(self, listener: ResponseListener | None) -> None:
        """Notify *listener* of the head of the response and of all that follows; None stops it."""
        self._waiter = listener

    def read_nowait(self) -> bytes | None:
        """Return what has come of the body: b"" at its clean end, None when nothing has yet.

        Raises:
            UpstreamBroken: The body was cut short; said after all that came of it was read.
        """
        chunks = self.chunks
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.buffered_bytes = 0
            if self.is_paused and self._conn is not None:
                self.is_paused = False
                self._conn.resume_reading()
            return data
        if self._error is not None:
            raise self._error
        return b"" if self._done else None

    async def read(self, *, timeout_s: float | None = None) -> bytes:
        """Wait for the next piece of the body, and return all of it that is here; b"" at the end.

        Args:
            timeout_s: Longest time without a byte, in seconds; None waits for ever.

        Raises:
            UpstreamBroken: The body was cut short; said after all that came of it was read.
            UpstreamTimeout: Nothing came in time; the connection is closed.
        """
        data = self.read_nowait()
        if data is None:
            await self.wait(timeout_s, "body")
            data = self.read_nowait()
        return cast("bytes", data)  # woken only when there is something to say

    def write(self, data: bytes) -> None:
        """Send raw bytes after an upgrade; dropped when the connection is gone.

        Raises:
            RuntimeError: The connection has not been upgraded.
        """
        if not self.upgraded:
            raise RuntimeError("write() is for upgraded connections")
        if self._conn is not None:
            self._conn.transport.write(data)

    async def drain(self) -> None:
        """Wait until the upstream takes more of what was written, or is gone."""
        if self._conn is not None:
            await self._conn.wait_writable()

    @property
    def is_full(self) -> bool:
        """True while an upgraded upstream does not keep up with what is written."""
        return self._conn is not None and self._conn.is_full

    @property
    def unsent(self) -> int:
        """Bytes that were written after an upgrade and are still in memory."""
        return 0 if self._conn is None else self._conn.transport.get_write_buffer_size()

    @property
    def undelivered(self) -> int:
        """Bytes that were written after an upgrade and that the upstream has not taken."""
        return 0 if self._conn is None else count_undelivered(self._conn.transport)

    def end_writing(self) -> None:
        """Say to an upgraded upstream that no more is sent; closes where that cannot be said."""
        conn = self._conn
        if conn is None or conn.transport.is_closing():
            return
        if conn.transport.can_write_eof():
            conn.transport.write_eof()
        else:
            self.close()

    def close(self) -> None:
        """Let go: a connection whose answer is not complete is closed at once. Idempotent."""
        conn = self._conn
        if conn is not None:
            self.finish(UpstreamBroken("body", "closed by us", self.bytes_received))
            conn.discard()
        self.chunks.clear()
        self.buffered_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # What follows is for the connection only.

    async def wait(self, timeout_s: float | None, stage: Stage) -> None:
        """Wait until there is news, for *timeout_s* seconds at most; None waits for ever.

        The error that ends the exchange at the timeout names *stage*.
        """
        conn = cast("ResponseConnection", self._conn)
        waiter = self._waiter = conn.loop.create_future()
        timer = None
        if timeout_s is not None:
            timer = conn.loop.call_later(timeout_s, self._expire, stage, timeout_s)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _expire(self, stage: Stage, timeout_s: float) -> None:
        conn, waiter = self._conn, self._waiter
        if conn is not None and waiter is not None and not waiter.done():
            what = "no answer" if stage == "head" else "no more of the answer"
            self.finish(UpstreamTimeout(stage, f"{what} from {conn.name} in {timeout_s} s"))
            conn.discard()

    def finish(self, error: BaseException | None = None) -> None:
        """Note the end, clean unless *error*, and part from the connection."""
        self._conn = None
        self._done = error is None
        self._error = error
        self.notify()

    def notify(self) -> None:
        """Notify the listener that there is news."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
