"""HTTP/2 is refused everywhere, and the layers of hypercorn and uvicorn keep our times."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from tools.h1_server import Call, Server, serving
from tools.net import takes, wait_until
from tools.rows import row

from swapchart.adapters.http1.server import timeouts
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LIMITS = H1Limits(
    header_timeout_s=0.4, keep_alive_s=0.2, keep_alive_spare_s=0.0, body_idle_s=0.3, linger_s=0.3
)
LAYERS = ("asyncio", "uvloop", "uvicorn")
STOCK = [f"{layer}, stock{tls}" for layer in LAYERS for tls in ("", ", tls")]


@pytest.fixture(scope="module", params=STOCK)
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    idle = "timeout_keep_alive" if "uvicorn" in request.param else "keep_alive_timeout"
    with serving(request.param, LIMITS, **{idle: 1}) as server:
        yield server


@pytest.fixture(scope="module", params=[*LAYERS, *STOCK])
def any_layer(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as server:
        yield server


# ---- HTTP/2
H2 = {
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(6) + b"\4" + bytes(2),
    "version": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", H2)
@row("C27")
def test_http2_from_the_first_byte_is_refused(any_layer: Server, name: str) -> None:
    """An error of HTTP/1.1 and the end of the connection; no frame of HTTP/2."""
    if "uvicorn" in any_layer.where and "stock" in any_layer.where and name == "version":
        pytest.skip("uvicorn's own layer takes any version for HTTP/1.1")
    any_layer.calls.clear()
    with any_layer.connect() as client:
        client.send(H2[name])
        answer = client.read_all()

    assert answer.startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 "))
    assert answer.count(b"HTTP/") == 1
    assert any_layer.calls == []


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "h2c among others": b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    "h2c behind a websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", UPGRADES)
@row("C27")
def test_h2c_that_is_offered_is_ignored(any_layer: Server, name: str) -> None:
    """The request is served by HTTP/1.1, and HTTP/2 behind it is not understood."""
    any_layer.calls.clear()
    with any_layer.connect() as client:
        client.send(GET[:-2] + UPGRADES[name] + b"\r\n")
        assert client.read_answer().status == 200
        with contextlib.suppress(ConnectionError):
            client.send(H2["preface"])
        assert b"HTTP/1.1 101" not in (rest := client.read_all())
        assert b" 200 " not in rest
    assert [call.scope["http_version"] for call in any_layer.calls] == ["1.1"]


@row("C27")
def test_h2c_that_is_offered_with_a_body_is_ignored_or_refused(any_layer: Server) -> None:
    """A POST as Java's client sends it keeps its body."""
    any_layer.calls.clear()
    with any_layer.connect() as client:
        client.send(POST + UPGRADES["h2c"] + b"Content-Length: 5\r\n\r\nhello")
        status = client.read_answer().status
    if "uvicorn, stock" in any_layer.where:  # which would lose the body
        assert (status, any_layer.calls) == (400, [])
    else:
        assert status == 200
        assert [call.body for call in any_layer.calls] == [b"hello"]


# ---- slow clients
def test_stock_slow_headers_are_cut_off(server: Server) -> None:
    """A head has its time in all, however its bytes trickle in."""
    with server.connect() as client, takes(LIMITS.header_timeout_s):
        client.socket.settimeout(0.02)
        found = b""
        for value in GET[:-2] * 9:
            client.socket.send(bytes((value,)))
            with contextlib.suppress(TimeoutError):
                found = client.socket.recv(1000)
                break
        assert found.startswith(b"HTTP/1.1 408 ")
    assert server.calls == []


def test_stock_slow_headers_after_a_response_are_cut_off(server: Server) -> None:
    """The second head of a connection has as much time as the first."""
    with server.connect() as client:
        client.send(GET)
        assert client.read_answer().status == 200
        client.send(GET[:9])
        with takes(LIMITS.header_timeout_s):
            assert client.read_all().startswith(b"HTTP/1.1 408 ")
    assert len(server.calls) == 1


def test_stock_silent_connections_are_closed(server: Server) -> None:
    """Nothing was asked, nothing is said."""
    with server.connect() as client, takes(LIMITS.header_timeout_s):
        assert client.read_all() == b""


def test_stock_endless_headers_are_cut_off(server: Server) -> None:
    """A head of any speed has an end."""
    with server.connect() as client:
        with contextlib.suppress(OSError):
            client.send(GET[:-2])
            for _ in range(100):
                client.send(b"a: " + b"b" * 10_000 + b"\r\n")
        with contextlib.suppress(OSError):
            assert client.read_all()[:12] in (b"", b"HTTP/1.1 431", b"HTTP/1.1 400")
    assert server.calls == []


@pytest.mark.parametrize("where", ["uvicorn, stock", "uvicorn, stock, tls"])
def test_stock_uvicorn_oversized_head_gets_its_error(where: str) -> None:
    """Bytes that the client is still sending do not reset the connection under the error."""
    with serving(where, LIMITS) as server, server.connect() as client:
        client.send(GET[:-2] + (b"a: " + b"b" * 10_000 + b"\r\n") * 20)
        client.send(b"c" * 100_000)
        assert client.read_answer().status == 431


def test_stock_stalled_bodies_are_cut(server: Server) -> None:
    """A body that stops coming ends the request, and its application is told."""
    with server.connect() as client:
        client.send(POST + b"Content-Length: 9\r\n\r\nabc")
        call = server.wait_call()
        with takes(LIMITS.body_idle_s):
            assert client.read_all()[:13] in (b"", b"HTTP/1.1 408 ")
        wait_until(lambda: call.events)
    assert call.events[0] == "disconnect"


def test_stock_trickling_bodies_are_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes too slowly to be meant is cut, though it never stands still."""
    monkeypatch.setattr(timeouts, "RATE_WINDOW_S", 0.5)
    with server.connect() as client, takes(0.5):
        client.send(POST + b"Content-Length: 999999\r\n\r\n")
        client.socket.settimeout(0.02)
        with contextlib.suppress(ConnectionError):
            while True:
                client.socket.send(b"x")
                with contextlib.suppress(TimeoutError):
                    client.socket.recv(1000)
                    break


def test_stock_body_paused_by_the_server_does_not_time_out(server: Server) -> None:
    """A client whose body is not taken, or is answered already, may wait."""

    async def reads_late(call: Call) -> None:
        await asyncio.sleep(LIMITS.body_idle_s * 3)
        await call.answer(b"%d" % len(await call.read()))

    server.handlers["/"] = reads_late
    size = 2_000_000
    with server.connect() as client:
        client.send(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        assert client.read_answer().body == b"%d" % size


def test_stock_idle_close_request_that_crosses_it_is_never_reset(server: Server) -> None:
    """A client that sends in the moment of the close reads an end, and nothing was done."""
    if "tls" in server.where:
        pytest.skip("TLS has no half a close")
    with server.connect() as client:
        client.send(GET)
        assert client.read_answer().status == 200
        time.sleep(1.1)
        for _ in range(3):
            client.send(POST + b"Content-Length: 2\r\n\r\nab")
            time.sleep(0.02)
        assert client.socket.recv(100) == b""
    assert len(server.calls) == 1
