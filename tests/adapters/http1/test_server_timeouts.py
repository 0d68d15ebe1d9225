"""Timeouts of the HTTP/1.1 server, and how it drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tools.h1_server import Call, Server, serving
from tools.loops import has_uvloop
from tools.net import takes, wait_until
from tools.rows import row

from swapchart.adapters.http1.server import timeouts
from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import ClientDisconnectedError, H1Limits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = H1Limits(
    header_timeout_s=0.4,
    keep_alive_s=0.2,
    keep_alive_spare_s=0.0,
    body_idle_s=0.3,
    write_timeout_s=0.5,
    linger_s=0.3,
    drain_idle_s=0.2,
)


@pytest.fixture(
    scope="module",
    params=["asyncio", "uvloop", "uvicorn", "asyncio, tls", "uvloop, tls", "uvicorn, tls"],
)
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param, LIMITS) as server:
        yield server


@row("C11")
def test_slow_headers_are_cut_off(server: Server) -> None:
    """A head has its time in all, however its bytes trickle in."""
    with server.connect() as client, takes(LIMITS.header_timeout_s):
        client.socket.settimeout(0.02)
        found = b""
        for value in GET[:-2] * 9:  # ends long before all of it is sent
            client.socket.send(bytes((value,)))
            with contextlib.suppress(TimeoutError):
                found = client.socket.recv(1000)
                break
        assert found.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in found
    assert server.calls == []


@row("C11")
def test_silent_connections_are_closed_without_response(server: Server) -> None:
    """Nothing was asked, nothing is said."""
    with server.connect() as client, takes(LIMITS.header_timeout_s):
        assert client.read_all() == b""


@row("C11")
def test_slow_headers_delay_no_other_client(server: Server) -> None:
    """A request among 100 slow heads is answered at once."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(100)]
        for client in slow:
            client.send(GET[:9])
        with server.connect() as client, takes(0):
            client.send(GET)
            assert client.read_answer().status == 200


@row("C48")
def test_idle_connections_are_closed_without_response(server: Server) -> None:
    """After an answer a connection has its time for another request; each starts it anew."""
    with server.connect() as client:
        for _ in range(3):
            client.send(GET)
            assert client.read_answer().status == 200
            assert client.is_silent_for(LIMITS.keep_alive_s * 0.5)
        with takes(0):
            assert client.read_all() == b""


def test_idle_close_request_that_crosses_it_is_never_reset(server: Server) -> None:
    """A client that sends in the moment of the close reads an end, and knows nothing was done."""
    if "tls" in server.where and not has_uvloop(server.where):
        pytest.skip("asyncio's TLS has no half a close")
    with server.connect() as client:
        client.send(GET)
        assert client.read_answer().status == 200
        time.sleep(LIMITS.keep_alive_s + 0.15)  # the close is on its way, and not read here
        for _ in range(3):
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
            time.sleep(0.02)
        assert client.socket.recv(100) == b""
    assert len(server.calls) == 1


def test_idle_close_request_already_received_is_served(server: Server) -> None:
    """What the event loop has not read yet, though it is time to close, counts."""
    asleep = threading.Event()

    def sleep() -> None:
        asleep.set()
        time.sleep(LIMITS.keep_alive_s + 0.2)

    with server.connect() as client:
        client.send(GET)
        assert client.read_answer().status == 200
        server.do(sleep)
        assert asleep.wait(5)
        client.send(GET)
        assert client.read_answer().status == 200


def test_keep_alive_announced_timeout_is_kept() -> None:
    """An idle connection is kept for the 75 s that its answers announce, and closed soon after."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        manager = ConnectionManager(loop, H1Limits(), lambda: False)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        connection = ServerConnection(manager, answers, loop)
        await loop.connect_accepted_socket(lambda: connection, sock=ours)
        await loop.sock_sendall(theirs, GET)
        answer = await loop.sock_recv(theirs, 1000)
        assert b"\r\nkeep-alive: timeout=75\r\n" in answer
        now = loop.time()
        connection.check_timeouts(now + 79)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        connection.check_timeouts(now + 81)
        assert theirs.recv(1) == b""
        theirs.close()
        await connection.finished

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})

    asyncio.run(main())


def test_keep_alive_is_not_announced_if_the_connection_ends(server: Server) -> None:
    """An answer with `Connection: close` promises nothing."""
    with server.connect() as client:
        client.send(GET)
        assert client.read_answer().header("keep-alive") == "timeout=0"
        client.send(GET[:-2] + b"Connection: close\r\n\r\n")
        assert client.read_answer().header("keep-alive") is None


@row("C12")
def test_stalled_bodies_are_cut_off(server: Server) -> None:
    """A body that stops coming is a 408, and its application is told."""
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        call = server.wait_call()
        with takes(LIMITS.body_idle_s):
            assert client.read_answer().status == 408
        assert client.read_all() == b""
        wait_until(lambda: call.events)

    assert call.events[0] == "disconnect"


@row("C12")
def test_trickling_bodies_are_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes too slowly to be meant is a 408, though it never stands still."""
    monkeypatch.setattr(timeouts, "RATE_WINDOW_S", 0.5)
    with server.connect() as client, takes(0.5):
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n")
        client.socket.settimeout(0.02)
        while True:
            client.socket.send(b"x")
            with contextlib.suppress(TimeoutError):
                found = client.socket.recv(1000)
                break
    assert found.startswith(b"HTTP/1.1 408 ")


