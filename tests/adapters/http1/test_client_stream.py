"""The last bytes of a websocket: they reach a client that is busy, or slow, when it is closed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from tools.loops import NewLoop, new_loop
from tools.net import LONG_S

from swapchart.adapters.http1.server import client_stream
from swapchart.adapters.http1.server.client_stream import ClientStream

SIZE = 1_000_000
PING = b"\x89\x80abcd"

Main = Callable[[ClientStream, socket.socket], Awaitable[None]]
Run = Callable[[Main], None]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeouts, which are up to a minute long."""
    monkeypatch.setattr(client_stream, "_CHECK_S", 0.05)
    monkeypatch.setattr(client_stream, "_LINGER_S", 0.2)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test with both ends of a connection, whose kernel keeps some 2 MB for the client."""
    loop_maker: NewLoop = new_loop(request.param)

    async def begin(main: Main) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.settimeout(LONG_S)
            client.connect(listener.getsockname())
            accepted = listener.accept()[0]
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
            stream = ClientStream(loop)
            await loop.connect_accepted_socket(lambda: stream, accepted)
            stream.switch([])
            try:
                head = await asyncio.to_thread(client.recv, 1 << 10)
                assert head.startswith(b"HTTP/1.1 101 ")
                await main(stream, client)
                await asyncio.wait_for(stream.finished, LONG_S)
            finally:
                stream.abort()

    def start(main: Main) -> None:
        with asyncio.Runner(loop_factory=loop_maker) as runner:
            runner.run(begin(main))

    return start


def read_all(client: socket.socket, pause_s: float = 0.0) -> int:
    """Return how many bytes come before the end; raises what ``recv`` does."""
    size = 0
    while data := client.recv(1 << 15):
        size += len(data)
        time.sleep(pause_s)
    return size


async def write_into_kernel(stream: ClientStream) -> None:
    stream.write(bytes(SIZE))
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not stream.unsent:
            break
    assert not stream.unsent
    assert stream.undelivered > SIZE // 2


def test_close_client_that_pings_before_it_reads_gets_all(run: Run) -> None:
    """A client that was busy for longer than the linger time reads all, and a clean end."""

    async def main(stream: ClientStream, client: socket.socket) -> None:
        await write_into_kernel(stream)
        stream.close()
        await asyncio.sleep(4 * client_stream._LINGER_S)
        client.send(PING)
        await asyncio.sleep(0.1)

        assert await asyncio.to_thread(read_all, client) == SIZE

    run(main)


def test_close_client_that_reads_slowly_gets_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps reading is not cut, however long it takes."""
    monkeypatch.setattr(client_stream, "_FLUSH_S", 1.0)

    async def main(stream: ClientStream, client: socket.socket) -> None:
        stream.write(bytes(8 * SIZE))
        assert stream.unsent
        stream.close()
        began = time.monotonic()

        assert await asyncio.to_thread(read_all, client, 0.01) == 8 * SIZE
        assert time.monotonic() - began > 2 * client_stream._FLUSH_S

    run(main)


def test_close_client_that_reads_nothing_is_aborted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads nothing of what waits in the kernel holds its connection for a while."""
    monkeypatch.setattr(client_stream, "_FLUSH_S", 1.0)

    async def main(stream: ClientStream, _: socket.socket) -> None:
        await write_into_kernel(stream)
        stream.close()
        began = time.monotonic()
        await asyncio.wait_for(asyncio.shield(stream.finished), LONG_S)

        assert client_stream._FLUSH_S <= time.monotonic() - began < 5 * client_stream._FLUSH_S

    run(main)


def test_close_client_that_goes_on_sending_is_aborted(run: Run) -> None:
    """A client that has taken all and never ends its side is cut after the linger time."""

    async def main(stream: ClientStream, client: socket.socket) -> None:
        stream.close()
        began = time.monotonic()
        assert await asyncio.to_thread(read_all, client) == 0
        while not stream.finished.done() and time.monotonic() - began < LONG_S:
            client.send(PING)
            await asyncio.sleep(0.02)

        assert time.monotonic() - began < 5 * (client_stream._LINGER_S + client_stream._CHECK_S)

    run(main)


def test_close_client_that_half_closed_behind_unread_bytes_gets_all(run: Run) -> None:
    """Closing with input unread would reset the connection; so that input is read first."""

    async def main(stream: ClientStream, client: socket.socket) -> None:
        await asyncio.to_thread(client.sendall, bytes(client_stream._HIGH_BYTES + 1))
        for _ in range(100):
            await asyncio.sleep(0.01)
            if not stream._transport.is_reading():
                break
        client.sendall(bytes(1000))  # it finds room in the kernel
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LONG_S):
            await asyncio.shield(stream.left)
        await write_into_kernel(stream)
        stream.close()
        await asyncio.sleep(0.1)

        assert await asyncio.to_thread(read_all, client) == SIZE

    run(main)
