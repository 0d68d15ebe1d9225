"""Our HTTP/1.1 server inside hypercorn: shutdown, upgrades, and what is left to the stock class."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypercorn.asyncio.run
import pytest
from tools.h1_server import Call, Server, serving, trickle
from tools.net import wait_until
from tools.raw import Connection
from tools.tls import PEM

from swapchart.adapters.h1 import H1Limits, patched_hypercorn

run: Any = hypercorn.asyncio.run
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LATE_S = 1.5  # how much longer than its limit anything may take on a busy machine


@contextlib.contextmanager
def takes(least_s: float) -> Iterator[None]:
    """Check that the block takes *least_s* seconds, and not much longer."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert least_s * 0.9 <= took <= least_s + LATE_S


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_shutdown_finishes_what_is_in_flight(loop_name: str) -> None:
    """A request that is being answered is answered whole, and the server ends behind it."""
    with serving(loop_name, H1Limits(drain_idle_s=0.2), graceful_timeout=5.0) as server:
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


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("reads", [False, True])
def test_C13_shutdown_does_not_wait_for_anybody(loop_name: str, reads: bool) -> None:
    """Endless streams, read or not, deaf applications and slow heads end with the grace period."""
    with serving(loop_name, graceful_timeout=0.5) as server:

        async def endless(call: Call) -> None:
            await call.start()
            while True:
                await call.piece(bytes(100_000))
                await asyncio.sleep(0.01)

        async def deaf(call: Call) -> None:
            await asyncio.Event().wait()

        server.handlers.update({"/": endless, "/deaf": deaf})
        with server.connect() as client, server.connect() as other, server.connect() as slow:
            client.send(GET)
            other.send(GET.replace(b"/ ", b"/deaf "))
            slow.send(GET[:9])
            server.wait_call(2)
            if reads:
                client.read_exactly(1_000_000)
            server.begin_stop()
            with takes(0.4):  # a little before hypercorn's own deadline
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


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as server:
        server.handlers["/ws"] = echo
        yield server


def read_word(client: Connection) -> bytes:
    head = client.read_exactly(2)
    return client.read_exactly(head[1])


@pytest.mark.parametrize("before", [0, 1, 3])
def test_C26_websockets_are_handed_to_hypercorn(server: Server, before: int) -> None:
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


def test_C26_a_websocket_byte_by_byte(server: Server) -> None:
    """The hand-over does not depend on where the segments end."""
    with server.connect() as client:
        trickle(client, UPGRADE)
        assert client.read_head().status == 101
        trickle(client, frame(b"slowly"))
        assert read_word(client) == b"SLOWLY"


def test_C27_h2c_is_handed_on_only_when_allowed() -> None:
    """HTTP/2 in clear text would go round our limits."""
    ask = GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\n"
    ask += b"Upgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
    with serving("uvloop") as server, server.connect() as client:
        client.send(ask)
        assert client.read_answer().status == 200
    with serving("uvloop", H1Limits(allow_h2c=True)) as server, server.connect() as client:
        client.send(ask)
        assert client.read_head().status == 101


def test_bytes_that_came_early_are_served(server: Server) -> None:
    """What was received between the accept and our turn is not lost, and neither is its end."""
    for _ in range(50):
        with server.connect() as client:
            client.send(GET)
            assert client.read_answer().status == 200
        with server.connect() as client:
            client.socket.shutdown(1)
            assert client.read_all() == b""
        server.connect().reset()


def is_stock(client: Connection) -> bool:
    """Tell by its Server field who answers."""
    client.send(GET)
    return str(client.read_answer().header("server")).startswith("hypercorn")


@pytest.mark.parametrize(
    "config",
    [{"accesslog": logging.getLogger("access")}, {"server_names": ["x"]}, {"max_requests": 99}],
)
def test_what_only_hypercorn_does_is_left_to_it(config: dict[str, Any]) -> None:
    """A server that is configured for more than we do is served by the stock class."""
    with serving("asyncio", **config) as server, server.connect() as client:
        assert server.is_patched
        assert is_stock(client)
    with serving("asyncio") as server, server.connect() as client:
        assert not is_stock(client)


def test_C41_tls_is_left_to_hypercorn(tmp_path: Path) -> None:
    """Connections under TLS never come to us."""
    file = tmp_path / "localhost.pem"
    file.write_text(PEM)
    context = ssl.create_default_context(cafile=str(file))
    with serving("asyncio", certfile=str(file), keyfile=str(file)) as server:
        client = server.connect()
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        with client:
            assert is_stock(client)


def test_unknown_hypercorns_serve_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the hook, or with another one, nothing is replaced, and one line says so."""

    class Other:
        def __init__(self, app: object, loop: object) -> None:
            pass

    stock = run.TCPServer
    for value in (None, Other, lambda *args: args):
        caplog.clear()
        if value is None:
            monkeypatch.delattr(run, "TCPServer")
        else:
            monkeypatch.setattr(run, "TCPServer", value)
        with patched_hypercorn(H1Limits()) as is_patched:
            assert is_patched is False
            assert getattr(run, "TCPServer", None) is value
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        monkeypatch.undo()
    assert run.TCPServer is stock


def test_the_class_is_put_back() -> None:
    """When the context ends hypercorn is what it was."""
    stock = run.TCPServer
    with patched_hypercorn(H1Limits()) as is_patched:
        assert is_patched
        assert run.TCPServer is not stock
    assert run.TCPServer is stock
