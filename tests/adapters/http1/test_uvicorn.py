"""Our HTTP/1.1 server inside uvicorn: uvicorn's state, and what is left to its own classes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn.protocols.http.auto
from tools.h1_server import Call, Server, serving
from tools.net import wait_until
from tools.raw import Connection
from tools.rows import row
from uvicorn.config import Config
from uvicorn.server import ServerState

from swapchart.adapters.app.application import Application
from swapchart.adapters.config import load_config
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits
from swapchart.adapters.http1.server.request_cycle import RequestCycle
from swapchart.adapters.http1.server.uvicorn_protocol import uvicorn_protocol
from swapchart.adapters.server.backends import uvicorn_config
from swapchart.adapters.server.options import ServeOptions

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
NO_HOST = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = UPGRADE + (
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving("uvicorn") as server:
        yield server


def state_of(server: Server) -> ServerState:
    assert server.uvicorn is not None
    return server.uvicorn.server_state


def is_stock(client: Connection) -> bool:
    """Tell who answers by what ours refuses."""
    client.send(NO_HOST)
    status = client.read_answer().status
    assert status in (200, 400)
    return status == 200


# ---- its state
def test_connections_are_counted_by_uvicorn(server: Server) -> None:
    """From the accept until the socket is closed and the application has returned."""
    go = asyncio.Event()

    async def stays(call: Call) -> None:
        while (await call.receive())["type"] != "http.disconnect":
            pass
        call.events.append("left")
        await go.wait()

    server.handlers["/"] = stays
    connections = state_of(server).connections
    with server.connect():
        wait_until(lambda: len(connections) == 1)
        with server.connect() as client:
            client.send(GET)
            call = server.wait_call()
            client.reset()
        wait_until(lambda: call.events)
        assert len(connections) == 2
        server.do(go.set)
        wait_until(lambda: len(connections) == 1)
    wait_until(lambda: not connections)


def test_requests_are_counted(server: Server) -> None:
    """Those that the application gets, in tasks or without; not what is refused."""

    def answer(cycle: RequestCycle) -> bool:
        cycle.take_body()
        cycle.send_full_response(200, [], b"taken")
        cycle.finish()
        return True

    with server.connect() as client:
        for _ in range(2):
            client.send(POST)
            assert client.read_answer().body == b"ok"
        server.on_offer = answer
        client.send(POST)
        assert client.read_answer().body == b"taken"
        client.send(NO_HOST)
        assert client.read_answer().status == 400

    assert (len(server.offered), len(server.calls)) == (3, 2)
    assert state_of(server).total_requests == 3


def test_request_limit_ends_the_server() -> None:
    """The way to have a worker replaced that uvicorn has works as ever."""
    with serving("uvicorn", limit_max_requests=3) as server, server.connect() as client:
        for _ in range(3):
            client.send(GET)
            assert client.read_answer().status == 200
        assert client.read_all() == b""
        assert state_of(server).total_requests == 3


def test_shutdown_without_a_limit_waits_for_requests_in_flight() -> None:
    """No grace period: nothing is cut, and what has no request is closed."""
    with serving("uvicorn", H1Limits(drain_idle_s=0.1)) as server:
        go = asyncio.Event()

        async def slow(call: Call) -> None:
            await go.wait()
            await call.answer()

        server.handlers["/"] = slow
        with server.connect() as client, server.connect() as idle:
            client.send(GET)
            server.wait_call()
            server.begin_stop()
            assert idle.read_all() == b""
            server.do(go.set)
            answer = client.read_answer()
            assert (answer.status, answer.header("connection")) == (200, "close")
            assert client.read_all() == b""
        server.thread.join(5)
        assert not server.thread.is_alive()


# ---- websockets
@row("C26")
def test_websockets_get_close_at_shutdown(server: Server) -> None:
    """Once handed on, a websocket is closed by uvicorn when it ends."""

    async def accepts(call: Call) -> None:
        await call.receive()
        await call.send({"type": "websocket.accept"})
        call.events.append((await call.receive())["type"])

    server.handlers["/"] = accepts
    with server.connect() as client:
        client.send(HANDSHAKE)
        assert client.read_head().status == 101
        wait_until(lambda: len(state_of(server).connections) == 1)  # the handed over one alone
        server.begin_stop()
        assert client.read_all() == b"\x88\x02\x03\xf4"  # close, 1012
    wait_until(lambda: server.calls[0].events)

    assert server.calls[0].events == ["websocket.disconnect"]


@pytest.mark.parametrize(
    "data",
    [
        UPGRADE + b"\r\n",
        HANDSHAKE.replace(b"Version: 13", b"Version: 12"),
    ],
)
@row("C26")
def test_invalid_websocket_handshake_does_not_bypass_our_protocol(
    server: Server, data: bytes
) -> None:
    """It is answered once, and uvicorn's own layer does not go on with the connection."""
    with server.connect() as client:
        client.send(data + GET)
        assert client.read_head().status in (400, 426)
        assert b"HTTP/1.1" not in client.read_all()
    assert server.calls == []


