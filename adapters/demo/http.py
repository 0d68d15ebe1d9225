"""HTTP/1.1 server like that of an inference server: one task per connection, bodies and streams.

A disconnect of the client is noticed at once, also while nothing is being written; a handler that
generates asks for it with ``Exchange.watched`` and is then canceled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

HEAD_LIMIT = 1 << 16
"""Maximum size of the request line and headers; bytes."""
BODY_LIMIT = 1 << 26
"""Maximum size that ``Exchange.body`` collects; bytes. Streams of chunks have no limit."""
_BUFFER_HIGH = 1 << 18

Pairs = Sequence[tuple[str, str]]


class HttpError(Exception):
    """The response is an error object.

    Attributes:
        status: HTTP status; 4xx or 5xx.
        kind: ``type`` of the error object.
        extra: Further members of the error object.
    """

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", **extra: int
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.extra = status, kind, extra

    def value(self) -> dict[str, object]:
        """Return the JSON value of the response, in llama-server's format."""
        error = {"code": self.status, "message": str(self), "type": self.kind, **self.extra}
        return {"error": error}


def whole_number(value: object, what: str, default: int) -> int:
    """Return *value* as a number, or *default* for None.

    Raises:
        HttpError: It is not a whole number.
    """
    if value is None:
        return default
    try:
        return int(str(value))
    except ValueError as error:
        raise HttpError(400, f"expected {what} to be a whole number, got {value!r}") from error


class DisconnectedError(Exception):
    """The client has disconnected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """Limits of a persistent connection.

    Attributes:
        idle_s: Maximum time between requests; seconds.
        limit: Maximum number of requests; the last response has ``Connection: close``.
    """

    idle_s: float = 5.0
    limit: int = 100


class HttpConnection(asyncio.Protocol):
    """One connection: receives bytes, and passes exchanges to *serve* one after the other."""

    def __init__(
        self,
        serve: Callable[[Exchange], Awaitable[None]],
        keep: KeepAlive,
        open_connections: set[HttpConnection],
    ) -> None:
        self._serve, self._keep, self._connections = serve, keep, open_connections
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._eof = False
        self.is_busy = False
        self.watched = 0

    # ---- callbacks of the transport -------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the task of the new connection."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Buffer *data*; a full buffer stops the sender."""
        self._buffer += data
        if len(self._buffer) > _BUFFER_HIGH:
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """Treat the end of the client's side as a disconnect, as llama-server does."""
        self._eof = True
        self._news.set()
        if self.watched:
            self._task.cancel()
        return True  # a finished response may still be written

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection's task."""
        self._eof = True
        self._writable.set()
        self._connections.discard(self)
        self._task.cancel()

    def pause_writing(self) -> None:
        """Make writers wait until the client has read more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let writers continue."""
        self._writable.set()

    # ---- used by exchanges ------------------------------------------------------
    @property
    def is_gone(self) -> bool:
        """True if the client has closed its side."""
        return self._eof

    def close_if_idle(self) -> None:
        """Close the connection unless an exchange is in progress."""
        if not self.is_busy:
            self.transport.close()

    async def write(self, data: bytes) -> None:
        """Send *data*; return when there is room for more.

        Raises:
            DisconnectedError: The connection is lost.
        """
        if self.transport.is_closing():
            raise DisconnectedError
        self.transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    async def read(self, limit: int) -> bytes:
        """Return 1..*limit* bytes, or none at the end of the client's side."""
        while not self._buffer and not self._eof:
            await self._more()
        data = bytes(self._buffer[:limit])
        self._consume(len(data))
        return data

    async def read_exactly(self, size: int) -> bytes:
        """Return *size* bytes.

        Raises:
            DisconnectedError: The client's side ended before.
        """
        while len(self._buffer) < size:
            if self._eof:
                raise DisconnectedError
            await self._more()
        data = bytes(self._buffer[:size])
        self._consume(size)
        return data

    async def read_until(self, mark: bytes, limit: int) -> bytes:
        """Return the bytes up to and including *mark*.

        Raises:
            DisconnectedError: The client's side ended before.
            HttpError: *mark* did not come within *limit* bytes.
        """
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise HttpError(431, f"expected a head of at most {limit} bytes")
            if self._eof:
                raise DisconnectedError
            await self._more()
        data = bytes(self._buffer[: at + len(mark)])
        self._consume(len(data))
        return data

    async def _more(self) -> None:
        self._news.clear()
        self.transport.resume_reading()
        await self._news.wait()

    def _consume(self, size: int) -> None:
        del self._buffer[:size]
        if len(self._buffer) <= _BUFFER_HIGH:
            self.transport.resume_reading()

    # ---- the connection's task ----------------------------------------------------
    async def _run(self) -> None:
        try:
            for left in range(self._keep.limit - 1, -1, -1):
                async with asyncio.timeout(self._keep.idle_s):
                    head = await self.read_until(b"\r\n\r\n", HEAD_LIMIT)
                if not await self._answer(head, left):
                    break
        except (DisconnectedError, TimeoutError, asyncio.CancelledError):
            pass  # the client disconnected, or sent no further request
        except HttpError as error:
            self.transport.write(_error_response(error))
        finally:
            self.transport.close()

    async def _answer(self, head: bytes, left: int) -> bool:
        exchange = _parse(head, self, f"timeout={self._keep.idle_s:g}, max={left}")
        exchange.keeps &= left > 0
        self.is_busy = True
        try:
            await self._serve(exchange)
            await exchange.skip_body()
        finally:
            self.is_busy = False
        return exchange.keeps


