"""Half-close of connections that the peer has reset, which the event loop has not noticed yet.

A peer that is gone resets the connection when something is sent to it. Over loopback that has
happened when the call that sends returns, so that the half-close behind it fails each time.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tools.h1_server import Call, Server, serving
from tools.net import LONG_S
from tools.raw import reset
from tools.scripted_upstream import HOST
from tools.wire import get

import swapchart
from swapchart.adapters.http1.client.pool import ConnectionPool
from swapchart.adapters.http1.half_close import half_close
from swapchart.adapters.http1.server.client_stream import TUNNEL, ClientStream

KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
HANDSHAKE = [(b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13")]
UPGRADE = [*HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Ends(asyncio.Protocol):
    """Notes what comes, and the end of the connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.data = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _: Exception | None) -> None:
        self.lost.set_result(None)


async def connect(protocol: asyncio.Protocol) -> socket.socket:
    """Connect *protocol*; returns the socket of its peer."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=LONG_S)
        await loop.connect_accepted_socket(lambda: protocol, listener.accept()[0])
    return peer


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.anyio
async def test_half_close_of_a_connection_that_was_reset_lets_it_end() -> None:
    """Nothing is raised, and the connection is lost as after any reset."""
    ends = Ends()
    reset(await connect(ends))

    assert half_close(ends.transport)
    await asyncio.wait_for(ends.lost, LONG_S)
    assert not half_close(ends.transport)


@pytest.mark.anyio
async def test_half_close_keeps_what_the_peer_sent_before_it_left() -> None:
    """The bytes before the end are received, although sending to the peer reset the connection."""
    ends = Ends()
    peer = await connect(ends)
    peer.sendall(b"last words")
    peer.close()
    ends.transport.write(b"x")

    assert half_close(ends.transport)
    await asyncio.wait_for(ends.lost, LONG_S)
    assert ends.data == b"last words"


@pytest.mark.anyio
async def test_websocket_refused_to_a_client_that_has_left_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client may leave while its websocket is opened; that fails nothing."""
    stream = ClientStream(asyncio.get_running_loop())
    peer = await connect(stream)

    async def refuse(scope: dict[str, Any], *_: object) -> None:
        peer.close()
        scope["extensions"][TUNNEL].respond(502, [], b"its server failed")

    stream.start(refuse, {"headers": HANDSHAKE, "http_version": "1.1", "path": "/"})
    await asyncio.wait_for(stream.finished, LONG_S)

    assert errors(caplog) == []


@pytest.mark.anyio
async def test_websocket_whose_upstream_has_left_ends_without_an_error() -> None:
    """The half-close to an upstream that is gone ends its response."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = ConnectionPool("127.0.0.1", listener.getsockname()[1])
        asking = asyncio.create_task(pool.request(b"GET", b"/", UPGRADE))
        upstream, _ = await asyncio.to_thread(listener.accept)
        with upstream:
            await asyncio.to_thread(upstream.recv, 1 << 16)
            upstream.sendall(SWITCH + b"last words")
            response = await asking
        response.write(b"x")
        response.end_writing()

        assert await response.read() == b"last words"
        assert await response.read() == b""
        await pool.aclose()


@pytest.mark.parametrize("where", ["asyncio", "uvloop", "uvicorn, asyncio"])
def test_last_response_to_a_client_that_has_left_is_no_error(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The application gets no error, and the log gets no line."""

    async def respond(server: Server, call: Call) -> None:
        await call.answer()

    assert serve_without_client(where, respond) == []
    assert errors(caplog) == []


def test_stock_client_that_has_left_is_rejected_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The limits of uvicorn's own layer may reject a client that is gone."""

    async def reject(server: Server, call: Call) -> None:
        assert server.uvicorn is not None
        (connection,) = server.uvicorn.server_state.connections
        cast("Any", connection)._reject(408)

    assert serve_without_client("uvicorn, asyncio, stock", reject) == []
    assert errors(caplog) == []


def serve_without_client(
    where: str, respond: Callable[[Server, Call], Awaitable[None]]
) -> list[Exception]:
    """Let *respond* serve a client that closes first; returns what that raised."""
    with serving(where) as server:
        client = server.connect()

        async def handle(call: Call) -> None:
            client.close()
            await respond(server, call)

        server.handlers["/"] = handle
        client.send(get("/", b"Connection: close"))
        server.wait_call()
    return server.calls[0].events


def test_half_close_is_the_only_caller_of_write_eof() -> None:
    """Another one would raise when its peer is gone."""
    root = Path(swapchart.__file__).parent
    found = {
        path.name
        for folder in ("adapters", "machine", "runtime")
        for path in (root / folder).rglob("*.py")
        if re.search(r"\.write_eof\(", path.read_text())
    }

    assert found == {"half_close.py"}
