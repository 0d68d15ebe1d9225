"""Our HTTP/1.1 server inside hypercorn and uvicorn: how it ends, and websockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator

import pytest
from tools.h1_server import PLACES, Call, Server, serving, trickle
from tools.net import takes, wait_until
from tools.raw import Connection
from tools.rows import row

from swapchart.adapters.http1.server import hypercorn_protocol
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("where", PLACES)
def test_shutdown_finishes_requests_in_flight(where: str) -> None:
    """A request that is being answered is answered whole, and the server ends behind it."""
    with serving(where, H1Limits(drain_idle_s=0.2), grace_s=5.0) as server:
        go = asyncio.Event()

        async def slow(call: Call) -> None:
            await call.start()
            await call.piece(b"half")
            await go.wait()
            await call.piece(b"half", more=False)

        server.handlers["/"] = slow
        with server.connect() as client, server.connect() as idle:
            client.send(GET)
            head = client.read_head()
            server.begin_stop()
            assert idle.read_all() == b""
            server.do(go.set)
            assert client.read_body(head).body == b"halfhalf"
            assert client.read_all() == b""
        with takes(0):
            server.thread.join(5)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("where", PLACES)
def test_shutdown_with_idle_client_does_not_wait(where: str) -> None:
    """A pool that does not look at its idle connections holds up the end for a moment only."""
    with (
        serving(where, H1Limits(drain_idle_s=0.2, linger_s=30.0), grace_s=20.0) as server,
        server.connect() as client,
    ):
        client.send(GET)
        assert client.read_answer().status == 200
        server.begin_stop()
        server.thread.join(10)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("reads", [False, True])
@row("C13")
def test_shutdown_does_not_wait_for_stuck_clients(where: str, reads: bool) -> None:
    """Endless streams, stuck applications and slow heads end with the grace period."""
    with serving(where, grace_s=0.5) as server:

        async def endless(call: Call) -> None:
            await call.start()
            while True:
                await call.piece(bytes(100_000))
                await asyncio.sleep(0.01)

        async def ignores_input(call: Call) -> None:
            await asyncio.Event().wait()

        server.handlers.update({"/": endless, "/ignore": ignores_input})
        with server.connect() as client, server.connect() as other, server.connect() as slow:
            client.send(GET)
            other.send(GET.replace(b"/ ", b"/ignore "))
            slow.send(GET[:9])
            server.wait_call(2)
            if reads:
                client.read_exactly(1_000_000)
            server.begin_stop()
            with takes(0.4):  # a little before the server's own deadline
                if reads:
                    assert not client.read_all().endswith(b"0\r\n\r\n")
                server.thread.join(10)
            assert not server.thread.is_alive()
            assert other.read_all() == b""
            assert slow.read_all() == b""
    kinds = {type(call.events[0]) for call in server.calls}
    assert kinds == {asyncio.CancelledError}


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def frame(text: bytes) -> bytes:
    """A masked text frame, its mask being zero."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


async def echo(call: Call) -> None:
    """Answer every word of a websocket."""
    await call.receive()
    await call.send({"type": "websocket.accept"})
    while (message := await call.receive())["type"] == "websocket.receive":
        await call.send({"type": "websocket.send", "text": message["text"].upper()})
    call.events.append(message["type"])


@pytest.fixture(params=PLACES)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(hypercorn_protocol, "_ORPHAN_S", 0.2)
    with serving(request.param) as server:
        server.handlers["/ws"] = echo
        yield server


def read_word(client: Connection) -> bytes:
    head = client.read_exactly(2)
    return client.read_exactly(head[1])


@pytest.mark.parametrize("before", [0, 1, 3])
@row("C26")
def test_websockets_are_upgraded(server: Server, before: int) -> None:
    """With the bytes read so far, in order behind earlier requests, and until they end."""
    with server.connect() as client:
        client.send(GET * before + UPGRADE)
        for _ in range(before):
            assert client.read_answer().status == 200
        assert client.read_head().status == 101
        for word in (b"a", b"GET / HTTP/1.1"):
            client.send(frame(word))
            assert read_word(client) == word.upper()
        call = server.calls[-1]
        assert call.scope["type"] == "websocket"
    wait_until(lambda: call.events)

    assert call.events[0] == "websocket.disconnect"


@row("C26")
def test_websocket_handshake_sent_byte_by_byte_is_accepted(server: Server) -> None:
    """The hand-over does not depend on where the segments end."""
    with server.connect() as client:
        trickle(client, UPGRADE)
        assert client.read_head().status == 101
        trickle(client, frame(b"slowly"))
        assert read_word(client) == b"SLOWLY"


def is_over(call: Call) -> bool:
    """Tell whether the application knows that there is no websocket any more, or was ended."""
    return bool(call.events) and (
        call.events[0] == "websocket.disconnect"
        or isinstance(call.events[0], asyncio.CancelledError)
    )


@row("C26")
def test_websocket_client_that_does_not_wait_for_101_ends_its_application(server: Server) -> None:
    """It breaks the protocol; whatever the server makes of it, the application does not go on."""
    with server.connect() as client:
        client.send(UPGRADE + bytes(10))
        call = server.wait_call()
        client.read_head()
    wait_until(lambda: is_over(call))


@row("C26")
def test_websocket_client_that_left_before_its_turn_ends_its_application(server: Server) -> None:
    """Its end came while an earlier application of the same connection had not returned."""
    go = asyncio.Event()

    async def lingers(call: Call) -> None:
        await call.answer()
        await go.wait()

    server.handlers["/"] = lingers
    with server.connect() as client, server.connect() as other:
        client.send(GET)
        assert client.read_answer().status == 200
        client.send(UPGRADE + bytes(10))
        client.close()
        other.send(GET.replace(b"/ ", b"/other "))
        assert other.read_answer().status == 200  # so the end of the first has been seen
        server.do(go.set)
        wait_until(lambda: sockets(server))
        (call,) = sockets(server)
        wait_until(lambda: is_over(call))


def sockets(server: Server) -> list[Call]:
    return [call for call in server.calls if call.scope["type"] == "websocket"]


@row("C26")
def test_websocket_that_was_paused_is_resumed(server: Server) -> None:
    """That a client has left is seen, though it was paused behind an earlier request."""
    go = asyncio.Event()

    async def slow(call: Call) -> None:
        await go.wait()
        await call.answer()

    def send() -> None:
        with contextlib.suppress(OSError):
            client.send(bytes(10_000_000))  # more than the kernel keeps for us

    server.handlers["/"] = slow
    with server.connect() as client:
        client.send(GET + UPGRADE)
        server.wait_call()
        sending = threading.Thread(target=send)
        sending.start()
        sending.join(0.1)
        assert sending.is_alive(), "it was not paused"
        server.do(go.set)
        call = server.wait_call(2)
        client.reset()
        sending.join(10)
    wait_until(lambda: is_over(call))


def test_bytes_received_before_start_are_served(server: Server) -> None:
    """What was received between the accept and our turn is not lost, and neither is its end."""
    for _ in range(50):
        with server.connect() as client:
            client.send(GET)
            assert client.read_answer().status == 200
        with server.connect() as client:
            client.socket.shutdown(1)
            assert client.read_all() == b""
        server.connect().reset()
