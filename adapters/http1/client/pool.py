"""Connections to one upstream: a keep-alive pool that survives being cancelled anywhere.

A client that leaves cancels its request; that is the normal case here, not an accident. So a
connection belongs to exactly one owner at any time (the pool, or one exchange), every change
of owner is synchronous, and whoever loses interest closes: nothing is handed over in a task
that might never run.

An exchange costs one write and one wait. Answers are read while the request's body is still
being sent, and their pieces are passed on as they came.

Whether a request is sent again is decided in `retry`. So that fewer requests need it, a connection
that was idle for over a second is not given to a request that must not be sent twice.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from ..write_batch import WriteBatch
from .connection import Connection
from .errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from .response import UpstreamResponse
from .retry import IDEMPOTENT_METHODS, is_repeatable, may_send_again

__all__ = [
    "ConnectionPool",
    "UpstreamBroken",
    "UpstreamError",
    "UpstreamResponse",
    "UpstreamTimeout",
    "UpstreamUnreachable",
    "field_lines",
    "post_head",
]

_FRESH_S = 1.0  # longest idle time, in seconds, after which a POST still gets a used connection
_BODILESS = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_BREAKING = b"\r\n\0"
_SPLITTING = _BREAKING + b" "
_FRAMING_LENGTHS = frozenset(len(name) for name in _FRAMING)  # looked at before the names are


class ConnectionPool:
    """Keep-alive connections to one upstream, made when needed, the youngest used first.

    Bound to the event loop it is first used in. No redirects, no cookies, no proxies of the
    environment, no decompression: what is given is sent, what comes is handed on.

    Attributes:
        name: ``host:port``, for messages.
        outbox: Of the requests that are sent at the end of the loop's turn.
        max_header_bytes: Largest head, and largest trailer, of an answer.
        is_closed: ``aclose`` was called.
        is_secure: Connections are TLS, and so dear that one is kept after a stream of events too.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | None = None,
        connect_timeout_s: float = 30.0,
        idle_timeout_s: float = 4.0,
        max_connections: int | None = None,
        max_header_bytes: int = 65536,
    ) -> None:
        """Prepare a pool; nothing is connected yet.

        Args:
            host: Name or address of the upstream.
            port: Its TCP port.
            ssl: Speak TLS with this context, and verify *host* as it says.
            connect_timeout_s: Longest time for a connection to come about, TLS included.
            idle_timeout_s: How long an unused connection is kept; below the upstream's own
                limit (llama-server closes at 4.9 s).
            max_connections: Requests beyond it wait for a place; None is without limit.
            max_header_bytes: Largest head of an answer, in bytes.
        """
        self.name = f"{host}:{port}"
        self.outbox = WriteBatch()
        self.max_header_bytes = max_header_bytes
        self.is_closed = False
        self.is_secure = ssl is not None
        self._address = (host, port)
        self._ssl = ssl
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._limit = max_connections
        self._idle: list[Connection] = []  # the one idle for the shortest time is last
        self._open_count = 0  # connections open or being opened
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._alive: set[Connection] = set()  # until connection_lost
        self._gone: asyncio.Event | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Number of connections, idle ones and those being made included."""
        return self._open_count

    @property
    def idle(self) -> int:
        """Number of connections that wait for a request."""
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
        """Send one request and wait for the head of the answer.

        Framing is made here: Content-Length in *headers* counts only for an iterator, which is
        otherwise sent chunked; Transfer-Encoding never counts.

        Args:
            method: Such as b"POST".
            target: Path and query, sent as they are.
            headers: All fields, Host included; shape (n, 2). See ``headers.request_headers``. Or,
                for a body that is no iterator, what `field_lines` made of them.
            body: The whole body, its pieces, or None.
            header_timeout_s: Longest time from the request to the head of its answer, in
                seconds; None waits for ever.

        Raises:
            UpstreamUnreachable: No connection came about.
            UpstreamTimeout: Connecting or the answer took too long.
            UpstreamBroken: The connection or the answer was unusable.
            ValueError: A part of the request contains what would end it early.
        """
        head, length = _serialise(method, target, headers, body)
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
        """Take an idle connection that is fit for a POST request, or None; never waits.

        Pair with ``Connection.begin``, or with `put_back`.
        """
        return self._pop_idle(is_safe=False)

    async def aclose(self) -> None:
        """Close every connection, those in use too, and refuse further requests."""
        self.is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                self._open_count += 1
                waiter.set_result(None)
        self.cut("the pool was closed")
        if self._alive:
            self._gone = asyncio.Event()
            await self._gone.wait()

    def cut(self, why: str) -> None:
        """Close every connection, those in use too; their answers break off for reason *why*."""
        for conn in list(self._alive):
            conn.end(why)

    # -- places -----------------------------------------------------------------------------

    def _pop_idle(self, is_safe: bool) -> Connection | None:
        """Pop an idle connection that is young enough and still there."""
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
        """Make a connection, or wait for one where there is a limit; tells if it is used."""
        self._refuse_if_closed()
        while self._limit is not None and self._open_count >= self._limit:
            if self._idle:
                self._idle[0].discard()  # too old for this request, or there were others
                continue
            conn = await self._wait_place()
            if conn is None:
                return await self._connect(), False
            if conn.is_usable():
                return conn, True
            conn.discard()
        self._open_count += 1
        return await self._connect(), False

    async def _wait_place(self) -> Connection | None:
        """Wait in turn; a connection, or None for a place that is now the caller's."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.done() or waiter.cancelled():
                with suppress(ValueError):  # passed over meanwhile
                    self._waiters.remove(waiter)
            elif (conn := waiter.result()) is None:
                self._free_place()
            else:
                self.put_back(conn)
            raise

    async def _connect(self) -> Connection:
        """Connect; the caller has reserved a place, which is freed when this fails."""
        loop = asyncio.get_running_loop()
        conn = Connection(self, loop)
        host, port = self._address
        try:
            self._refuse_if_closed()
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: conn, host, port, ssl=self._ssl)
            self._refuse_if_closed()
        except BaseException as exc:
            conn.discard()
            self.note_lost(conn)  # uvloop does not always say so of one that was being made
            if isinstance(exc, TimeoutError):
                text = f"no connection to {self.name} in {self._connect_timeout_s} s"
                raise UpstreamTimeout("connect", text) from exc
            if isinstance(exc, OSError | UnicodeError):
                raise UpstreamUnreachable("connect", f"{self.name}: {exc}") from exc
            raise
        return conn

    def _refuse_if_closed(self) -> None:
        if self.is_closed:
            raise UpstreamUnreachable("connect", f"{self.name}: the pool was closed")

    def put_back(self, conn: Connection) -> None:
        """Take a connection back whose exchange ended cleanly, or hand it on to who waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(conn)
                return
        conn.idle_since = conn.loop.time()
        self._idle.append(conn)
        if self._sweeper is None:
            self._sweeper = conn.loop.call_later(self._idle_timeout_s, self._sweep)

    def _free_place(self) -> None:
        """Pass a place on to who waits, or let it go."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._open_count -= 1

    def note_made(self, conn: Connection) -> None:
        """Note that a connection has a socket, until ``note_lost``."""
        self._alive.add(conn)

    def note_lost(self, conn: Connection) -> None:
        """Note that a connection is closed for good."""
        self._alive.discard(conn)
        if self._gone is not None and not self._alive:
            self._gone.set()

    def note_closing(self, conn: Connection) -> None:
        """Forget a connection that is being closed."""
        if conn in self._idle:
            self._idle.remove(conn)
        self._free_place()

    def _sweep(self) -> None:
        """Close what has been idle for too long, and look again when the next one is due."""
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
    """Write *headers* as they are sent, without those that say how the body is framed.

    Raises:
        ValueError: A field contains what would end it early.
    """
    lines = [
        b"%b: %b\r\n" % field
        for field in headers
        if len(field[0]) not in _FRAMING_LENGTHS or field[0].lower() not in _FRAMING
    ]
    found = b"".join(lines)
    if len(found) - len(found.translate(None, _BREAKING)) != 2 * len(lines):
        raise ValueError("CR, LF or NUL in the head of a request")
    return found


