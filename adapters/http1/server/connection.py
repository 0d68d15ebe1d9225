"""One HTTP/1.1 connection of a client: parse, refuse, keep order, never wait for ever.

llhttp, strict as it is by default, refuses ambiguous framing; what it lets pass and we do not is
refused here (codings besides chunked, versions, targets, Host, sizes). A refused request is
answered and the connection closed: nothing behind it is read as a request.

Timeouts need no timer of a connection's own: the hub looks at all of them a few times a second.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from ..undelivered import count_undelivered
from ..write_batch import WriteBatch
from . import sock_diag
from .request_cycle import FULL_BODY, FULL_RESPONSE, ON_DISCONNECT, App, RequestCycle, Scope
from .validation import (
    SPECIAL,
    BadRequestError,
    H1Limits,
    check_sizes,
    error_answer,
    inspect_fields,
    origin_form,
    status_of_error,
)

LOG = logging.getLogger("swapchart.h1")

# Parsed at a time, outside and inside of a body: bounds what pipelining can make us keep.
_HEAD_SLICE_BYTES = 1 << 14
_BODY_SLICE_BYTES = 1 << 16
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset shows
_HANGUP = select.POLLERR | select.POLLHUP | _RDHUP
_ACKED_AT = 120  # where a tcp_info has its tcpi_bytes_acked; linux/tcp.h
_VERSIONS = frozenset({"1.0", "1.1"})
_METHODS = {b"GET": "GET", b"POST": "POST", b"HEAD": "HEAD", b"OPTIONS": "OPTIONS"}  # the usual
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_RATE_WINDOW_S = 60.0
_HOLD_BYTES = 1 << 16  # of answers that wait for the end of the loop's turn, at most
_ROOM_STEP_BYTES = 1 << 21  # read at a time beyond the limit from a client that is stuck

Fields = list[tuple[bytes, bytes]]


class ConnectionRegistry(Protocol):
    """What connections have in common."""

    limits: H1Limits
    outbox: WriteBatch
    date: bytes
    keep_alive: bytes
    spare: int
    is_draining: Callable[[], bool]

    def flush_later(self, exchange: RequestCycle) -> None:
        """Call ``flush_head`` when the event loop comes round."""

    def add(self, connection: ServerConnection) -> None:
        """Look after a connection."""

    def discard(self, connection: ServerConnection) -> None:
        """Look no more; it is finished."""


class ServerConnection(asyncio.Protocol):
    """The protocol of one accepted connection.

    Attributes:
        finished: Resolved when the socket is closed, or was handed on, and every application
            has returned.
    """

    __slots__ = (
        "_app",
        "_body",
        "_body_at",
        "_body_bytes",
        "_bytes_since_callback",
        "_client",
        "_current",
        "_error",
        "_fields",
        "_ignores_input",
        "_in_head",
        "_incoming",
        "_is_closing",
        "_is_handing_on",
        "_is_lost",
        "_is_new",
        "_is_still",
        "_is_stuck",
        "_limits",
        "_on_upgrade",
        "_parser",
        "_pending_writes",
        "_poll",
        "_queue",
        "_refused_with",
        "_room",
        "_root_path",
        "_scheme",
        "_server",
        "_since",
        "_special",
        "_state",
        "_take",
        "_target",
        "_tasks",
        "_unparsed",
        "_unsent",
        "_unsent_at",
        "_unstarted",
        "_upgrade",
        "_window_at",
        "_window_bytes",
        "finished",
        "hub",
        "is_paused",
        "loop",
        "stalled",
        "transport",
    )

    def __init__(
        self,
        hub: ConnectionRegistry,
        app: App,
        loop: asyncio.AbstractEventLoop,
        *,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        hand_on: Callable[[bytes], None] | None = None,
        take: Callable[[RequestCycle], bool] | None = None,
    ) -> None:
        """Prepare a connection.

        Args:
            hub: What it shares with the others.
            app: The ASGI application.
            loop: The running loop.
            root_path: For the scope.
            state: For the scope; each request gets a copy.
            hand_on: Takes the connection over, with the bytes that were read, when a request
                asks for another protocol; without it such requests are served as plain ones.
            take: Serves a POST request that is here as a whole without a task, or returns False.
        """
        self.loop = loop
        self.transport: asyncio.Transport
        self.stalled: asyncio.Future[None] | None = None
        self.finished: asyncio.Future[None] = loop.create_future()
        self.hub = hub
        self._limits = hub.limits
        self._app = app
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._root_path, self._state = root_path, state
        self._scheme = "http"
        self._on_upgrade = hand_on
        self._take = take
        self._unstarted: RequestCycle | None = None  # the current one, until its slice is parsed
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: Fields = []
        self._refused_with = 0  # status of what a callback raised
        self._special: Fields = []  # those of the head that we act on
        self._bytes_since_callback = (
            0  # bytes since a callback that matters: heads, trailers, chunk extensions
        )
        self._upgrade: bytes | None = None  # a head that asks for another protocol
        self._is_handing_on = False
        self._incoming: RequestCycle | None = None  # its request is being received
        self._current: RequestCycle | None = None  # it is being answered
        self._queue: deque[RequestCycle] = deque()  # received behind it, wholly or in part
        self._unparsed = bytearray()  # not looked at yet
        self._room = 0  # bytes that it may hold beyond the limit; lent by the hub
        self._is_still = False  # the transport does not read
        self._is_stuck = False  # paused since the last look
        self._error = 0  # status to answer after the current exchange
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_writes = b""  # of answers, until the end of the loop's turn
        self._ignores_input = False  # what still comes is thrown away
        self._is_closing = False
        self._is_lost = False
        self.is_paused = False
        self._is_new = True  # no request has come yet
        self._in_head = False
        self._since = loop.time()  # in a head, without a request, or closing
        self._body: RequestCycle | None = None  # whose body was looked at last
        self._body_bytes = 0  # how much of it had come then
        self._body_at = 0.0  # when it had grown last
        self._window_at = 0.0
        self._window_bytes = 0
        self._unsent = 0
        self._unsent_at = 0.0
        self._poll: select.poll | None = None

    # -- what the transport says -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; also called by hand for a transport that was accepted by others."""
        self.transport = cast("asyncio.Transport", transport)
        self._scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        self._server = _address(transport.get_extra_info("sockname"))
        self._client = _address(transport.get_extra_info("peername"))
        self.hub.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse *data*, or keep it while an earlier request is being answered."""
        if self._ignores_input:
            return
        if self._unparsed or (self._current is not None and (self._incoming is None or self._room)):
            self._unparsed += data
            self._adjust_reading()
        elif len(data) > _HEAD_SLICE_BYTES:
            self._feed(data)
        else:  # as nearly always
            used = self._parse(data)
            if self._upgrade is not None:
                self._switch(data[used:])
            elif self._incoming is not None and self._incoming.size > self._limits.body_bytes:
                self._adjust_reading()

    def eof_received(self) -> None:
        """Take half a close for a whole one, as every client means it that has to be noticed."""
        self._ignores_input = True
        self.send_held()  # the transport closes behind this
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody."""
        self._is_lost = self._ignores_input = True
        self._pending_writes = b""
        self._drop_ahead()
        self._leave()
        self.resume_writing()
        self._check_finished()

    def pause_writing(self) -> None:
        """Make ``send`` wait."""
        if self.stalled is None:
            self.stalled = self.loop.create_future()
            self._unsent = self._count_unsent()
            self._unsent_at = self.loop.time()

    def resume_writing(self) -> None:
        """Let ``send`` go on."""
        stalled, self.stalled = self.stalled, None
        if stalled is not None and not stalled.done():
            stalled.set_result(None)

    # -- input -------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and not self._ignores_input:
            size = _HEAD_SLICE_BYTES if self._incoming is None else _BODY_SLICE_BYTES
            at += self._parse(data[at : at + size])
            if self._upgrade is not None:
                self._switch(data[at:])
                return
            if at < end and self._current is not None and self._incoming is None:
                self._unparsed += data[at:]
                break
        self._adjust_reading()

    def _feed_ahead(self) -> None:
        """Parse what waits, as far as there is room for it."""
        ahead, self._unparsed = self._unparsed, bytearray()  # whoever comes back here finds nothing
        while ahead and not self._ignores_input:
            incoming, size = self._incoming, _BODY_SLICE_BYTES
            if incoming is None:
                if self._current is not None:
                    break
                size = _HEAD_SLICE_BYTES
            elif incoming.size > self._limits.body_bytes:
                break
            data = bytes(ahead[:size])
            del ahead[:size]
            used = self._parse(data)
            if self._upgrade is not None:
                self._switch(data[used:] + ahead)
                ahead = self._unparsed
        if self._ignores_input or not ahead:
            self._drop_ahead()
        else:
            self._unparsed = ahead
        if not self._ignores_input:
            self._adjust_reading()

    def _drop_ahead(self) -> None:
        """Forget what waits, and give the room for it back."""
        self._unparsed.clear()
        self.hub.spare += self._room
        self._room = 0

    def _make_room(self) -> None:
        """Read on from a client whose bytes nobody takes: behind them may be its end.

        A client of another machine that left with our window full cannot say so. What it had
        handed to its kernel (4 MiB at most, by default) has to be read first.
        """
        hub = self.hub
        if self._is_stuck and self._is_still:
            more = min(_ROOM_STEP_BYTES, self._limits.stuck_bytes - self._room, hub.spare)
            if more > 0:
                hub.spare -= more
                self._room += more
                self._adjust_reading()
        self._is_stuck = True

    def _parse(self, data: bytes) -> int:
        """Parse one slice; returns how much of it was used."""
        self._bytes_since_callback += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._bytes_since_callback = 0
            if self._unstarted is not None:
                self._launch()
            return int(exc.args[0])
        except httptools.HttpParserCallbackError:
            # Not its context: that is whatever else is being handled just now, if anything is.
            status, self._refused_with = self._refused_with, 0
            if not status:
                raise
            self._refuse_input(status)
        except httptools.HttpParserError:
            self._refuse_input(status_of_error(data))
        if self._bytes_since_callback > self._limits.header_bytes and not self._ignores_input:
            self._refuse_input(431 if self._fields or not self._in_head else 414)
        if self._unstarted is not None:
            self._launch()
        return len(data)

    def _switch(self, rest: bytes) -> None:
        """Go on behind a head that asked for another protocol, here or elsewhere."""
        head, self._upgrade = cast("bytes", self._upgrade), None
        self._parser = httptools.HttpRequestParser(self)
        if not self._is_handing_on:
            self._feed(head + rest)
        elif self._current is not None:  # in order: when that has been answered
            self._unparsed += head + rest
            self._adjust_reading()
        else:
            self._ignores_input = True
            self.send_held()
            cast("Callable[[bytes], None]", self._on_upgrade)(head + rest)
            self._is_lost = True
            self._check_finished()

    def on_url(self, target: bytes) -> None:
        """Begin a head; its target may come in pieces."""
        if self._in_head:
            self._target += target
        else:
            self._target = target
            self._fields = []
            self._special = []
            self._in_head = True
            self._since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; those of a trailer go to a list that nobody reads."""
        field = (name.lower(), value.rstrip(b" \t"))
        self._fields.append(field)
        if field[0] in SPECIAL:
            self._special.append(field)

    def on_headers_complete(self) -> None:
        """Judge a head, and begin its exchange."""
        try:
            self._in_head = self._is_new = False
            fields, target = self._fields, self._target
            limits = self._limits
            if (
                len(fields) + len(target) > limits.header_fields
                or self._bytes_since_callback > limits.header_bytes
            ):
                check_sizes(limits, target, fields, self._bytes_since_callback)
            self._fields = []
            self._bytes_since_callback = 0
            version = self._parser.get_http_version()
            if version not in _VERSIONS:
                raise BadRequestError(505, "unknown version")
            method = self._parser.get_method()
            if method == b"CONNECT":
                raise BadRequestError(405, "CONNECT")
            is_1_0 = version == "1.0"
            is_expecting = inspect_fields(self._special, is_1_0)
            if len(self._special) > 1 and self._parser.should_upgrade():
                self._note_upgrade(method, version, fields)
                return
            if target[:1] != b"/":
                target = origin_form(method, target, fields)
            if 35 in target or not target.isascii():  # 35 is "#": a number is found quicker
                raise BadRequestError(400, "odd target")
            self._begin(method, target, version, fields, is_expecting)
        except BadRequestError as refusal:
            self._refused_with = refusal.status
            raise

    def _begin(
        self, method: bytes, target: bytes, version: str, fields: Fields, is_expecting: bool
    ) -> None:
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": _METHODS.get(method) or method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": self._root_path,
            "headers": fields,
            "server": self._server,
            "client": self._client,
        }
        if self._state is not None:
            scope["state"] = self._state.copy()
        exchange = self._incoming = RequestCycle(
            self,
            scope,
            keep_alive=self._parser.should_keep_alive(),
            is_1_0=version == "1.0",
            is_expecting=is_expecting,
        )
        scope["extensions"] = {
            FULL_RESPONSE: exchange.send_full_response, FULL_BODY: exchange.take_body,
            ON_DISCONNECT: exchange.set_on_disconnect,
        }  # fmt: skip
        if self._current is not None:
            self._queue.append(exchange)
        elif self._take is None or method != b"POST":
            self._start(exchange)
        else:
            self._current = self._unstarted = exchange

    def _note_upgrade(self, method: bytes, version: str, fields: Fields) -> None:
        """Keep a head that asks for another protocol, in the form it will be read in again."""
        asked = b",".join(value for name, value in fields if name == b"upgrade").lower()
        wanted = {token.strip() for token in asked.split(b",")}
        has_body = any(
            (name == b"content-length" and value.strip(b"0")) or name == b"transfer-encoding"
            for name, value in fields
        )
        self._is_handing_on = self._on_upgrade is not None and (
            wanted == {b"websocket"} and method == b"GET" and not has_body
        )
        self._upgrade = b"%b %b HTTP/%b\r\n%b\r\n" % (
            method,
            self._target,
            version.encode("ascii"),
            b"".join(
                b"%b: %b\r\n" % field
                for field in fields
                if self._is_handing_on or field[0] != b"upgrade"
            ),
        )

    def on_body(self, data: bytes) -> None:
        """Buffer a piece of a body."""
        self._bytes_since_callback = 0
        if self._incoming is not None:
            self._incoming.feed(data)

    def on_message_complete(self) -> None:
        """Note that a request is here as a whole."""
        self._bytes_since_callback = 0
        exchange, self._incoming = self._incoming, None
        if exchange is not None:
            exchange.is_received = True
            if exchange.waiter is not None:
                exchange.wake()

    def _adjust_reading(self) -> None:
        """Read only while what waits here is little."""
        limits, incoming, waiting = self._limits, self._incoming, len(self._unparsed)
        is_full = waiting > limits.ahead_bytes or (
            incoming is not None and incoming.size > limits.body_bytes
        )
        if self.transport.is_closing():
            return
        if is_full != self.is_paused:
            self.is_paused = is_full
            self._is_stuck = False
        is_still = is_full and waiting >= self._room
        if is_still != self._is_still:
            self._is_still = is_still
            if is_still:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # -- output ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send *data* at the end of the loop's turn, or at once when much waits already."""
        if self._pending_writes:
            self._pending_writes += data
        else:
            self._pending_writes = data
            self.hub.outbox.add(self.loop, self)
        if len(self._pending_writes) > _HOLD_BYTES:
            self.send_held()

    def write_parts(self, parts: Iterable[bytes]) -> None:
        """Send at once, behind what waits."""
        self.send_held()
        transport = self.transport
        if transport.is_closing():
            return
        if isinstance(self.loop, asyncio.BaseEventLoop):
            # Some 3.12 and 3.13 of the standard library never pause a protocol for writelines.
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)

    def send_held(self) -> None:
        """Send what waits."""
        held, self._pending_writes = self._pending_writes, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)

    # -- exchanges ---------------------------------------------------------------------

    def body_taken(self) -> None:
        """Read on."""
        self._is_stuck = False
        if self._unparsed:
            self.loop.call_soon(self._feed_ahead)
        else:
            self._drop_ahead()
            self._adjust_reading()

    async def wait_writable(self) -> None:
        """Wait until the client reads, or is cut."""
        if self.stalled is not None:
            await asyncio.shield(self.stalled)

    def answered(self, exchange: RequestCycle) -> None:
        """Turn to the next request, or close."""
        self._current = None
        if not exchange.keep_alive:
            self._close(linger=not exchange.is_received)
        elif self._queue:
            self._start(self._queue.popleft())
        elif self._error:
            self._answer_error(self._error)
        else:
            self._since = self.loop.time()
            if self._unparsed or self._room:
                self._feed_ahead()

    def ended(self, exchange: RequestCycle) -> None:
        """Forget an application that has returned."""
        if exchange.task is not None:
            self._tasks.discard(exchange.task)
        if self._is_lost:
            self._check_finished()

    def _launch(self) -> None:
        """Start the exchange whose head has been parsed, and maybe its body too."""
        exchange, self._unstarted = self._unstarted, None
        if exchange is None or exchange is not self._current:
            return  # it was refused
        if not (exchange.is_received and self._is_taken(exchange)):
            self._start(exchange)

    def _is_taken(self, exchange: RequestCycle) -> bool:
        """Offer *exchange* to who serves without a task; a fault there makes it no one's."""
        try:
            return self._take is not None and self._take(exchange)
        except Exception:
            LOG.exception("%s %s failed", exchange.scope["method"], exchange.scope["path"])
            return False

    def _start(self, exchange: RequestCycle) -> None:
        self._current = exchange
        self.run(exchange, self._app)

    def run(self, exchange: RequestCycle, app: App) -> None:
        """Let *app* serve *exchange*, in a task."""
        exchange.task = self.loop.create_task(exchange.run(app))
        self._tasks.add(exchange.task)

    def _leave(self) -> None:
        if self._current is not None:
            self._current.disconnect()
        for exchange in self._queue:
            exchange.disconnect()
        self._queue.clear()

    def _check_finished(self) -> None:
        if not self._tasks and not self.finished.done():
            self.finished.set_result(None)
            self.hub.discard(self)

    # -- refusing and closing ----------------------------------------------------------

    def refuse(self, exchange: RequestCycle, status: int) -> None:
        """Answer *exchange*, of whose answer nothing was sent, with an error, and close."""
        self._current = None
        exchange.disconnect()
        self._answer_error(status, is_head=exchange.is_head)

    def _refuse_input(self, status: int) -> None:
        """Stop reading requests: what comes is not, or not any more, a request of ours."""
        self._ignores_input = True
        incoming, self._incoming = self._incoming, None
        if self._current is None:
            self._answer_error(status)
        elif incoming is None:
            self._error = status
        elif incoming is not self._current:
            self._queue.remove(incoming)
            self._error = status
        elif incoming.is_head_sent:
            self.abort()
        else:
            self.refuse(incoming, status)

    def _answer_error(self, status: int, *, is_head: bool = False) -> None:
        head, body = error_answer(status)
        self.write(head + self.hub.date + b"\r\n" + (b"" if is_head else body))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close when what was written is sent, and, lingering, the client had time to read it.

        Closing with bytes unread resets the connection, and a reset takes the answer with it. TLS
        has no half a close: there it is closed after the client, or when its time is up.
        """
        self._ignores_input = self._is_closing = True
        self._since = self._unsent_at = self.loop.time()
        self._drop_ahead()
        self._leave()
        self.send_held()
        if self.transport.is_closing():
            return
        if not linger:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_still:
            self._is_still = self.is_paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Cut the client off."""
        self._ignores_input = True
        self.send_held()
        self.transport.abort()

    def give_up(self) -> None:
        """Cut the client off, to whom nothing can be sent."""
        self.abort()

    def cancel(self) -> None:
        """Cut the client off, and end what is done for it."""
        self.abort()
        for task in self._tasks:  # later: one that has not begun could not clear up
            self.loop.call_soon(task.cancel)

    # -- time --------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Act on what has taken too long; called a few times a second.

        Args:
            now: Loop time in seconds.
        """
        if self._is_lost:
            return
        limits = self._limits
        if self._is_closing or self.stalled is not None:
            self._look_at_writing(now)
            if self._is_closing:
                return
        if self._current is None:
            took = now - self._since
            if self._in_head:
                if took >= limits.header_timeout_s:
                    self._refuse_input(408)
            elif took >= self._idle_limit_s() and not self._has_input():
                # A request that crosses this is not lost by a reset.
                self._close(linger=self.transport.can_write_eof())
            return
        if self._incoming is not None:
            self._look_at_body(now, self._incoming)
        if self.is_paused:
            if self._has_hung_up():
                self.abort()
            else:
                self._make_room()

    def _idle_limit_s(self) -> float:
        limits = self._limits
        if self.hub.is_draining():
            return limits.drain_idle_s
        if self._is_new:
            return limits.header_timeout_s
        return limits.keep_alive_s + limits.keep_alive_spare_s

    def _linger_limit_s(self) -> float:
        limits = self._limits
        if self.hub.is_draining():  # idle pools look at a connection when they next use it
            return min(limits.linger_s, limits.drain_idle_s)
        return limits.linger_s

    def _has_input(self) -> bool:
        """Tell whether the client has sent what the event loop has not read yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _look_at_writing(self, now: float) -> None:
        size, took = self._count_unsent(), now - self._unsent_at
        if size and size != self._unsent:
            self._unsent, self._unsent_at = size, now
        elif size:
            if took >= self._limits.write_timeout_s:
                self.abort()
        elif self._is_closing and took >= self._linger_limit_s():
            if self.transport.is_closing() or self.transport.can_write_eof():
                self.abort()
            else:
                self._unsent_at = now
                self.transport.close()

    def _count_unsent(self) -> int:
        """Count what the client has not taken, in the kernel too: that is where progress shows.

        Under TLS what it has taken is added twice, so that the sum moves with it: the buffer
        between the transport and the kernel cannot be seen. 0 means the same.
        """
        size = count_undelivered(self.transport)
        if size and self._scheme == "https":  # whose transport hides one more buffer
            with suppress(OSError):
                info = self.transport.get_extra_info("socket").getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8
                )
                size += 2 * int.from_bytes(info[_ACKED_AT:], sys.byteorder)
        return size

    def _look_at_body(self, now: float, incoming: RequestCycle) -> None:
        limits, came = self._limits, incoming.received
        if incoming is not self._body or self.is_paused or incoming.is_waiting:
            # It begins, or its client waits for us, or has an answer already: it owes nothing.
            self._body = incoming
            self._body_at = self._window_at = now
            self._body_bytes = self._window_bytes = came
        elif came != self._body_bytes:
            self._body_at, self._body_bytes = now, came
        elif now - self._body_at >= limits.body_idle_s:
            self._refuse_input(408)
            return
        if now - self._window_at >= _RATE_WINDOW_S:
            if came - self._window_bytes < limits.body_rate * _RATE_WINDOW_S:
                self._refuse_input(408)
            self._window_at, self._window_bytes = now, came

    def _has_hung_up(self) -> bool:
        """Look past bytes that are not being read, or not even sent; the event loop cannot."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), _RDHUP)
        if any(events & _HANGUP for _, events in self._poll.poll(0)):
            return True
        if not self._is_stuck or self._server is None or self._client is None:
            return False
        return sock_diag.has_left(self._server, self._client)


def _address(name: object) -> tuple[str, int] | None:
    return (name[0], name[1]) if isinstance(name, tuple) else None