@row("C12")
def test_body_paused_by_the_server_does_not_time_out(server: Server) -> None:
    """A client that was paused, or waits to be told to continue, may wait as long as it takes."""

    async def reads_late(call: Call) -> None:
        await asyncio.sleep(LIMITS.body_idle_s * 3)
        await call.answer(b"%d" % len(await call.read()))

    server.handlers["/"] = reads_late
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n"
    with server.connect() as client:
        client.send(head + b"\r\n" + bytes(3_000_000))
        assert client.read_answer().body == b"3000000"
    with server.connect() as client:
        client.send(head + b"Expect: 100-continue\r\n\r\n")
        assert client.read_exactly(25).startswith(b"HTTP/1.1 100")
        client.send(bytes(3_000_000))
        assert client.read_answer().body == b"3000000"


@row("C13")
def test_clients_that_do_not_read_are_aborted(server: Server) -> None:
    """The application is told so where it waits: in send."""

    async def pours(call: Call) -> None:
        await call.start()
        while True:
            await call.piece(bytes(100_000))

    server.handlers["/"] = pours
    with server.connect() as client:
        client.send(GET)
        call = server.wait_call()
        with takes(LIMITS.write_timeout_s):
            wait_until(lambda: call.events)

        assert isinstance(call.events[0], ClientDisconnectedError)


@row("C13")
def test_slow_readers_are_served(server: Server) -> None:
    """A client that reads a little now and then is not cut."""

    async def pours(call: Call) -> None:
        await call.start(headers=((b"content-length", b"20000000"),))
        for _ in range(200):
            await call.piece(bytes(100_000))
        await call.piece(b"", more=False)

    server.handlers["/"] = pours
    with server.connect() as client:
        client.send(GET)
        assert client.read_head().status == 200
        pause = threading.Event()
        read, end = 0, time.monotonic() + LIMITS.write_timeout_s * 3
        while time.monotonic() < end:
            read += len(client.read_exactly(50_000))
            pause.wait(0.02)
        assert read < 10_000_000
        while read < 20_000_000:
            read += len(client.read_exactly(50_000))
        assert read == 20_000_000


@row("C19")
def test_lingering_close_ends_after_its_timeout(server: Server) -> None:
    """A client that goes on sending after its answer is cut after a while."""

    async def refuses(call: Call) -> None:
        await call.answer(status=413)

    server.handlers["/"] = refuses
    with server.connect() as client, takes(LIMITS.linger_s):
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.read_answer().status == 413
        with contextlib.suppress(OSError):
            while True:
                client.send(b"1\r\na\r\n")


def test_closing_response_client_sends_more_all_of_it_arrives(server: Server) -> None:
    """Bytes behind a request never reset the connection under its response."""
    is_asyncio = "asyncio" in server.where or importlib.util.find_spec("uvloop") is None
    if is_asyncio and "tls" in server.where:
        pytest.skip("asyncio aborts a connection that gets data behind its close_notify")
    body = bytes(8 << 20)  # more than the kernel takes at once

    async def closes(call: Call) -> None:
        await call.answer(body, headers=((b"connection", b"close"),))

    server.handlers["/"] = closes
    with server.connect() as client:
        client.send(GET)
        head = client.read_head()
        client.send(b"x")  # not read by the server, which is done with this client
        assert client.read_body(head).body == body
        assert client.read_all() == b""


@row("D19")
def test_drain_announces_close_and_waits_briefly(server: Server) -> None:
    """Answers say close; connections without a request are closed after a moment, not at once."""
    with server.connect() as busy, server.connect() as idle:
        idle.send(GET)
        assert idle.read_answer().header("connection") is None
        server.draining.set()
        busy.send(GET)
        answer = busy.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert busy.read_all() == b""
        with takes(0):
            assert idle.read_all() == b""


# ---- one that fails does not hold up others
class Looked:
    """Stand-in for a connection, and for a response whose head waits."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.done: list[str] = []

    def check_timeouts(self, now: float) -> None:
        self._do("check")

    def flush_head(self) -> None:
        self._do("flush")

    def cancel(self) -> None:
        self._do("cancel")

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.error is not None:
            raise self.error


def test_connection_manager_one_connection_raises_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is cut; heads that wait and the limits of other clients go on as before."""

    async def main() -> None:
        manager = ConnectionManager(
            asyncio.get_running_loop(), H1Limits(header_timeout_s=0.04), lambda: False
        )
        broken, fine = Looked(RuntimeError("boom")), [Looked() for _ in range(4)]
        manager.connections.update([broken, *fine])  # type: ignore[list-item]
        for each in (broken, *fine):
            manager.flush_later(each)  # type: ignore[arg-type]
        manager.add(fine[0])  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert broken not in set[object](manager.connections)
        assert broken.done == ["check", "cancel", "flush"]
        assert all(each.done.count("check") >= 2 and "flush" in each.done for each in fine)
        manager.connections.clear()

    asyncio.run(main())
    assert caplog.text.count("boom") >= 2
