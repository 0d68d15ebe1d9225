"""How clients leave our HTTP/1.1 server, and how soon its application knows.

Row C15 of the fault catalogue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from tools.h1_server import Call, Server, serving
from tools.net import wait_until

from swapchart.adapters.h1 import ClientGoneError
from swapchart.adapters.h1_exchange import TELL_LEAVING

H = b"Host: x\r\n"
G = b"GET / HTTP/1.1\r\n" + H
P = b"POST / HTTP/1.1\r\n" + H


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "uvicorn"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.calls.clear()
    running.handlers.clear()
    return running


def get(path: str, *fields: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, path.encode(), version), b"Host: x", *fields, b"", b""]
    return b"\r\n".join(lines)


async def waits(call: Call) -> None:
    """Wait for the client to leave, and note it."""
    message = await call.receive()
    while message["type"] == "http.request":
        message = await call.receive()
    call.events.append(message["type"])


LEAVING = {
    "waiting": get("/wait"),
    "pipelined": get("/wait") + get("/"),
    "garbage behind": get("/wait") + b"\x00garbage\r\n\r\n",
    "body unread": get("/deaf", b"Content-Length: 9000000", method=b"POST") + bytes(3_000_000),
    "body half sent": get("/wait", b"Content-Length: 9", method=b"POST") + b"abc",
    "much pipelined": get("/deaf") + get("/", b"A: " + b"b" * 4000) * 100,
}


@pytest.mark.parametrize("how", ["close", "reset"])
def test_C15_leaving_is_told_to_who_does_not_receive(server: Server, how: str) -> None:
    """Once, to the last that asked, and at once to who asks only then; to nobody if so wished."""

    async def busy(call: Call) -> None:
        tell = call.scope["extensions"][TELL_LEAVING]
        left = asyncio.Event()
        tell(lambda: call.events.append("nobody listens any more"))
        tell(left.set)
        call.events.append("busy")
        await left.wait()
        tell(None)
        tell(lambda: call.events.append("gone before"))

    server.handlers["/busy"] = busy
    client = server.connect()
    client.send(get("/busy", b"Content-Length: 900000", method=b"POST") + bytes(300_000))
    wait_until(lambda: server.calls and server.calls[0].events)
    client.reset() if how == "reset" else client.close()

    wait_until(lambda: len(server.calls[0].events) > 1)
    assert server.calls[0].events[:2] == ["busy", "gone before"]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_C15_leaving_is_noticed(server: Server, name: str, how: str) -> None:
    """Whatever a client has sent besides, the application is told within a second that it left."""

    async def deaf(call: Call) -> None:
        """Read no body, but look whether the client is there."""
        with contextlib.suppress(ClientGoneError):
            await call.start()
            while True:
                await call.piece(b"")
                await asyncio.sleep(0.01)
        call.events.append("http.disconnect")

    server.handlers.update({"/wait": waits, "/deaf": deaf})
    client = server.connect()
    client.send(LEAVING[name])
    call = server.wait_call()
    client.close() if how == "close" else client.reset()
    wait_until(lambda: call.events, 1.5)

    assert call.events == ["http.disconnect"]
    assert len(server.calls) == 1


def test_C15_half_a_close_is_leaving(server: Server) -> None:
    """A client that will not send any more counts as gone, as with hypercorn."""
    server.handlers["/wait"] = waits
    with server.connect() as client:
        client.send(get("/wait"))
        call = server.wait_call()
        client.socket.shutdown(1)
        wait_until(lambda: call.events, 1.0)

        assert call.events == ["http.disconnect"]


def test_sending_to_nobody_raises(server: Server) -> None:
    """An application that streams to a client that left is told so by send, as an OSError."""

    async def streams(call: Call) -> None:
        await call.start()
        while True:
            await call.piece(b"x" * 1000)
            await asyncio.sleep(0)

    server.handlers["/"] = streams
    client = server.connect()
    client.send(get("/"))
    client.read_head()
    client.reset()
    call = server.wait_call()
    wait_until(lambda: call.events)

    assert isinstance(call.events[0], ClientGoneError)
    assert isinstance(call.events[0], OSError)


def test_answered_requests_are_told_as_disconnected(server: Server) -> None:
    """Whoever still listens after the answer does not listen for ever."""

    async def answers(call: Call) -> None:
        await call.read()
        watcher = asyncio.ensure_future(call.receive())
        await asyncio.sleep(0)
        await call.answer()
        call.events.append((await watcher)["type"])
        call.events.append((await call.receive())["type"])

    server.handlers["/"] = answers
    with server.connect() as client:
        client.send(get("/"))
        client.read_answer()
        wait_until(lambda: len(server.calls[0].events) == 2)

    assert server.calls[0].events == ["http.disconnect"] * 2
