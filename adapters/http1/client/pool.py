"""HTTP/1.1 client connection pool: keep-alive connections to one upstream.

A request may be cancelled at any point, since clients disconnect at any time. Therefore a
connection belongs to exactly one owner at any time (the pool or one exchange), every change of
owner is synchronous, and an exchange that is cancelled closes its connection.

An exchange costs one write and one wait. The response is read while the body of the request is
still being sent, and its chunks are passed on as they arrive.

Whether a request is sent again is decided in `retry`. So that fewer requests need it, a connection
that was idle for over a second is not used for a request that must not be sent twice.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from ..io_batch import ReadBatch, WriteBatch
from .connection import Connection
from .errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from .response import UpstreamResponse
from .response_parser import RepeatedHeads
from .retry import IDEMPOTENT_METHODS, is_repeatable, may_send_again
from .stream_watch import StreamWatch

__all__ = [
    "ConnectionPool",
    "UpstreamBroken",
    "UpstreamError",
    "UpstreamResponse",
    "UpstreamTimeout",
    "UpstreamUnreachable",
    "field_lines",
    "post_head",
    "post_start",
    "request_id_line",
]

_FRESH_S = 1.0  # longest idle time in seconds of a connection that a POST may reuse
_BODILESS = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_BREAKING = b"\r\n\0"
_SPLITTING = _BREAKING + b" "
_FRAMING_LENGTHS = frozenset(len(name) for name in _FRAMING)  # cheaper to check than names


class ConnectionPool:
    """Keep-alive connections to one upstream; the one that was used last is reused first.

    Bound to the event loop in which it is first used. Redirects are not followed, cookies are not
    kept, proxies of the environment are ignored and bodies are not decompressed.

    Attributes:
        name: ``host:port`` of the upstream, for error messages.
        read_batch: Data that the end of the loop iteration deals with.
        write_batch: Requests that are sent at the end of the loop iteration.
        repeated_heads: Remembers the heads of responses.
        max_header_bytes: Maximum size of the headers, and of the trailers, of a response.
        is_closed: ``aclose`` was called.
        streams: Decides whether connections are reused after an event stream.
        is_secure: Connections use TLS; they are reused after an event stream without observation,
            since a TLS handshake is expensive.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | None = None,
        connect_timeout_s: float | None = 30.0,
        idle_timeout_s: float = 4.0,
        max_connections: int | None = None,
        max_header_bytes: int = 65536,
        stream_watch_s: float = 0.5,
    ) -> None:
        """Prepare a pool; nothing is connected yet.

        Args:
            host: Name or address of the upstream.
            port: TCP port of the upstream.
            ssl: TLS context, which also says how *host* is verified; None means plain TCP.
            connect_timeout_s: Longest time to connect, TLS handshake included; None means
                unlimited.
            idle_timeout_s: How long an idle connection is kept; less than the keep-alive timeout of
                the upstream (llama-server closes after 4.9 s).
            max_connections: Maximum number of connections; further requests wait. None means
                unlimited.
            max_header_bytes: Maximum size of the headers of a response, in bytes.
            stream_watch_s: See `StreamWatch`.
        """
        self.name = f"{host}:{port}"
        self.read_batch = ReadBatch()
        self.write_batch = WriteBatch()
        self.repeated_heads = RepeatedHeads()
        self.max_header_bytes = max_header_bytes
        self.is_closed = False
        self.streams = StreamWatch(stream_watch_s)
        self.is_secure = ssl is not None
        self._address = (host, port)
        self._ssl = ssl
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._limit = max_connections
        self._idle: list[Connection] = []  # the one that was used last is last
        self._open_count = 0  # connections open or being opened, and not closing
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._connected: set[Connection] = set()  # until their socket is closed
        self._connecting: dict[asyncio.Timeout, str] = {}  # why each is to be given up, or empty
        self._all_closed: asyncio.Event | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Number of connections, including idle ones and those being opened."""
        return self._open_count

    @property
    def idle(self) -> int:
        """Number of idle connections."""
        return len(self._idle)

    async def request(
        self,
        method: bytes,
        target: bytes,
        headers: Sequence[tuple[bytes, bytes]] | bytes,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        header_timeout_s: float | None = None,
    ) -> UpstreamResponse:
        """Send one request and wait for the headers of its response.

        The framing headers are made here: Content-Length in *headers* is used only for an iterator,
        which is otherwise sent with chunked coding; Transfer-Encoding is ignored.

        Args:
            method: Such as b"POST".
            target: Path and query, sent unchanged.
            headers: All header fields, Host included; shape (n, 2). See
                ``headers.request_headers``. Unless the body is an iterator, the result of
                `field_lines` will do.
            body: The whole body, an iterator over its chunks, or None.
            header_timeout_s: Longest time from the request to the headers of its response, in
                seconds; None means unlimited.

        Raises:
            UpstreamUnreachable: No connection was made.
            UpstreamTimeout: Connecting or the response took too long.
            UpstreamBroken: The connection or the response was unusable, or was aborted.
            ValueError: The method, target or a header contains a line break or the like.
        """
        head, length = _serialize_head(method, target, headers, body)
        conn = self._pop_idle(method in IDEMPOTENT_METHODS)
        is_reused = conn is not None
        retries = 0
        while True:
            if conn is None:
                conn, is_reused = await self._acquire()
            try:
                return await conn.exchange(
                    head,
                    body,
                    is_head=method == b"HEAD",
                    length=length,
                    header_timeout_s=header_timeout_s,
                )
            except UpstreamBroken as error:
                if not may_send_again(
                    error,
                    is_reused=is_reused,
                    is_repeatable=is_repeatable(method, body),
                    retries=retries,
                ):
                    raise
            conn = None
            retries += 1

    def take(self) -> Connection | None:
        """Return an idle connection that a POST request may use, or None; never wait.

        Follow it with ``Connection.begin`` or `put_back`.
        """
        return self._pop_idle(is_safe=False)

    async def aclose(self) -> None:
        """Close every connection, including those in use, and reject further requests."""
        self.is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                self._open_count += 1
                waiter.set_result(None)
        self.abort_connections("the pool was closed")
        if self._connected:
            self._all_closed = asyncio.Event()
            await self._all_closed.wait()

    def abort_connections(self, why: str) -> None:
        """Close every connection, also those in use or being opened; exchanges fail for *why*."""
        for conn in list(self._connected):
            conn.abort(why)
        for limit in self._connecting:
            if not limit.expired():
                self._connecting[limit] = why
                limit.reschedule(asyncio.get_running_loop().time())

    # -- connections --------------------------------------------------------------------------

    def _pop_idle(self, is_safe: bool) -> Connection | None:
        """Pop an idle connection that is still open and was used recently enough."""
        idle = self._idle
        if not idle:
            return None
        limit_s = self._idle_timeout_s
        if not is_safe and limit_s > _FRESH_S:
            limit_s = _FRESH_S
        oldest = idle[-1].loop.time() - limit_s
        while idle and idle[-1].idle_since >= oldest:
            conn = idle.pop()
            if conn.is_usable():
                return conn
            conn.discard()
        return None

    async def _acquire(self) -> tuple[Connection, bool]:
        """Open a connection, or wait for one at the limit.

        Returns:
            The connection; True if it carried an earlier request.
        """
        self._refuse_if_closed()
        while self._limit is not None and self._open_count >= self._limit:
            if self._idle:
                self._idle[0].discard()  # idle for too long for this request
                continue
            conn = await self._wait_turn()
            if conn is None:
                return await self._connect(), False
            if conn.is_usable():
                return conn, True
            conn.discard()
        self._open_count += 1
        return await self._connect(), False

    async def _wait_turn(self) -> Connection | None:
        """Wait in order of arrival.

        Returns:
            A connection, or None if the caller may open one, which is counted already.
        """
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.done() or waiter.cancelled():
                with suppress(ValueError):  # removed by `put_back` meanwhile
                    self._waiters.remove(waiter)
            elif (conn := waiter.result()) is None:
                self._release_slot()
            else:
                self.put_back(conn)
            raise

    async def _connect(self) -> Connection:
        """Open a connection, which the caller has counted already; it is uncounted on failure."""
        loop = asyncio.get_running_loop()
        conn = Connection(self, loop)
        host, port = self._address
        limit = asyncio.timeout(self._connect_timeout_s)
        try:
            self._refuse_if_closed()
            async with limit:
                self._connecting[limit] = ""
                await loop.create_connection(lambda: conn, host, port, ssl=self._ssl)
            self._refuse_if_closed()
        except BaseException as exc:
            conn.discard()
            self.note_closed(conn)  # uvloop does not always report a failed connection as lost
            if isinstance(exc, TimeoutError):
                if why := self._connecting[limit]:
                    text = f"{self.name}: {why}"
                    raise UpstreamBroken("connect", text, is_unsent=True, is_local=True) from exc
                text = f"no connection to {self.name} in {self._connect_timeout_s} s"
                raise UpstreamTimeout("connect", text) from exc
            if isinstance(exc, OSError | UnicodeError):
                raise UpstreamUnreachable("connect", f"{self.name}: {exc}") from exc
            raise
        finally:
            self._connecting.pop(limit, None)
        return conn

    def _refuse_if_closed(self) -> None:
        if self.is_closed:
            raise UpstreamUnreachable("connect", f"{self.name}: the pool was closed")

    def put_back(self, conn: Connection) -> None:
        """Take back *conn* after an exchange that ended cleanly; the next waiter gets it."""
        if conn.is_behind_stream and not self.streams.is_kept:
            if self._limit is None:
                self.streams.begin(conn)
            else:  # a request may wait for it
                conn.discard()
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(conn)
                return
        conn.idle_since = conn.loop.time()
        self._idle.append(conn)
        if self._sweeper is None:
            self._sweeper = conn.loop.call_later(self._idle_timeout_s, self._sweep)

    def _release_slot(self) -> None:
        """Let the next waiter open a connection in place of one that is gone."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._open_count -= 1

    def note_connected(self, conn: Connection) -> None:
        """Note that *conn* has a socket."""
        self._connected.add(conn)

    def note_closed(self, conn: Connection) -> None:
        """Note that the socket of *conn* is closed."""
        self._connected.discard(conn)
        if self._all_closed is not None and not self._connected:
            self._all_closed.set()

    def note_closing(self, conn: Connection) -> None:
        """Note that *conn* is unusable from now on, and counts toward no limit."""
        if conn in self._idle:
            self._idle.remove(conn)
        if conn.is_behind_stream:
            self.streams.note_closing(conn)
        self._release_slot()

    def _sweep(self) -> None:
        """Close connections that were idle for too long, and schedule the next check."""
        self._sweeper = None
        idle = self._idle
        if not idle:
            return
        loop = idle[0].loop
        oldest = loop.time() - self._idle_timeout_s
        while idle and idle[0].idle_since <= oldest:
            idle[0].discard()
        if idle:
            due = idle[0].idle_since + self._idle_timeout_s
            self._sweeper = loop.call_at(due, self._sweep)


