"""Closed connections leave no reference cycles: their memory is free without the collector."""

from __future__ import annotations

import gc
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Iterator

import pytest
from tools.h1_server import PLACES, Call
from tools.h1_server import serving as serving_h1
from tools.net import wait_until
from tools.scripted_upstream import Upstream, fetch, serving

from swapchart.adapters.http1.client.response_parser import ResponseParser
from swapchart.adapters.http1.server.connection import ServerConnection

_GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _count(kind: type) -> int:
    return sum(1 for one in gc.get_objects() if isinstance(one, kind))


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("is_complete", [True, False])
def test_server_connection_closed_leaves_no_cycle(where: str, is_complete: bool) -> None:
    """A client that disconnects, behind its response or within it, leaves nothing behind."""
    before = _count(ServerConnection)
    with serving_h1(where) as server:

        async def respond(call: Call) -> None:
            await call.start()
            await call.piece(b"half", more=not is_complete)
            await call.receive()
            await call.receive()

        server.handlers["/"] = respond
        for _ in range(3):
            with server.connect() as client:
                client.send(_GET)
                client.read_head()
        wait_until(lambda: len(server.calls) == 3)
        server.calls.clear()
        wait_until(lambda: _count(ServerConnection) == before)


@pytest.mark.anyio
async def test_client_connection_closed_leaves_no_cycle() -> None:
    """A connection that is closed behind its response is gone with it."""

    async def once(up: Upstream, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    before = _count(ResponseParser)
    async with serving(once) as (_, pool):
        for _ in range(3):
            assert await fetch(pool, None) == (200, b"ok")
    assert _count(ResponseParser) == before
