"""HTTP/1.1 connection of a client: the order of its requests, and its end.

A connection reads through a `RequestParser`, keeps what it cannot parse yet in an `InputBuffer`,
writes through a `ConnectionWriter`, and serves one `RequestCycle` at a time; pipelined requests
wait in a queue. A rejected request gets an error response and the connection is closed: nothing
behind it is read as a request.

Timeouts need no timer of a connection's own: the `ConnectionManager` calls `check_timeouts` on all
of them a few times a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

from ..half_close import half_close
from ..io_batch import ReadBatch, WriteBatch
from .input_buffer import InputBuffer
from .request_cycle import App, ConnectionContext, RequestCycle
from .request_parser import RequestParser
from .timeouts import ConnectionTimeouts, Due
from .validation import H1Limits, error_response
from .writer import ConnectionWriter

LOG = logging.getLogger("swapchart.h1")

# Parsed at a time, outside and inside of a body: bounds what pipelining can make us keep.
_HEAD_SLICE_BYTES = 1 << 14
_BODY_SLICE_BYTES = 1 << 16


class ConnectionRegistry(ConnectionContext, Protocol):
    """Manager of the connections of one server, as a connection sees it."""

    limits: H1Limits
    read_batch: ReadBatch
    write_batch: WriteBatch
    spare: int

    def add(self, connection: ServerConnection) -> None:
        """Check the timeouts of *connection* from now on."""

    def discard(self, connection: ServerConnection) -> None:
        """Forget *connection*, which is finished."""


class ServerConnection(asyncio.Protocol):
    """Protocol of one accepted connection.

    Attributes:
        finished: Resolved when the socket is closed or handed over, and each application returned.
        input_buffer: What the client has sent and is not parsed yet.
        is_read_pending: It has sent data that is in a batch.
        loop: The running loop.
        manager: Manager of all connections of the server.
        transport: Of the accepted socket; set when the connection is made.
        writer: Sends what is written to the client.
    """

    __slots__ = (
        "_app", "_current", "_error", "_idle_since", "_ignores_input", "_is_closing", "_is_lost",
        "_limits", "_parser", "_queue", "_tasks", "_timeouts", "_try_fast_path", "_unstarted",
        "_upgrade", "finished", "input_buffer", "is_read_pending", "loop", "manager", "transport",
        "writer",
    )  # fmt: skip

    def __init__(
        self,
        manager: ConnectionRegistry,
        app: App,
        loop: asyncio.AbstractEventLoop,
        *,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        upgrade: Callable[[bytes], None] | None = None,
        try_fast_path: Callable[[RequestCycle], bool] | None = None,
    ) -> None:
        """Prepare a connection.

        Args:
            manager: Manager of all connections of the server.
            app: The ASGI application.
            loop: The running loop.
            root_path: For the scope.
            state: For the scope; each request gets a copy.
            upgrade: Takes the connection over, with the bytes that were read, when a request asks
                for WebSocket; without it such requests are served as ordinary ones.
            try_fast_path: Serves a complete POST request without a task, or returns False.
        """
        self._limits = limits = manager.limits
        self.loop, self.manager = loop, manager
        self.transport: asyncio.Transport
        self.finished: asyncio.Future[None] = loop.create_future()
        self.input_buffer = InputBuffer(limits, manager)
        self.is_read_pending = False
        self.writer = ConnectionWriter(loop, manager.write_batch)
        parser = self._parser = RequestParser(
            self, limits, root_path=root_path, state=state, accepts_upgrades=upgrade is not None
        )
        self._timeouts = ConnectionTimeouts(limits, manager, parser, self.input_buffer, self.writer)
        self._app = app
        self._upgrade = upgrade
        self._try_fast_path = try_fast_path
        self._unstarted: RequestCycle | None = None  # the current one, until its slice is parsed
        self._current: RequestCycle | None = None  # it is being served
        self._queue: list[RequestCycle] = []  # received behind it, completely or in part
        self._error = 0  # status to send after the current response
        self._tasks: set[asyncio.Task[None]] = set()
        self._ignores_input = False  # what still comes is thrown away
        self._is_closing = self._is_lost = False
        self._idle_since = loop.time()  # without a request, apart from a head that has begun

    # -- callbacks of the transport ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; also called by hand for a transport that was accepted by others."""
        self.transport = cast("asyncio.Transport", transport)
        self.input_buffer.transport = self.writer.transport = self.transport
        self._parser.connection_made(transport)
        self.manager.add(self)

    def data_received(self, data: bytes) -> None:
        """Take *data*, with that of other clients."""
        if self.is_read_pending:
            self.manager.read_batch.flush()
        self.is_read_pending = self.manager.read_batch.add(self.loop, self, data)

    def take_read(self, data: bytes) -> None:
        """Parse *data*, or keep it while an earlier request is being served."""
        self.is_read_pending = False
        if self._ignores_input:
            return
        buffer, parser = self.input_buffer, self._parser
        if buffer.unparsed or (
            self._current is not None and (parser.incoming is None or buffer.room)
        ):
            buffer.unparsed += data
            self._adjust_reading()
        elif len(data) > _HEAD_SLICE_BYTES:
            self._feed(data)
        else:  # as nearly always
            used = self._parse(data)
            if parser.upgrade_head is not None:
                self._switch(data[used:])
            elif parser.incoming is not None and parser.incoming.size > self._limits.body_bytes:
                self._adjust_reading()

    def eof_received(self) -> None:
        """Take a half-close for a disconnect, which is what nearly every client means by it."""
        self.manager.read_batch.flush()
        self._ignores_input = True
        self.writer.send_pending()  # the transport closes behind this
        self._disconnect_all()

    def connection_lost(self, exc: Exception | None) -> None:
        """Disconnect all requests."""
        self.manager.read_batch.flush()
        self._is_lost = self._ignores_input = True
        self.writer.discard()
        self.input_buffer.clear()
        self._disconnect_all()
        self.resume_writing()
        self._check_finished()

    def pause_writing(self) -> None:
        """Make ``send`` wait."""
        if self.writer.stalled is None:
            self.writer.pause()
            self._timeouts.write_progress.start(self.transport, self.loop.time())

    def resume_writing(self) -> None:
        """Let ``send`` go on."""
        self.writer.resume()

    # -- input -------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        """Parse one slice; returns how many bytes of it were used. `act_on_read` follows."""
        used = self._parser.parse(data)
        if self._parser.error:
            self._reject_input(self._parser.error)
        return used

    def _feed(self, data: bytes) -> None:
        """Parse *data* in slices, as far as its requests can be taken now."""
        parser, at, end = self._parser, 0, len(data)
        while at < end and not self._ignores_input:
            size = _HEAD_SLICE_BYTES if parser.incoming is None else _BODY_SLICE_BYTES
            at += self._parse(data[at : at + size])
            self.act_on_read()
            if parser.upgrade_head is not None:
                self._switch(data[at:])
                return
            if at < end and self._current is not None and parser.incoming is None:
                self.input_buffer.unparsed += data[at:]
                break
        self._adjust_reading()

    def _feed_unparsed(self) -> None:
        """Parse what waits in the buffer, as far as its requests can be taken now."""
        buffer, parser = self.input_buffer, self._parser
        waiting, buffer.unparsed = buffer.unparsed, bytearray()  # a nested call finds nothing
        while waiting and not self._ignores_input:
            incoming, size = parser.incoming, _BODY_SLICE_BYTES
            if incoming is None:
                if self._current is not None:
                    break
                size = _HEAD_SLICE_BYTES
            elif incoming.size > self._limits.body_bytes:
                break
            data = bytes(waiting[:size])
            del waiting[:size]
            used = self._parse(data)
            self.act_on_read()
            if parser.upgrade_head is not None:
                self._switch(data[used:] + waiting)
                waiting = buffer.unparsed
        if self._ignores_input or not waiting:
            buffer.clear()
        else:
            buffer.unparsed = waiting
        if not self._ignores_input:
            self._adjust_reading()

    def _switch(self, rest: bytes) -> None:
        """Go on behind a head that asked for another protocol, here or elsewhere."""
        head = self._parser.take_upgrade_head()
        if not self._parser.hands_over:
            self._feed(head + rest)
        elif self._current is not None:  # in order: when that has its response
            self.input_buffer.unparsed += head + rest
            self._adjust_reading()
        else:
            self._ignores_input = True
            self.writer.send_pending()
            cast("Callable[[bytes], None]", self._upgrade)(head + rest)
            self._is_lost = True
            self._check_finished()

    def _adjust_reading(self) -> None:
        incoming = self._parser.incoming
        self.input_buffer.adjust(0 if incoming is None else incoming.size)

    def body_consumed(self) -> None:
        """Read on."""
        self.input_buffer.is_stuck = False
        if self.input_buffer.unparsed:
            self.loop.call_soon(self._feed_unparsed)
        else:
            self.input_buffer.clear()
            self._adjust_reading()

    # -- requests ----------------------------------------------------------------------

    def enqueue(self, cycle: RequestCycle) -> None:
        """Serve *cycle*, whose head is complete, when its turn comes."""
        if self._current is not None:
            self._queue.append(cycle)
        elif self._try_fast_path is None or cycle.scope["method"] != "POST":
            self._start(cycle)
        else:
            self._current = self._unstarted = cycle

    def act_on_read(self) -> None:
        """Start the request whose head has been parsed; on the fast path if it is complete."""
        cycle, self._unstarted = self._unstarted, None
        if cycle is None or cycle is not self._current:
            return  # it was rejected
        if cycle.is_received and self._try_fast_path is not None:
            try:
                if self._try_fast_path(cycle):
                    return
            except Exception:  # the regular path serves it
                LOG.exception("%s %s failed", cycle.scope["method"], cycle.scope["path"])
        self._start(cycle)

    def _start(self, cycle: RequestCycle) -> None:
        self._current = cycle
        self.run(cycle, self._app)

    def run(self, cycle: RequestCycle, app: App) -> None:
        """Let *app* serve *cycle*, in a task."""
        cycle.task = self.loop.create_task(cycle.run(app))
        self._tasks.add(cycle.task)

    def response_complete(self, cycle: RequestCycle) -> None:
        """Turn to the next request, or close."""
        self._current = None
        if not cycle.keep_alive:
            self._close(linger=not cycle.is_received or self.transport.can_write_eof())
        elif self._queue:
            self._start(self._queue.pop(0))
        elif self._error:
            self._send_error(self._error, self._parser.request_id())
        else:
            self._idle_since = self.loop.time()
            if self.input_buffer.unparsed or self.input_buffer.room:
                self._feed_unparsed()

    def application_returned(self, cycle: RequestCycle) -> None:
        """Forget the task of *cycle*."""
        if cycle.task is not None:
            self._tasks.discard(cycle.task)
        if self._is_lost:
            self._check_finished()

    def _disconnect_all(self) -> None:
        if self._current is not None:
            self._current.disconnect()
        for cycle in self._queue:
            cycle.disconnect()
        self._queue.clear()

    def _check_finished(self) -> None:
        if not self._tasks and not self.finished.done():
            self._parser.close()
            self._current = self._upgrade = None
            self.finished.set_result(None)
            self.manager.discard(self)

    # -- rejecting and closing ---------------------------------------------------------

    def reject(self, cycle: RequestCycle, status: int) -> None:
        """Send an error for *cycle*, of whose response nothing was sent, and close."""
        self._current = None
        cycle.disconnect()
        self._send_error(status, cycle.request_id, is_head=cycle.is_head)

    def _reject_input(self, status: int) -> None:
        """Stop reading requests: what comes is not, or no longer, a request to be served."""
        self._ignores_input = True
        incoming, self._parser.incoming = self._parser.incoming, None
        if self._current is None:
            self._send_error(status, self._parser.request_id())
        elif incoming is None:
            self._error = status
        elif incoming is not self._current:
            self._queue.remove(incoming)
            self._error = status
        elif incoming.is_head_sent:
            self.abort()
        else:
            self.reject(incoming, status)

    def _send_error(self, status: int, request_id: bytes, *, is_head: bool = False) -> None:
        head, body = error_response(status)
        rest = b"\r\n" if is_head else b"\r\n" + body
        self.writer.write(b"%b%b\r\n%b%b" % (head, request_id, self.manager.date, rest))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close when what was written is sent, and, lingering, the client had time to read it.

        Closing with bytes unread resets the connection, and a reset drops the response: so what
        still comes is discarded, for `H1Limits.linger_s` at most. TLS has no half-close: there
        it is closed after the client, or when that time is up.
        """
        self._ignores_input = self._is_closing = True
        self._timeouts.write_progress.since = self.loop.time()
        self.input_buffer.clear()
        self._disconnect_all()
        self.writer.send_pending()
        if self.transport.is_closing():
            return
        if not linger:
            self.transport.close()
            return
        half_close(self.transport)
        self.input_buffer.resume()

    def abort(self) -> None:
        """Disconnect the client at once."""
        self._ignores_input = True
        self.writer.send_pending()
        self.transport.abort()

    def cancel(self) -> None:
        """Disconnect the client, and cancel the applications that serve it."""
        self.abort()
        for task in self._tasks:  # later: one that has not begun could not clean up
            self.loop.call_soon(task.cancel)

    def check_timeouts(self, now: float) -> None:
        """Act on what has taken too long at loop time *now*, in seconds."""
        if self._is_lost or self.is_read_pending:
            return
        idle_since = self._idle_since if self._current is None else None
        due = self._timeouts.check(now, idle_since, is_closing=self._is_closing)
        if due is Due.ABORT:
            self.abort()
        elif due is Due.REJECT:
            self._reject_input(408)
        elif due is Due.CLOSE:
            self._close(linger=self.transport.can_write_eof())
        elif due is Due.END:
            self.transport.close()
