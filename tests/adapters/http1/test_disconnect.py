"""How clients leave our HTTP/1.1 server, and how soon its application knows."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from typing import Any

import pytest
from tools.h1_server import Call, Server
from tools.net import LATE_S, wait_until
from tools.raw import Connection
from tools.rows import row
from tools.transports import Wire
from tools.wire import get

from swapchart.adapters.http1.server import sock_diag
from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.extensions import ON_DISCONNECT
from swapchart.adapters.http1.server.hypercorn_protocol import ClientDisconnectedError, H1Limits


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
    "body unread": get("/ignore", b"Content-Length: 9000000", method=b"POST") + bytes(3_000_000),
    "body half sent": get("/wait", b"Content-Length: 9", method=b"POST") + b"abc",
    "much pipelined": get("/ignore") + get("/", b"A: " + b"b" * 4000) * 100,
}


@pytest.mark.parametrize("how", ["close", "reset"])
@row("C15")
def test_disconnect_is_reported_to_application_that_does_not_receive(
    server: Server, how: str
) -> None:
    """The last callback set is called once; one set later is called at once; None removes it."""

    async def busy(call: Call) -> None:
        tell = call.scope["extensions"][ON_DISCONNECT]
        left = asyncio.Event()
        tell(lambda: call.events.append("replaced callback"))
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
@row("C15")
def test_disconnect_is_noticed(server: Server, name: str, how: str) -> None:
    """Whatever a client has sent besides, the application is told within a second that it left."""

    async def ignores_body(call: Call) -> None:
        """Read no body, but look whether the client is there."""
        with contextlib.suppress(ClientDisconnectedError):
            await call.start()
            while True:
                await call.piece(b"")
                await asyncio.sleep(0.01)
        call.events.append("http.disconnect")

    server.handlers.update({"/wait": waits, "/ignore": ignores_body})
    client = server.connect()
    client.send(LEAVING[name])
    call = server.wait_call()
    client.close() if how == "close" else client.reset()
    wait_until(lambda: call.events, 1.0 + LATE_S)

    assert call.events == ["http.disconnect"]
    assert len(server.calls) == 1


def fill(client: Connection, data: bytes) -> int:
    """Send *data* again and again until the other end takes no more; returns how much that was."""
    client.socket.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += client.socket.send(data)
    return sent


STUCK = {
    "body": (get("/ignore", b"Content-Length: 99999999999", method=b"POST"), bytes(1 << 16)),
    "chunks": (
        get("/ignore", b"Transfer-Encoding: chunked", method=b"POST"), b"1\r\na\r\n" * 10_000,
    ),
    "pipelined": (get("/ignore"), get("/", b"A: " + b"b" * 4000) * 10),
}  # fmt: skip


async def ignores_body(call: Call) -> None:
    """Read no body; note when the client leaves."""
    left = asyncio.Event()
    call.scope["extensions"][ON_DISCONNECT](left.set)
    await left.wait()
    call.events.append("left")


@pytest.mark.parametrize("name", STUCK)
def test_disconnect_behind_a_full_receive_window_is_noticed(server: Server, name: str) -> None:
    """A client that left while its bytes are not taken is found out, though its end comes last."""
    server.handlers["/ignore"] = ignores_body
    head, more = STUCK[name]
    with server.connect() as client:
        client.send(head)
        call = server.wait_call()
        assert fill(client, more) > 1 << 18
        assert call.events == []
    wait_until(lambda: call.events, 5.0 + LATE_S)

    assert call.events == ["left"]
    assert len(server.calls) == 1


@pytest.mark.parametrize("name", STUCK)
def test_disconnect_of_remote_client_behind_a_full_window_is_noticed(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has not the other end, what the client had sent is read until its end."""
    monkeypatch.setattr(sock_diag, "has_left", lambda *_: False)
    server.handlers["/ignore"] = ignores_body
    head, more = STUCK[name]
    with server.connect() as client:
        client.send(head)
        call = server.wait_call()
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            for _ in range(1000):
                client.socket.send(more)
    wait_until(lambda: call.events, 15.0 + LATE_S)

    assert call.events == ["left"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sock_diag_closed_peer_is_known(host: str) -> None:
    """Open, closed behind a full window, and not of this machine: only the second has left."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        ours, _ = listener.accept()
        with ours:
            ends = ours.getsockname()[:2], ours.getpeername()[:2]
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(1 << 16))
            assert not sock_diag.has_left(*ends)
            client.close()
            assert sock_diag.has_left(*ends)
            far = "2001:db8::1" if ":" in host else "192.0.2.1"
            assert not sock_diag.has_left(ends[0], (far, 9))


def test_stuck_upload_that_is_read_late_arrives_complete(server: Server) -> None:
    """What was read to look for the end of a client is no less a part of its body."""
    go = asyncio.Event()

    async def late(call: Call) -> None:
        await go.wait()
        body = await call.read()
        await call.answer(hashlib.sha256(body).hexdigest().encode())

    server.handlers["/late"] = late
    block = bytes(range(256)) * 256
    chunk = b"%x\r\n%b\r\n" % (len(block), block)
    digest, count = hashlib.sha256(), 0
    with server.connect() as client:
        client.send(get("/late", b"Transfer-Encoding: chunked", method=b"POST"))
        client.socket.settimeout(1.5)
        rest = b""
        with contextlib.suppress(TimeoutError):
            while count < 800:
                rest = rest or chunk
                rest = rest[client.socket.send(rest) :]
                if not rest:
                    count += 1
                    digest.update(block)
        assert count < 800
        server.do(go.set)
        client.socket.settimeout(10)
        client.send((rest or chunk) + b"0\r\n\r\n" + get("/") * 3)
        digest.update(block)
        assert client.read_answer().body == digest.hexdigest().encode()
        for _ in range(3):
            assert client.read_answer().status == 200


def test_stuck_clients_are_read_within_bounds() -> None:
    """However many there are, what is read beyond the usual limits is bounded, and given back."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limits = H1Limits(stuck_bytes=3 << 20, stuck_bytes_in_all=4 << 20)
        manager = ConnectionManager(loop, limits, lambda: False)

        async def ignores_body(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await asyncio.Event().wait()

        wires = [StuckWire() for _ in range(3)]
        connections = [ServerConnection(manager, ignores_body, loop) for _ in wires]
        for connection, wire in zip(connections, wires, strict=True):
            connection.connection_made(wire)  # type: ignore[arg-type]
            connection.data_received(get("/", b"Content-Length: 99999999", method=b"POST"))
            await asyncio.sleep(0)
            for _ in range(9):
                for other in connections:
                    if hasattr(other, "transport"):
                        other.check_timeouts(loop.time())
                while wire.is_reading:
                    connection.data_received(bytes(1 << 16))
                    wire.count += 1 << 16
        taken = [wire.count for wire in wires]
        slack = limits.body_bytes + (1 << 18)
        assert 3 << 20 <= taken[0] <= (3 << 20) + slack
        assert 1 << 20 <= taken[1] <= (1 << 20) + slack
        assert taken[2] <= slack
        assert manager.spare == 0
        for connection, wire in zip(connections, wires, strict=True):
            connection.connection_lost(None)
            connection.cancel()
            await connection.finished
            wire.ours.close()
            wire.theirs.close()
        assert manager.spare == limits.stuck_bytes_in_all

    asyncio.run(main())


class StuckWire(Wire):
    """A wire that remembers whether it is read from, and how much came."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reading, self.count = True, 0
        self.ours, self.theirs = socket.socketpair()

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_extra_info(self, name: str) -> object:
        return self.ours if name == "socket" else None


@row("C15")
def test_half_close_counts_as_disconnect(server: Server) -> None:
    """A client that will not send any more counts as gone, as with hypercorn."""
    server.handlers["/wait"] = waits
    with server.connect() as client:
        client.send(get("/wait"))
        call = server.wait_call()
        client.socket.shutdown(1)
        wait_until(lambda: call.events, 1.0 + LATE_S)

        assert call.events == ["http.disconnect"]


def test_send_after_disconnect_raises(server: Server) -> None:
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

    assert isinstance(call.events[0], ClientDisconnectedError)
    assert isinstance(call.events[0], OSError)


def test_receive_after_response_returns_disconnect(server: Server) -> None:
    """`receive` after the complete response returns `http.disconnect` instead of waiting."""

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