def field_lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Serialize *headers*, shape (n, 2), without Content-Length and Transfer-Encoding.

    Raises:
        ValueError: A header contains CR, LF or NUL.
    """
    lines = [
        b"%b: %b\r\n" % field
        for field in headers
        if len(field[0]) not in _FRAMING_LENGTHS or field[0].lower() not in _FRAMING
    ]
    found = b"".join(lines)
    if len(found) - len(found.translate(None, _BREAKING)) != 2 * len(lines):
        raise ValueError("CR, LF or NUL in a request header")
    return found


def request_id_line(request_id: bytes) -> bytes:
    """Return the header that tells the upstream the id of a request, as `field_lines` does."""
    return b"X-Request-ID: %b\r\n" % request_id


def post_start(target: bytes, lines: bytes) -> bytes:
    """Return the start of a POST request, which `post_head` completes.

    Args:
        target: Path and query, sent unchanged.
        lines: Header fields, from `field_lines`.

    Raises:
        ValueError: *target* is empty or contains a space, CR, LF or NUL.
    """
    return _request_line(b"POST", target) + lines


def post_head(start: bytes, request_id: bytes, body: bytes) -> bytes:
    """Return request line and headers of a POST request, which begins with *start*."""
    return b"%bX-Request-ID: %b\r\nContent-Length: %d\r\n\r\n" % (start, request_id, len(body))


def _serialize_head(
    method: bytes,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]] | bytes,
    body: bytes | AsyncIterator[bytes] | None,
) -> tuple[bytes, int | None]:
    """Serialize request line and headers.

    Returns:
        They, with the empty line; the size in bytes of a body from an iterator, None if unknown.
    """
    lines = headers if isinstance(headers, bytes) else field_lines(headers)
    length: int | None = None
    framing = b""
    if isinstance(body, bytes):
        if body or method not in _BODILESS:
            framing = b"Content-Length: %d\r\n" % len(body)
    elif body is not None:
        assert not isinstance(headers, bytes), "an iterator needs the headers, for Content-Length"
        length = _content_length(headers)
        if length is None:
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            framing = b"Content-Length: %d\r\n" % length
    elif method not in _BODILESS:
        framing = b"Content-Length: 0\r\n"
    return b"%b%b%b\r\n" % (_request_line(method, target), lines, framing), length


def _request_line(method: bytes, target: bytes) -> bytes:
    for part in (method, target):
        if not part or len(part.translate(None, _SPLITTING)) != len(part):
            raise ValueError(f"expected a method and a target without spaces, got {part[:99]!r}")
    return b"%b %b HTTP/1.1\r\n" % (method, target)


def _content_length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    values = {value for name, value in headers if name.lower() == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit():
        raise ValueError("expected one Content-Length, a decimal number")
    return int(value)