@dataclass(slots=True, eq=False, kw_only=True)
class Exchange:
    """One request and its response.

    Attributes:
        method: As sent.
        target: The raw request target, undecoded.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        headers: Names and values as sent, in order.
        keeps: The connection stays open after this exchange.
        status: Status of the response; 0 before.
    """

    connection: HttpConnection
    method: str
    target: str
    version: str
    headers: Pairs
    keeps: bool
    keep_note: str
    length: int
    is_chunked: bool
    status: int = 0
    _is_read: bool = field(default=False)

    @property
    def path(self) -> str:
        """Target without its query."""
        return self.target.partition("?")[0]

    def query(self) -> dict[str, str]:
        """Return the query parameters; of equal names the last."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def header(self, name: str) -> str:
        """Return the first value of *name* (lower case), or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; once."""
        if self._is_read:
            return
        self._is_read = True
        keeps, self.keeps = self.keeps, False  # after a broken body the next request is unknown
        if self.header("expect").lower() == "100-continue":
            await self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.is_chunked:
            async for data in _dechunk(self.connection):
                yield data
        else:
            async for data in _pieces(self.connection, self.length):
                yield data
        self.keeps = keeps

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            HttpError: It is longer than ``BODY_LIMIT``.
        """
        whole = bytearray()
        async for data in self.chunks():
            whole += data
            if len(whole) > BODY_LIMIT:
                raise HttpError(413, f"expected a body of at most {BODY_LIMIT} bytes")
        return bytes(whole)

    async def skip_body(self) -> None:
        """Read a body that the handler did not use, because the next request follows it.

        It is read also if the connection is to be closed: closing with unread bytes would reset the
        connection before the client has read the response.
        """
        if not self.header("expect"):
            async for _ in self.chunks():
                pass

    async def json_body(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty body is an empty object.

        Raises:
            HttpError: It is not one.
        """
        raw = await self.body()
        try:
            value = json.loads(raw or b"{}")
        except ValueError as error:  # UnicodeDecodeError is one too
            raise HttpError(400, f"expected JSON: {error}") from error
        if not isinstance(value, dict):
            raise HttpError(400, f"expected a JSON object, got {type(value).__name__}")
        return value

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel this task as soon as the client disconnects."""
        if self.connection.is_gone:
            raise DisconnectedError
        self.connection.watched += 1
        try:
            yield
        finally:
            self.connection.watched -= 1

    async def send(
        self, status: int, content_type: str, body: bytes, *, headers: Pairs = ()
    ) -> None:
        """Send a response with a complete body."""
        fields = [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]
        head = self._head(status, fields)
        await self.connection.write(head if self.method == "HEAD" else head + body)

    async def send_json(self, value: object, *, status: int = 200) -> None:
        """Send a response with *value* as compact JSON."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        await self.send(status, "application/json; charset=utf-8", text.encode())

    async def start_stream(self, content_type: str) -> None:
        """Begin a response of unknown length; ``stream`` and ``end_stream`` follow."""
        fields = [("X-Accel-Buffering", "no"), ("Content-Type", content_type)]
        if self.version == "HTTP/1.0":
            self.keeps = False
        else:
            fields.append(("Transfer-Encoding", "chunked"))
        await self.connection.write(self._head(200, fields))

    async def stream(self, data: bytes) -> None:
        """Send a piece of the response as one chunk; not empty."""
        is_chunked = self.version != "HTTP/1.0"
        await self.connection.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)

    async def end_stream(self) -> None:
        """End the response."""
        if self.version != "HTTP/1.0":
            await self.connection.write(b"0\r\n\r\n")

    def _head(self, status: int, fields: Pairs) -> bytes:
        self.status = status
        if self.header("expect") and not self._is_read:
            self.keeps = False  # the client may or may not send its body
        common = [("Server", "swapchart-demo"), ("Access-Control-Allow-Origin", "*")]
        closing = ("Keep-Alive", self.keep_note) if self.keeps else ("Connection", "close")
        return _head(status, [*common, *fields, closing])


def _head(status: int, fields: Pairs) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _error_response(error: HttpError) -> bytes:
    body = json.dumps(error.value()).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return _head(error.status, [*fields, ("Connection", "close")]) + body


def _parse(head: bytes, connection: HttpConnection, keep_note: str) -> Exchange:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(400, "expected METHOD TARGET HTTP/1.1")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError(400, "expected header lines of the form NAME: VALUE")
        headers.append((name, value.strip(" \t")))
    lower = {name.lower(): value for name, value in headers}
    length = lower.get("content-length", "0")
    is_chunked = lower.get("transfer-encoding", "").lower() == "chunked"
    if not length.isdecimal() or (is_chunked and "content-length" in lower):
        raise HttpError(400, "expected one length of the body")
    options = lower.get("connection", "").lower()
    return Exchange(
        connection=connection,
        method=parts[0],
        target=parts[1],
        version=parts[2],
        headers=headers,
        keeps="keep-alive" in options if parts[2] == "HTTP/1.0" else "close" not in options,
        keep_note=keep_note,
        length=int(length),
        is_chunked=is_chunked,
    )


async def _pieces(connection: HttpConnection, size: int) -> AsyncIterator[bytes]:
    while size:
        data = await connection.read(min(size, 1 << 16))
        if not data:
            raise DisconnectedError
        size -= len(data)
        yield data


async def _dechunk(connection: HttpConnection) -> AsyncIterator[bytes]:
    while size := await _chunk_size(connection):
        async for data in _pieces(connection, size):
            yield data
        await connection.read_exactly(2)
    while await connection.read_until(b"\r\n", HEAD_LIMIT) != b"\r\n":
        pass  # trailers


async def _chunk_size(connection: HttpConnection) -> int:
    line = await connection.read_until(b"\r\n", HEAD_LIMIT)
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise HttpError(400, "expected a chunk size") from error
