"""Response of an upstream: status, headers, and the chunks of the body as they arrive.

The parser fills a response in, the connection notifies its reader, and one task reads it. A
response is attached to its connection until its last byte arrives, it fails, or it is closed. Then
it holds only the chunks that were not read yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, Self, cast

from ..half_close import half_close
from ..repeated_head import RepeatedHead
from ..undelivered import count_undelivered
from .errors import Stage, UpstreamBroken, UpstreamTimeout
from .retry import may_send_again


class ResponseListener(Protocol):
    """Receiver of notifications that a response has progressed; a future is one."""

    def done(self) -> bool:
        """Return True if no further notification is wanted."""

    def set_result(self, result: None, /) -> None:
        """Handle the arrival of headers or body bytes, the end of the response, or an error."""


class ResponseConnection(Protocol):
    """Connection that a response arrives on, as far as the response uses it.

    Attributes:
        loop: Event loop of the connection.
        transport: Transport of the connection.
        name: ``host:port`` of the upstream, for error messages.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    name: str

    @property
    def is_full(self) -> bool:
        """True while the write buffer is above its high-water mark."""

    async def wait_writable(self) -> None:
        """Wait until the write buffer has room or the connection is closed."""

    def resume_reading(self) -> None:
        """Read from the socket again, after the reader has caught up."""

    def discard(self) -> None:
        """Close the connection at once."""


class UpstreamResponse:
    """A response whose headers have arrived and whose body may still be arriving.

    Use it as an async context manager, or call ``close``. One task at a time may read it.

    Attributes:
        status: Status code, 101 or 200..599; 0 until the headers arrive. Interim responses (1xx)
            are dropped.
        reason: Reason phrase as received; may be empty.
        headers: Header fields as received; shape (n, 2). Trailers are dropped.
        content_length: Length of the body in bytes as its header gives it, None if there is no
            such header. A response to HEAD may have one although its body is empty.
        upgraded: The upstream switched protocols: ``read`` returns raw bytes, ``write`` sends them.
        bytes_received: Bytes of the body that have arrived so far.
        chunks: Chunks of the body that were not read yet; filled by the parser.
        take_chunk: Called with the payload and the bytes of a chunk that arrives alone; True means
            that it was taken, and does not go to `chunks`. None while all go there.
        buffered_bytes: Total size of `chunks`. The connection stops reading above a limit.
        is_paused: The connection has stopped reading from the socket for that reason.
        repeated_head: Head that it has in common with earlier responses; None if it has none.
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
        "repeated_head",
        "status",
        "take_chunk",
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
        self.take_chunk: Callable[[bytes, bytes], bool] | None = None
        self.is_paused = False
        self.repeated_head: RepeatedHead | None = None
        self._conn: ResponseConnection | None = conn
        self._done = False
        self._error: BaseException | None = None
        self._waiter: ResponseListener | None = None

    @property
    def at_end(self) -> bool:
        """True if the whole body has arrived and was read."""
        return self._done and not self.chunks

    @property
    def is_complete(self) -> bool:
        """True if the whole body has arrived."""
        return self._done

    @property
    def is_over(self) -> bool:
        """True if no more of the body arrives: it is complete, or the exchange has failed."""
        return self._done or self._error is not None

    @property
    def may_send_again(self) -> bool:
        """True if the request of `Connection.begin` failed and may use another connection."""
        error = self._error
        return isinstance(error, UpstreamBroken) and may_send_again(
            error, is_reused=True, is_repeatable=False, retries=0
        )  # `begin` uses idle connections only, and its request is a POST

    def raise_if_failed(self) -> None:
        """Raise the error if the exchange failed before the head of a response arrived."""
        if not self.status and self._error is not None:
            raise self._error

    def set_listener(self, listener: ResponseListener | None) -> None:
        """Notify *listener* when the headers arrive and of all progress after that.

        None ends the notifications.
        """
        self._waiter = listener

    def read_nowait(self) -> bytes | None:
        """Return the unread part of the body: b"" at its end, None if nothing has arrived yet.

        Raises:
            UpstreamBroken: The body is incomplete; raised after the part that arrived was read.
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
        """Wait until part of the body is unread, and return all of that; b"" at the end.

        Args:
            timeout_s: Longest time without a byte, in seconds; None means unlimited.

        Raises:
            UpstreamBroken: The body is incomplete; raised after the part that arrived was read.
            UpstreamTimeout: No byte arrived in time; the connection is closed.
        """
        data = self.read_nowait()
        if data is None:
            await self.wait(timeout_s, "body")
            data = self.read_nowait()
        return cast("bytes", data)  # notified, so it cannot be None

    def write(self, data: bytes) -> None:
        """Send raw bytes after an upgrade; they are dropped if the connection is closed.

        Raises:
            RuntimeError: The connection has not been upgraded.
        """
        if not self.upgraded:
            raise RuntimeError("write() is for upgraded connections")
        if self._conn is not None:
            self._conn.transport.write(data)

    async def drain(self) -> None:
        """Wait until the write buffer has room or the connection is closed."""
        if self._conn is not None:
            await self._conn.wait_writable()

    @property
    def is_full(self) -> bool:
        """True while an upgraded upstream reads more slowly than the proxy writes."""
        return self._conn is not None and self._conn.is_full

    @property
    def unsent(self) -> int:
        """Bytes written after an upgrade that are still in the write buffer."""
        return 0 if self._conn is None else self._conn.transport.get_write_buffer_size()

    @property
    def undelivered(self) -> int:
        """Bytes written after an upgrade that the upstream has not acknowledged."""
        return 0 if self._conn is None else count_undelivered(self._conn.transport)

    def end_writing(self) -> None:
        """Half-close an upgraded connection; close it where the transport cannot (TLS)."""
        conn = self._conn
        if conn is None or conn.transport.is_closing():
            return
        if not half_close(conn.transport):
            self.close()

    def close(self) -> None:
        """Stop reading; the connection is closed at once if the response is incomplete.

        Idempotent.
        """
        conn = self._conn
        if conn is not None:
            self.finish(UpstreamBroken("body", "closed by the proxy", self.bytes_received))
            conn.discard()
        self.chunks.clear()
        self.buffered_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # -- called by the parser and the connection --------------------------------------------

    def add(self, data: bytes) -> None:
        """Add a chunk of the body, which has arrived."""
        size = len(data)
        self.chunks.append(data)
        self.buffered_bytes += size
        self.bytes_received += size

    async def wait(self, timeout_s: float | None, stage: Stage) -> None:
        """Wait for the next notification.

        Args:
            timeout_s: Longest wait in seconds; None means unlimited. Then the exchange fails.
            stage: Stage of the exchange for the error at the timeout.
        """
        conn = cast("ResponseConnection", self._conn)
        waiter = self._waiter = conn.loop.create_future()
        timer = None
        if timeout_s is not None:
            timer = conn.loop.call_later(timeout_s, self.expire, stage, timeout_s)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def expire(self, stage: Stage, timeout_s: float) -> None:
        """End the exchange, whose next byte has not arrived within *timeout_s* seconds."""
        conn, waiter = self._conn, self._waiter
        if conn is not None and waiter is not None and not waiter.done():
            what = "no response" if stage == "head" else "no more of the response"
            self.finish(UpstreamTimeout(stage, f"{what} from {conn.name} in {timeout_s} s"))
            conn.discard()

    def finish(self, error: BaseException | None = None) -> None:
        """End the response, cleanly unless there is an *error*, and detach it."""
        self._conn = None
        self._done = error is None
        self._error = error
        self.notify()

    def notify(self) -> None:
        """Notify the listener of progress."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