def test_upgrade_to_several_protocols_is_ignored(server: Server) -> None:
    """Only a handshake that is nothing else is handed on; others are plain requests, and ours."""
    with server.connect() as client:
        client.send(HANDSHAKE.replace(b"websocket", b"websocket, foo") + GET)
        assert client.read_answer().status == 200
        assert client.read_answer().status == 200
        assert not is_stock(client)


def test_handshake_without_websocket_support_is_a_plain_request() -> None:
    """Where uvicorn has no class for them, the application gets the request."""
    with serving("uvicorn", ws="none") as server, server.connect() as client:
        client.send(HANDSHAKE + GET)
        assert client.read_answer().status == 200
        assert client.read_answer().status == 200

    assert [call.scope["type"] for call in server.calls] == ["http", "http"]


# ---- what is left to it
@pytest.mark.parametrize(
    "config",
    [{"access_log": True}, {"server_header": True}, {"headers": [("x", "y")]},
     {"root_path": "/r"}, {"limit_concurrency": 9}, {"reset_contextvars": True}],
)  # fmt: skip
def test_uvicorn_features_of_its_own_are_left_to_it(server: Server, config: dict[str, Any]) -> None:
    """A server that is configured for more than we do is served by its own class."""
    with server.connect() as client:
        assert not is_stock(client)
    with serving("uvicorn", **config) as other, other.connect() as client:
        assert is_stock(client)


@row("C41")
def test_uvicorn_tls_connection_is_served_by_our_protocol() -> None:
    """Connections under TLS are served by our layer, and the application knows of it."""
    with serving("uvicorn, tls") as server, server.connect() as client:
        client.send(GET)
        assert client.read_answer().status == 200
        assert not is_stock(client)
    assert server.calls[0].scope["scheme"] == "https"


def test_uvicorn_middleware_around_the_application_is_kept() -> None:
    """Our layer serves it as a whole: nothing goes the short way past uvicorn's middleware."""
    fields = b"X-Forwarded-For: 1.2.3.4\r\nHost: x"
    with serving("uvicorn", proxy_headers=True) as server, server.connect() as client:
        client.send(POST.replace(b"Host: x", fields))
        assert client.read_answer().status == 200
        assert is_stock(client) is False

    assert server.offered == []
    assert server.calls[0].scope["client"][0] == "1.2.3.4"


@pytest.mark.parametrize("is_stock", [False, True])
def test_serve_adds_no_uvicorn_middleware(tmp_path: Path, is_stock: bool) -> None:
    """What our layer calls, and asks for the short way, is the application itself."""
    path = tmp_path / "config.yaml"
    path.write_text("models: {}")
    app = Application(load_config([path]))
    config = uvicorn_config(app, ServeOptions(server="uvicorn", is_stock=is_stock), bool)
    config.load()

    assert config.loaded_app is app


class Stock(asyncio.Protocol):
    """Stands for uvicorn's own class."""

    def __init__(self, *args: Any, **given: Any) -> None:
        self.args, self.given = args, given


def test_uvicorn_without_expected_attributes_serves_unchanged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The configuration gets the default of uvicorn, and one line says so."""
    monkeypatch.delattr(uvicorn.protocols.http.auto, "AutoHTTPProtocol")

    assert uvicorn_protocol(H1Limits()) == "auto"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


UNKNOWN: dict[str, dict[str, Any]] = {
    "positions": {},
    "arguments": {"extra": 1},
    "Config": {"config": SimpleNamespace()},
    "connections": {"server_state": SimpleNamespace(connections=[], total_requests=0)},
    "requests": {"server_state": SimpleNamespace(connections=set())},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_uvicorn_of_unknown_version_serves_unchanged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Whatever is not as we know it, its own class gets what it would get, and one line says so."""
    monkeypatch.setattr(uvicorn.protocols.http.auto, "AutoHTTPProtocol", Stock)
    config = Config(lambda: None, access_log=False, log_config=None)
    given = {"config": config, "server_state": ServerState(), "app_state": {}, "_loop": None}
    given |= UNKNOWN[name]
    protocol: Any = uvicorn_protocol(H1Limits())
    with caplog.at_level(logging.WARNING):
        args = (1,) if name == "positions" else ()
        made = [protocol(*args, **given) for _ in range(3)]

    assert [type(each) for each in made] == [Stock] * 3
    assert (made[0].args, made[0].given) == (args, given)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
