"""A real upstream on loopback that plays a script, and a pool that is connected to it."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from swapchart.adapters.http1.client.pool import ConnectionPool, UpstreamResponse

Script = Callable[["Upstream", Reader, Writer], Awaitable[None]]
HOST = [(b"Host", b"up")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """A real server on loopback that plays a script on each connection.

    Attributes:
        connections: How many it accepted.
        gone: How many of them it has seen closed by the other end.
        requests: Head and body of what it read with ``read_request``.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = self.gone = self.port = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.script(self, reader, writer)
        except (EOFError, ConnectionError):
            self.gone += 1
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self.tasks.discard(task)
            writer.close()

    async def read_request(self, reader: Reader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        body = b""
        if b"\r\ntransfer-encoding: chunked" in lower:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        elif (at := lower.find(b"\r\ncontent-length:")) >= 0:
            body = await reader.readexactly(int(head[at + 17 :].split(b"\r\n")[0]))
        self.requests.append((head, body))
        return body


@asynccontextmanager
async def serving(
    script: Script, *, server_ssl: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Upstream, ConnectionPool]]:
    up = Upstream(script)
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0, ssl=server_ssl)
    up.port = server.sockets[0].getsockname()[1]
    pool = ConnectionPool(options.pop("host", "127.0.0.1"), up.port, **options)
    try:
        yield up, pool
    finally:
        await pool.aclose()
        assert (pool.open, pool.idle) == (0, 0)
        server.close()
        for task in list(up.tasks):
            task.cancel()
        await asyncio.gather(*up.tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(up: Upstream, reader: Reader, writer: Writer) -> None:
    while True:
        body = await up.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


def answering(answer: bytes, *, close: bool = True) -> Script:
    async def script(up: Upstream, reader: Reader, writer: Writer) -> None:
        while True:
            await up.read_request(reader)
            writer.write(answer)
            await writer.drain()
            if close:
                return

    return script


async def silent(up: Upstream, reader: Reader, writer: Writer) -> None:
    await up.read_request(reader)
    await reader.readexactly(1)


async def body_of(response: UpstreamResponse) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    assert response.at_end
    return b"".join(pieces)


async def fetch(
    pool: ConnectionPool, body: bytes | AsyncIterator[bytes] | None = b"x", method: bytes = b"POST"
) -> tuple[int, bytes]:
    async with await pool.request(method, b"/", HOST, body) as response:
        return response.status, await body_of(response)


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
