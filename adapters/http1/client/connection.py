"""One connection to an upstream and the exchange on it; ``upstream`` keeps a pool of these.

A connection belongs to exactly one owner at any time, the pool or one exchange, and every
change of owner is synchronous. Answers are read while the request's body is still being sent.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from typing import Protocol, cast

from ..write_batch import WriteBatch
from .errors import Stage, UpstreamBroken
from .request_body import send_pieces, send_slices
from .response import UpstreamResponse
from .response_parser import ResponseParser

_JOIN_BYTES = 1 << 16  # bodies up to here travel in one write with the head
_HIGH_BYTES = 1 << 18  # buffered answer above which the upstream is paused


class Owner(Protocol):
    """What a connection asks of the pool it belongs to."""

    name: str
    outbox: WriteBatch
    max_header_bytes: int
    is_closed: bool
    is_secure: bool

    def note_made(self, conn: Connection) -> None:
        """The connection has a socket now."""

    def note_closing(self, conn: Connection) -> None:
        """The connection must not be given to anybody any more; its place is free."""

    def note_lost(self, conn: Connection) -> None:
        """The socket is closed."""

    def put_back(self, conn: Connection) -> None:
        """The exchange ended cleanly, and the connection can carry another one."""


class Connection(asyncio.Protocol):
    """One TCP connection, its parser, and the exchange that owns it (or none: it is idle)."""

    __slots__ = (
        "_held",
        "_is_cut",
        "_is_made",
        "_is_sent",
        "_parser",
        "_poll",
        "_sender",
        "_why",
        "_writable",
        "idle_since",
        "is_closed",
        "loop",
        "name",
        "pool",
        "transport",
    )

    def __init__(self, pool: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.name = pool.name
        self.loop = loop
        self.transport: asyncio.Transport  # not there while connecting
        self._is_made = False
        self.idle_since = 0.0  # loop time in seconds
        self.is_closed = False
        self._is_cut = False  # by us, and its request with it
        self._why = "closed"  # by whom or what for, once it is
        self._parser = ResponseParser(pool.max_header_bytes, keeps_events=pool.is_secure)
        self._poll: select.poll
        self._sender: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._held = b""  # of the request, until the end of the loop's turn
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
        """Send a request and wait for the head of its answer.

        Args:
            head: Request line and fields, with the empty line.
            body: The whole body, its pieces, or None.
            is_head: The method is HEAD: the answer has no body, whatever its fields say.
            length: Number of bytes that an iterator is to give; None sends it chunked.
            header_timeout_s: Longest wait in seconds; None waits for ever.
        """
        if self.is_closed:  # so soon after it was made: its end is not told a second time
            text = f"{self.name}: {self._why}, before anything was sent"
            raise UpstreamBroken("send", text, is_unsent=True, is_local=self._is_cut)
        response = self._prepare(head, is_head=is_head)
        try:
            if body is None:
                self.transport.write(head)
            elif isinstance(body, bytes):
                self._send_bytes(head, body)
            else:
                self._is_sent = False
                self.transport.write(head)
                self._sender = self.loop.create_task(send_pieces(self, body, length))
            await response.wait(header_timeout_s, "head")
            if not response.status:
                response.raise_if_failed()
        except BaseException:  # cancelled, above all
            response.close()
            raise
        return response

    def begin(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Send a request; its answer is still to come: see `UpstreamResponse.set_listener`."""
        response = self._prepare(head, is_head=False)
        self._send_bytes(head, body)
        return response

    def _prepare(self, head: bytes, *, is_head: bool) -> UpstreamResponse:
        response = UpstreamResponse(self)
        self._parser.start(response, head, is_head=is_head)
        return response

    def _send_bytes(self, head: bytes, body: bytes) -> None:
        if len(body) <= _JOIN_BYTES:
            self._held = head + body
            self.pool.outbox.add(self.loop, self)
            return
        self._is_sent = False
        self.transport.write(head)
        self._sender = self.loop.create_task(send_slices(self, body))

    def send_held(self) -> None:
        """Send a request that was held until the end of the loop's turn."""
        if self._held and not self.transport.is_closing():  # else its loss is told in a moment
            held, self._held = self._held, b""
            self.transport.write(held)

    async def write(self, data: bytes | memoryview) -> None:
        """Send a piece of a body, and wait until the kernel takes more."""
        # A peer that answers early and closes resets what we write afterwards, and an event
        # loop that meets the reset while writing never reads the answer: so read first.
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
        """The whole body was sent."""
        self._is_sent = True
        self._sender = None

    async def wait_writable(self) -> None:
        """Wait until the kernel takes more, or the connection is gone."""
        if self._writable is not None and not self.is_closed:
            await asyncio.shield(self._writable)

    @property
    def is_full(self) -> bool:
        """True while the kernel takes no more."""
        return self._writable is not None

    # -- what the transport says --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, unless whoever asked for it has left meanwhile."""
        self.transport = cast("asyncio.Transport", transport)
        if self.is_closed:
            self.transport.abort()
            return
        self._is_made = True
        self.pool.note_made(self)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever was going on."""
        if not self.is_closed:
            self.fail("reset" if exc is not None else "closed")
        self.pool.note_lost(self)
        self._resume_writers()

    def eof_received(self) -> None:
        """Take the end for that of a body without a length; anything else was cut short."""
        response = self._parser.response
        if response is None:
            self.discard()
        elif self._parser.is_complete_at_eof:
            response.finish()
            self.discard()
        else:
            self.fail("closed")

    def pause_writing(self) -> None:
        """Make writers wait."""
        if self._writable is None:
            self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._resume_writers()

    def _resume_writers(self) -> None:
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse *data*, wake the reader once, and stop reading when it does not keep up."""
        parser = self._parser
        response = parser.response
        if response is None:  # an idle upstream has nothing to say
            self.discard()
            return
        if self._held:  # nor has one that was not asked yet
            self.fail("it answered before it was asked")
            return
        problem = parser.feed(data)
        if problem is not None:
            self.fail(problem)
            return
        if parser.is_complete:
            self._release(response)
            return
        if parser.has_news:
            parser.has_news = False
            response.notify()
        if response.buffered_bytes > _HIGH_BYTES and not response.is_paused:
            response.is_paused = True
            self.transport.pause_reading()

    # -- the end of an exchange -----------------------------------------------------------

    def resume_reading(self) -> None:
        """Read on, after the reader has caught up."""
        if not self.is_closed:
            self.transport.resume_reading()

    def is_usable(self) -> bool:
        """Tell whether an idle connection has neither ended nor something to say."""
        return not (self.is_closed or self.transport.is_closing() or self._poll.poll(0))

    def discard(self) -> None:
        """Close at once, whatever is going on, and free the place in the pool. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self._parser.response = None
        self._held = b""
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        self.pool.note_closing(self)
        self._resume_writers()
        if self._is_made:
            self.transport.abort()

    def _release(self, response: UpstreamResponse) -> None:
        parser = self._parser
        parser.response = None
        response.finish()  # whoever is told may have closed this
        is_reusable = parser.can_keep and self._is_sent
        if not is_reusable or parser.has_surplus or self.is_closed or self.pool.is_closed:
            self.discard()
            return
        if response.is_paused:
            self.resume_reading()
        self.pool.put_back(self)

    def end(self, why: str) -> None:
        """Close at once, and tell whoever reads *why*; what was asked is asked nowhere else."""
        self._is_cut = True
        self._held = b""
        self.fail(why)

    def give_up(self) -> None:
        """End a request that cannot be sent."""
        self.end("it could not be sent")

    def fail(self, why: str) -> None:
        """End the exchange, if there is one, for reason *why*, and close at once."""
        self._why = why
        response = self._parser.response
        stage: Stage = "head" if self._is_sent and not self._held else "send"
        received = 0
        if response is not None and response.status:
            stage, received = "body", response.bytes_received
        error = UpstreamBroken(
            stage,
            f"{self.name}: {why}",
            received,
            is_unsent=bool(self._held),
            is_unanswered=self._parser.is_unanswered,
            is_local=self._is_cut,
        )
        self.fail_with(error)

    def fail_with(self, error: BaseException) -> None:
        """End the exchange, if there is one, with *error*, and close at once."""
        response = self._parser.response
        if response is not None:
            response.finish(error)
        self.discard()