def post_head(target: bytes, lines: bytes, body: bytes) -> bytes:
    """Return the head of a POST request; *lines* are of `field_lines`.

    Raises:
        ValueError: *target* has a space, or what would end it early.
    """
    return _serialise(b"POST", target, lines, body)[0]


def _serialise(
    method: bytes,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]] | bytes,
    body: bytes | AsyncIterator[bytes] | None,
) -> tuple[bytes, int | None]:
    """Write the head of a request; tells the length an iterator is to have, if it is known."""
    lines = headers if isinstance(headers, bytes) else field_lines(headers)
    length: int | None = None
    framing = b""
    if isinstance(body, bytes):
        if body or method not in _BODILESS:
            framing = b"Content-Length: %d\r\n" % len(body)
    elif body is not None:
        assert not isinstance(headers, bytes), "the length of a body in pieces is in a field"
        length = _announced(headers)
        if length is None:
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            framing = b"Content-Length: %d\r\n" % length
    elif method not in _BODILESS:
        framing = b"Content-Length: 0\r\n"
    for part in (method, target):
        if not part or len(part.translate(None, _SPLITTING)) != len(part):
            raise ValueError(f"expected a method and a target without spaces, got {part[:99]!r}")
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, lines, framing), length


def _announced(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    values = {value for name, value in headers if name.lower() == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit():
        raise ValueError("expected one Content-Length, a decimal number")
    return int(value)
