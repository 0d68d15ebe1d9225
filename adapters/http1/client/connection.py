"""Connection to an upstream, and the exchange (request and response) on it.

A connection belongs to exactly one owner at any time, the pool or one exchange, and every change of
owner is synchronous. The response is read while the body of the request is still being sent.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from typing import Protocol, cast

from ..io_batch import ReadBatch, WriteBatch
from .errors import Stage, UpstreamBroken
from .request_body import send_chunks, send_slices
from .response import UpstreamResponse
from .response_parser import RepeatedHeads, ResponseParser
from .single_chunk import payload_of

_JOIN_BYTES = 1 << 16  # largest body that is sent in one write with the headers
_HIGH_BYTES = 1 << 18  # reading stops while more bytes of a response are unread


class ConnectionOwner(Protocol):
    """Pool that a connection belongs to, as far as the connection uses it.

    Attributes: see `ConnectionPool`.
    """

    name: str
    read_batch: ReadBatch
    write_batch: WriteBatch
    repeated_heads: RepeatedHeads
    max_header_bytes: int
    is_closed: bool
    is_secure: bool

    def note_connected(self, conn: Connection) -> None:
        """Note that *conn* has a socket."""

    def note_closing(self, conn: Connection) -> None:
        """Note that *conn* is unusable from now on, and counts toward no limit."""

    def note_closed(self, conn: Connection) -> None:
        """Note that the socket of *conn* is closed."""

    def put_back(self, conn: Connection) -> None:
        """Take *conn* back after an exchange that ended cleanly."""


class Connection(asyncio.Protocol):
    """One TCP or TLS connection, idle or with one exchange.

    Attributes:
        pool: The owner.
        name: ``host:port`` of the upstream, for error messages.
        loop: Event loop.
        transport: Transport; absent until the connection is made.
        idle_since: Start of the idle period, in seconds of the loop's clock.
        is_closed: The connection is closed or being closed.
        is_read_pending: Data that it has received is in a batch.
        is_behind_stream: Its last response was an event stream, after which the upstream may close.
    """

    __slots__ = (
        "_batched",
        "_close_reason",
        "_is_aborted",
        "_is_connected",
        "_is_sent",
        "_parser",
        "_poll",
        "_sender",
        "_writable",
        "idle_since",
        "is_behind_stream",
        "is_closed",
        "is_read_pending",
        "loop",
        "name",
        "pool",
        "transport",
    )

    def __init__(self, pool: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.name = pool.name
        self.loop = loop
        self.transport: asyncio.Transport
        self.idle_since = 0.0
        self.is_closed = self.is_read_pending = self.is_behind_stream = False
        self._is_connected = False
        self._is_aborted = False  # by the pool, together with its request
        self._close_reason = "closed"
        self._parser = ResponseParser(
            pool.max_header_bytes, pool.repeated_heads, keeps_events=pool.is_secure
        )
        self._poll: select.poll
        self._sender: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._batched = b""  # request that is sent at the end of the loop iteration
        self._is_sent = True

    # -- an exchange ------------------------------------------------------------------

    async def exchange(
        self,
        head: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        is_head: bool,
        length: int | None,
        header_timeout_s: float | None,
    ) -> UpstreamResponse:
        """Send a request and wait for the headers of its response.

        Args:
            head: Request line and headers, with the empty line.
            body: The whole body, an iterator over its chunks, or None.
            is_head: The method is HEAD, so the response has no body whatever its headers say.
            length: Size in bytes of a body from an iterator; None sends it with chunked coding.
            header_timeout_s: Longest wait in seconds; None means unlimited.

        Raises:
            UpstreamBroken: The connection or the response was unusable.
            UpstreamTimeout: No headers arrived in time.
        """
        if self.is_closed:  # right after connecting, so that no further event reports it
            text = f"{self.name}: {self._close_reason}, before anything was sent"
            raise UpstreamBroken("send", text, is_unsent=True, is_local=self._is_aborted)
        response = self._prepare(head, is_head=is_head)
        try:
            if body is None:
                self.transport.write(head)
            elif isinstance(body, bytes):
                self._send_bytes(head, body)
            else:
                self._is_sent = False
                self.transport.write(head)
                self._sender = self.loop.create_task(send_chunks(self, body, length))
            await response.wait(header_timeout_s, "head")
            if not response.status:
                response.raise_if_failed()
        except BaseException:  # usually cancellation
            response.close()
            raise
        return response

    def begin(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Send a POST request and return its response, which has yet to arrive.

        Follow it with `UpstreamResponse.set_listener`.
        """
        response = self._prepare(head, is_head=False)
        self._send_bytes(head, body)
        return response

    def _prepare(self, head: bytes, *, is_head: bool) -> UpstreamResponse:
        response = UpstreamResponse(self)
        self._parser.start(response, head, is_head=is_head)
        return response

    def _send_bytes(self, head: bytes, body: bytes) -> None:
        if len(body) <= _JOIN_BYTES:
            self._batched = head + body
            self.pool.write_batch.add(self.loop, self)
            return
        self._is_sent = False
        self.transport.write(head)
        self._sender = self.loop.create_task(send_slices(self, body))

    def send_pending(self) -> None:
        """Send the request that was batched until the end of the loop iteration."""
        if self._batched and not self.transport.is_closing():  # else `connection_lost` follows
            request, self._batched = self._batched, b""
            self.transport.write(request)

    async def write(self, data: bytes | memoryview) -> None:
        """Send part of a body and wait until the write buffer has room.

        Raises:
            ConnectionResetError: The connection is closed.
        """
        # An upstream may respond early and close, which resets later writes. An event loop that
        # sees the reset while writing never reads the response, so read first.
        while not self.is_closed and self._poll.poll(0):
            response = self._parser.response
            if response is not None and response.is_paused:
                break
            await asyncio.sleep(0)
        if self.is_closed:
            raise ConnectionResetError("the connection was closed while the body was sent")
        self.transport.write(data)
        await self.wait_writable()

    def note_sent(self) -> None:
        """Note that the whole body was sent."""
        self._is_sent = True
        self._sender = None

    async def wait_writable(self) -> None:
        """Wait until the write buffer has room or the connection is closed."""
        if self._writable is not None and not self.is_closed:
            await asyncio.shield(self._writable)

    @property
    def is_full(self) -> bool:
        """True while the write buffer is above its high-water mark."""
        return self._writable is not None

    # -- called by the transport ------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; close it if the caller was cancelled while connecting."""
        self.transport = cast("asyncio.Transport", transport)
        if self.is_closed:
            self.transport.abort()
            return
        self._is_connected = True
        self.pool.note_connected(self)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange, if there is one."""
        if self.is_read_pending:
            self.pool.read_batch.flush()
        if not self.is_closed:
            self.fail("reset" if exc is not None else "closed")
        self.pool.note_closed(self)
        self._resume_writers()

    def eof_received(self) -> None:
        """Complete a body that ends with the connection; any other exchange fails."""
        if self.is_read_pending:
            self.pool.read_batch.flush()
        response = self._parser.response
        if response is None:
            self.discard()
        elif self._parser.is_complete_at_eof:
            response.finish()
            self.discard()
        else:
            self.fail("closed")

    def pause_writing(self) -> None:
        """Make writers wait: the write buffer is above its high-water mark."""
        if self._writable is None:
            self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """Let writers continue."""
        self._resume_writers()

    def _resume_writers(self) -> None:
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take *data*, with that of the pool's other connections unless it is one chunk."""
        parser = self._parser
        if parser.is_between_chunks and not self.is_read_pending:
            response = parser.response
            take_chunk = None if response is None else response.take_chunk
            if response is not None and take_chunk is not None and not response.chunks:
                payload = payload_of(data)
                if payload is not None and take_chunk(payload, data):
                    response.bytes_received += len(payload)
                    return
        batch = self.pool.read_batch
        if self.is_read_pending:
            batch.flush()
        if self._batched:  # it must not be taken for the response to a request that is not sent yet
            self.take_read(data)
        else:
            self.is_read_pending = batch.add(self.loop, self, data)

    def take_read(self, data: bytes) -> None:
        """Parse *data*."""
        self.is_read_pending = False
        parser = self._parser
        response = parser.response
        if response is None:  # bytes without a request
            self.discard()
            return
        if self._batched:  # bytes before the request
            self.fail("it sent a response before the request was sent")
            return
        problem = parser.feed(data)
        if problem is not None:
            self.fail(problem)

    def act_on_read(self) -> None:
        """Notify the reader once, and stop reading while it is too slow."""
        parser = self._parser
        response = parser.response
        if response is None:  # the exchange has failed
            return
        if parser.is_complete:
            self._release(response)
            return
        if parser.has_progress:
            parser.has_progress = False
            response.notify()
        if response.buffered_bytes > _HIGH_BYTES and not response.is_paused:
            response.is_paused = True
            self.transport.pause_reading()

    # -- the end of an exchange -----------------------------------------------------------

    def resume_reading(self) -> None:
        """Read from the socket again, after the reader has caught up."""
        if not self.is_closed:
            self.transport.resume_reading()

    def is_usable(self) -> bool:
        """Return True if an idle connection is open and has received nothing."""
        is_closed = self.is_closed or self.transport.is_closing()
        return not (is_closed or self.is_read_pending or self._poll.poll(0))

    def discard(self) -> None:
        """Close at once, and leave the pool. Idempotent; the exchange is not notified."""
        if self.is_closed:
            return
        self.is_closed = True
        self._parser.close()
        self._batched = b""
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        self.pool.note_closing(self)
        self._resume_writers()
        if self._is_connected:
            self.transport.abort()

    def _release(self, response: UpstreamResponse) -> None:
        parser = self._parser
        parser.response = None
        response.finish()  # the listener may close this connection
        is_reusable = parser.may_keep and self._is_sent
        if not is_reusable or parser.has_surplus or self.is_closed or self.pool.is_closed:
            self.discard()
            return
        if response.is_paused:
            self.resume_reading()
        self.is_behind_stream = not parser.can_keep
        self.pool.put_back(self)

    def abort(self, why: str) -> None:
        """End the exchange for reason *why* and close at once; the request is not retried."""
        self._is_aborted = True
        self._batched = b""
        self.fail(why)

    def write_failed(self) -> None:
        """End the exchange: the request could not be sent."""
        self.abort("the request could not be sent")

    def fail(self, why: str) -> None:
        """End the exchange, if there is one, for reason *why*; close at once."""
        self._close_reason = why
        response = self._parser.response
        stage: Stage = "head" if self._is_sent and not self._batched else "send"
        received = 0
        if response is not None and response.status:
            stage, received = "body", response.bytes_received
        error = UpstreamBroken(
            stage,
            f"{self.name}: {why}",
            received,
            is_unsent=bool(self._batched),
            is_unanswered=self._parser.is_unanswered,
            is_local=self._is_aborted,
        )
        self.fail_with(error)

    def fail_with(self, error: BaseException) -> None:
        """End the exchange, if there is one, with *error*; close at once."""
        response = self._parser.response
        if response is not None:
            response.finish(error)
        self.discard()
