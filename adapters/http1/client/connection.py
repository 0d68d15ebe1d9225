"""One connection to an upstream and the exchange on it; ``upstream`` keeps a pool of these.

A connection belongs to exactly one owner at any time, the pool or one exchange, and every
change of owner is synchronous. Answers are read while the request's body is still being sent.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol, Self, cast

import httptools

from ..undelivered import count_undelivered
from ..write_batch import WriteBatch
from .errors import Stage, UpstreamBroken, UpstreamTimeout
from .retry import may_send_again

_JOIN_BYTES = 1 << 16  # bodies up to here travel in one write with the head
_SLICE_BYTES = 1 << 18  # larger ones are written in such pieces, each waiting for the last
_HIGH_BYTES = 1 << 18  # buffered answer above which the upstream is paused
_INTERIM_MAX = 16  # 1xx answers before one that counts; a flood of them is an attack


class ResponseListener(Protocol):
    """What is told that there is news of an answer; a future is one."""

    def done(self) -> bool:
        """Tell whether it wants to be told no longer."""

    def set_result(self, result: None, /) -> None:
        """There is news."""


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
    """

    __slots__ = (
        "_conn",
        "_done",
        "_error",
        "_is_head",
        "_pieces",
        "_size",
        "_waiter",
        "bytes_received",
        "content_length",
        "headers",
        "reason",
        "status",
        "upgraded",
    )

    def __init__(self, conn: Connection, *, is_head: bool) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.upgraded = False
        self.bytes_received = 0
        self._conn: Connection | None = conn
        self._is_head = is_head
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = False
        self._error: BaseException | None = None
        self._waiter: ResponseListener | None = None

    @property
    def at_end(self) -> bool:
        """Tell whether the whole body came and has been read."""
        return self._done and not self._pieces

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
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._size = 0
            if self._conn is not None and self._conn.is_paused:
                self._conn.resume()
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
            await self._wait(timeout_s, "body")
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
            self._finish(UpstreamBroken("body", "closed by us", self.bytes_received))
            conn.discard()
        self._pieces.clear()
        self._size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # What follows is for the connection only.

    async def _wait(self, timeout_s: float | None, stage: Stage) -> None:
        conn = cast("Connection", self._conn)
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
            self._finish(UpstreamTimeout(stage, f"{what} from {conn.pool.name} in {timeout_s} s"))
            conn.discard()

    def _finish(self, error: BaseException | None = None) -> None:
        """Note the end, clean unless *error*, and part from the connection."""
        self._conn = None
        self._done = error is None
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _BrokenError(Exception):
    """Raised inside the parser's callbacks; says what is wrong with the answer."""


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
        "_complete",
        "_fresh",
        "_head_bytes",
        "_held",
        "_interim",
        "_is_cut",
        "_is_made",
        "_is_sent",
        "_keep",
        "_may_keep",
        "_parser",
        "_poll",
        "_raw",
        "_request",
        "_response",
        "_sender",
        "_surplus",
        "_until_eof",
        "_why",
        "_writable",
        "idle_since",
        "is_closed",
        "is_paused",
        "loop",
        "pool",
        "transport",
    )

    def __init__(self, pool: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.transport: asyncio.Transport  # not there while connecting
        self._is_made = False
        self.idle_since = 0.0  # loop time in seconds
        self.is_closed = False
        self._is_cut = False  # by us, and its request with it
        self.is_paused = False
        self._why = "closed"  # by whom or what for, once it is
        self._response: UpstreamResponse | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._poll: select.poll
        self._sender: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._request = b""
        self._held = b""  # of the request, until the end of the loop's turn
        self._until_eof = self._raw = self._surplus = self._fresh = self._complete = False
        self._keep = False
        self._may_keep = True
        self._is_sent = True
        self._interim = self._head_bytes = 0

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
            text = f"{self.pool.name}: {self._why}, before anything was sent"
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
                self._sender = self.loop.create_task(self._send_pieces(body, length))
            await response._wait(header_timeout_s, "head")
            if not response.status:
                raise cast("BaseException", response._error)
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
        response = self._response = UpstreamResponse(self, is_head=is_head)
        self._request = head
        self._fresh = self._complete = False
        self._interim = self._head_bytes = 0
        return response

    def _send_bytes(self, head: bytes, body: bytes) -> None:
        if len(body) <= _JOIN_BYTES:
            self._held = head + body
            self.pool.outbox.add(self.loop, self)
            return
        self._is_sent = False
        self.transport.write(head)
        self._sender = self.loop.create_task(self._send_slices(body))

    def send_held(self) -> None:
        """Send a request that was held until the end of the loop's turn."""
        if self._held and not self.transport.is_closing():  # else its loss is told in a moment
            held, self._held = self._held, b""
            self.transport.write(held)

    async def _send_slices(self, body: bytes) -> None:
        view = memoryview(body)
        try:
            for at in range(0, len(view), _SLICE_BYTES):
                await self._write(view[at : at + _SLICE_BYTES])
        except OSError as exc:
            self._fail(str(exc))
        else:
            self._sent()

    async def _send_pieces(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        # No `finally`: one that awaits leaves the exception behind in compiled code.
        failure: BaseException | None = None
        try:
            await self._send_each(pieces, length)
        except BaseException as exc:  # noqa: BLE001 - raised again below
            failure = exc
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()  # it may be in the middle, and its owner waits for an answer
        if failure is not None:
            raise failure

    async def _send_each(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        count = 0
        try:
            async for piece in pieces:
                count += len(piece)
                if length is not None and count > length:
                    break
                if not piece:
                    continue
                if length is None:
                    await self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
                else:
                    await self._write(piece)
            if length is None:
                await self._write(b"0\r\n\r\n")
            elif count != length:
                self._fail(f"the body has {count} bytes or more where {length} were announced")
                return
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - the caller's own error, handed back to it
            self._fail_with(exc)
        else:
            self._sent()

    async def _write(self, data: bytes | memoryview) -> None:
        # A peer that answers early and closes resets what we write afterwards, and an event
        # loop that meets the reset while writing never reads the answer: so read first.
        while not self.is_closed and self._poll.poll(0):
            if self.is_paused:
                break
            await asyncio.sleep(0)
        if self.is_closed:
            raise ConnectionResetError("the connection was closed while the body was sent")
        self.transport.write(data)
        await self.wait_writable()

    def _sent(self) -> None:
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
            self._fail("reset" if exc is not None else "closed")
        self.pool.note_lost(self)
        self._resume_writers()

    def eof_received(self) -> None:
        """Take the end for that of a body without a length; anything else was cut short."""
        response = self._response
        if response is None:
            self.discard()
        elif self._raw or (response.status and response.content_length is None and self._until_eof):
            response._finish()
            self.discard()
        else:
            self._fail("closed")

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
        response = self._response
        if response is None:  # an idle upstream has nothing to say
            self.discard()
            return
        if self._held:  # nor has one that was not asked yet
            self._fail("it answered before it was asked")
            return
        if self._raw:
            self.on_body(data)
        elif not self._parse(data, response):
            return
        if self._complete:
            self._release(response)
            return
        if self._fresh:
            self._fresh = False
            response._wake()
        if response._size > _HIGH_BYTES and not self.is_paused:
            self.is_paused = True
            self.transport.pause_reading()

    def _parse(self, data: bytes, response: UpstreamResponse) -> bool:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if len(data) > exc.args[0]:
                self.on_body(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            if not self._complete:
                self._fail(str(exc.__context__ or exc))
                return False
            self._surplus = True
        if self._fresh:
            self._head_bytes = 0
        elif self._head_bytes > self.pool.max_header_bytes:
            # Long heads, and what no callback reports: trailers, chunk extensions.
            self._fail(f"more than {self.pool.max_header_bytes} bytes of header fields")
            return False
        return True

    # -- what the parser says -------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice an answer behind the answer."""
        if self._complete:
            self._surplus = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in pieces."""
        response = self._response
        if response is not None and not self._complete:
            response.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; those behind the body are trailers, and dropped."""
        response = self._response
        if response is not None and not response.status:
            response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head: interim, unusable, without a body, or the beginning of one."""
        response = self._response
        if response is None or self._complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise _BrokenError(f"status {status}")
        if self._head_bytes > self.pool.max_header_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in response.headers)
            if size > self.pool.max_header_bytes:
                raise _BrokenError(f"{size} bytes of header fields")
        if status < 200:
            self._on_interim(status, response)
            return
        chunked = events = False
        for name, value in response.headers:
            if len(name) == 14 and name.lower() == b"content-length":
                response.content_length = int(value)
            elif len(name) == 17 and name.lower() == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    raise _BrokenError(f"transfer coding {value!r}")
                chunked = True
            elif len(name) == 12 and name.lower() == b"content-type":
                events = value[:17].lower() == b"text/event-stream"
        # llama-server announces Keep-Alive, and closes behind a stream: who comes next is lost.
        self._may_keep = not events or self.pool.is_secure
        self._until_eof = response.content_length is None and not chunked
        response.status = status
        self._fresh = True
        if response._is_head:
            self._complete = True
            self._keep = self._may_keep and self._parser.should_keep_alive()

    def _on_interim(self, status: int, response: UpstreamResponse) -> None:
        if status == 101:
            if not (b"\r\nupgrade:" in self._request.lower() and self._parser.should_upgrade()):
                raise _BrokenError("an upgrade that was not asked for")
            self._raw = self._fresh = response.upgraded = True
            response.status = status
            return
        self._interim += 1
        if self._interim > _INTERIM_MAX:
            raise _BrokenError(f"more than {_INTERIM_MAX} interim answers")
        response.reason = b""
        response.headers.clear()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body for the reader."""
        response = self._response
        if response is None or self._complete:
            self._surplus = True
            return
        response._pieces.append(data)
        size = len(data)
        response._size += size
        response.bytes_received += size
        self._fresh = True

    def on_message_complete(self) -> None:
        """Note the clean end of the answer."""
        response = self._response
        if response is not None and response.status and not (self._complete or self._raw):
            self._complete = self._fresh = True
            self._keep = self._may_keep and self._parser.should_keep_alive()

    # -- the end of an exchange -----------------------------------------------------------

    def resume(self) -> None:
        """Read on, after the reader has caught up."""
        self.is_paused = False
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
        self._response = None
        self._held = b""
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        self.pool.note_closing(self)
        self._resume_writers()
        if self._is_made:
            self.transport.abort()

    def _release(self, response: UpstreamResponse) -> None:
        self._response = None
        response._finish()  # whoever is told may have closed this
        is_reusable = self._keep and self._is_sent and not (self._surplus or self.is_closed)
        if not is_reusable or self.pool.is_closed:
            self.discard()
            return
        if response._is_head:  # the parser waits for a body that does not come
            self._parser = httptools.HttpResponseParser(self)
        if self.is_paused:
            self.resume()
        self.pool.put_back(self)

    def end(self, why: str) -> None:
        """Close at once, and tell whoever reads *why*; what was asked is asked nowhere else."""
        self._is_cut = True
        self._held = b""
        self._fail(why)

    def give_up(self) -> None:
        """End a request that cannot be sent."""
        self.end("it could not be sent")

    def _fail(self, why: str) -> None:
        self._why = why
        response = self._response
        stage: Stage = "head" if self._is_sent and not self._held else "send"
        received = 0
        if response is not None and response.status:
            stage, received = "body", response.bytes_received
        error = UpstreamBroken(
            stage,
            f"{self.pool.name}: {why}",
            received,
            is_unsent=bool(self._held),
            is_unanswered=stage != "body" and not self._head_bytes,
            is_local=self._is_cut,
        )
        self._fail_with(error)

    def _fail_with(self, error: BaseException) -> None:
        response = self._response
        if response is not None:
            response._finish(error)
        self.discard()
