"""Connection pool under cancellation, lost connections, delays and limits, on real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from tools.net import free_port, wait_until_async
from tools.rows import row
from tools.scripted_upstream import (
    HOST,
    OK,
    Script,
    Upstream,
    answering,
    body_of,
    echo,
    fetch,
    pieces_of,
    serving,
    silent,
)
from tools.tls import PEM

from swapchart.adapters.http1.client import pool as upstream
from swapchart.adapters.http1.client.pool import (
    ConnectionPool,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    post_head,
    post_start,
)

pytestmark = pytest.mark.anyio


@row("C14")
async def test_cancelled_request_closes_its_connection_at_once() -> None:
    """Cancelled before the head, closed in the body: the upstream sees the end of each."""

    async def stalling(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        if up.requests[-1][1] == b"head":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await reader.readexactly(1)

    async with serving(stalling) as (up, pool):
        task = asyncio.create_task(fetch(pool, b"nothing"))
        await wait_until_async(lambda: up.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.open == 0
        await wait_until_async(lambda: up.gone == 1)

        async with await pool.request(b"POST", b"/", HOST, b"head") as response:
            assert await response.read() == b"ok"
        response.close()
        assert pool.open == 0
        await wait_until_async(lambda: up.gone == 2)

        response = await pool.request(b"POST", b"/", HOST, b"head")
        reading = asyncio.create_task(body_of(response))
        await wait_until_async(lambda: response.bytes_received)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        response.close()
        await wait_until_async(lambda: up.gone == 3)


@row("C14")
async def test_cancelled_request_stops_sending_its_body() -> None:
    """A cancelled upload ends, and the iterator with it."""
    ended = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.append(True)

    async def stuck(up: Upstream, reader: Reader, writer: Writer) -> None:
        up.requests.append((await reader.readuntil(b"\r\n\r\n"), b""))
        await asyncio.Event().wait()

    async with serving(stuck) as (up, pool):
        body = endless()
        task = asyncio.create_task(fetch(pool, body))
        await wait_until_async(lambda: up.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.open == 0
        await wait_until_async(lambda: ended)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("limit", [None, 3])
@row("C16")
async def test_storm_of_cancellations_leaves_the_pool_as_it_was(limit: int | None) -> None:
    """Requests cancelled after any number of loop ticks lose no place, task or connection."""
    chance = random.Random(16)

    async def sizes(up: Upstream, reader: Reader, writer: Writer) -> None:
        while True:
            body = await up.read_request(reader)
            size = len(body) * 10
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            await writer.drain()

    async with serving(sizes, max_connections=limit) as (_, pool):
        assert (await fetch(pool, b"x"))[0] == 200
        before = len(asyncio.all_tasks())
        files = open_files()

        async def one(ticks: int) -> None:
            body: bytes | AsyncIterator[bytes] = b"x" * chance.choice((1, 1000, 100_000))
            if chance.random() < 0.3:
                body = pieces_of(b"ab", b"c" * 70_000)
            task = asyncio.create_task(fetch(pool, body))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        for _ in range(60):
            await asyncio.gather(*(one(chance.randrange(40)) for _ in range(25)))
            assert limit is None or pool.open <= limit

        assert pool.open == pool.idle
        assert (await asyncio.wait_for(fetch(pool, b"xy"), 1.0)) == (200, bytes(20))
        spare = pool.open - 1  # each of them has a file and a task here, and a file there
        await wait_until_async(lambda: len(asyncio.all_tasks()) <= before + spare)
        await wait_until_async(lambda: open_files() <= files + 2 * spare)


@row("C17")
async def test_reset_in_the_body_raises() -> None:
    """A reset after n bytes of the body is raised after n bytes were read."""
    read = asyncio.Event()

    async def resetting(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd")
        await read.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(resetting) as (_, pool):
        response = await pool.request(b"GET", b"/", HOST)
        assert await response.read() == b"abcd"
        read.set()
        with pytest.raises(UpstreamBroken) as caught:
            await response.read()

        assert caught.value.bytes_received == 4


def closing_after(up_to: int) -> Script:
    """Close a connection without a response when request number *up_to* + 1 arrives."""

    async def script(up: Upstream, reader: Reader, writer: Writer) -> None:
        for _ in range(up_to):
            await up.read_request(reader)
            writer.write(OK)
            await writer.drain()
        await up.read_request(reader)

    return script


@row("C18")
async def test_idempotent_requests_are_retried_once() -> None:
    """An idempotent request is retried when a reused connection ends without a response."""
    async with serving(closing_after(1)) as (up, pool):
        for count in range(1, 5):
            assert await fetch(pool, None, b"GET") == (200, b"ok")
            assert up.connections == count

    async with serving(closing_after(0)) as (up, pool):
        with pytest.raises(UpstreamBroken):
            await fetch(pool, None, b"GET")
        assert up.connections == 1  # the failure of a new connection is final


@row("C18")
async def test_post_that_was_written_is_never_sent_twice() -> None:
    """The upstream may have acted on it; only the client can know if once more is right."""
    async with serving(closing_after(1)) as (up, pool):
        await fetch(pool)
        with pytest.raises(UpstreamBroken) as caught:
            await fetch(pool)

        assert caught.value.stage == "head"
        assert len(up.requests) == 2


@row("C18")
async def test_request_after_a_byte_of_its_response_is_not_retried() -> None:
    """A request is not retried after a part of a response has arrived."""

    async def half(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        writer.write(OK)
        await up.read_request(reader)
        writer.write(b"H")
        await writer.drain()

    async with serving(half) as (up, pool):
        await fetch(pool, None, b"GET")
        with pytest.raises(UpstreamBroken):
            await fetch(pool, None, b"GET")
        assert up.connections == 1


@pytest.mark.parametrize("how", ["reset", "eof", "early"])
@row("C18")
async def test_request_that_was_not_sent_uses_another_connection(how: str) -> None:
    """An unsent request is retried if its connection ends or receives bytes before it is sent."""
    async with serving(echo) as (up, pool):
        await fetch(pool)
        pool.write_batch._is_busy = True  # the next one waits for the end of the loop iteration
        task = asyncio.create_task(fetch(pool))
        await asyncio.sleep(0)
        (conn,) = pool._connected
        assert (pool.idle, len(up.requests)) == (0, 1)
        match how:
            case "reset":
                conn.transport.abort()
            case "eof":
                conn.eof_received()
            case _:
                pool.read_batch._is_busy = True
                conn.data_received(OK)
        assert await task == (200, b"x")
        assert (up.connections, len(up.requests)) == (2, 2)


@row("C18")
async def test_idle_connection_with_data_in_a_batch_is_not_used() -> None:
    """Bytes that came before a request are never taken for its response."""
    async with serving(echo) as (up, pool):
        await fetch(pool)
        pool.read_batch._is_busy = True
        (conn,) = pool._connected
        conn.data_received(OK)
        assert conn.is_read_pending
        assert await fetch(pool) == (200, b"x")
        assert (up.connections, len(up.requests)) == (2, 2)


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@row("C18")
async def test_request_that_was_aborted_is_not_sent_again(method: bytes) -> None:
    """A model that is being stopped gets no request that was to be ended."""
    async with serving(echo) as (up, pool):
        await fetch(pool)
        pool.write_batch._is_busy = True
        task = asyncio.create_task(fetch(pool, b"x" if method == b"POST" else None, method))
        await asyncio.sleep(0)
        pool.abort_connections("the model is being stopped")
        with pytest.raises(UpstreamBroken, match="the model is being stopped"):
            await task
        assert up.connections == 1


@row("C18")
async def test_request_that_cannot_be_sent_fails() -> None:
    """If a batched write fails, its request fails and does not wait forever."""
    async with serving(echo) as (_, pool):
        await fetch(pool)
        pool.write_batch._is_busy = True
        task = asyncio.create_task(fetch(pool))
        await asyncio.sleep(0)
        (conn,) = pool._connected
        transport = conn.transport
        conn.transport = cast("asyncio.Transport", Refusing())
        with pytest.raises(UpstreamBroken):
            await task
        transport.abort()


class Refusing:
    def write(self, data: bytes) -> None:
        raise MemoryError

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


@row("C18")
async def test_post_after_a_long_idle_time_uses_a_fresh_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A POST gets no connection that the upstream may be about to close; a GET does."""
    monkeypatch.setattr(upstream, "_FRESH_S", -1.0)  # no time is short enough
    async with serving(echo) as (up, pool):
        await fetch(pool)
        await wait_until_async(lambda: pool.idle == 1)
        assert await fetch(pool, None, b"GET") == (200, b"")
        assert up.connections == 1
        assert await fetch(pool) == (200, b"x")
        assert (up.connections, pool.open) == (2, 2)


@row("C18")
async def test_idle_connections_that_were_closed_cause_no_error() -> None:
    """An upstream that closes idle connections at random moments is never noticed."""
    chance = random.Random(18)

    async def moody(up: Upstream, reader: Reader, writer: Writer) -> None:
        while True:
            await up.read_request(reader)
            writer.write(OK)
            if chance.random() < 0.3:
                await writer.drain()
                return

    async with serving(moody) as (up, pool):

        async def client() -> None:
            for _ in range(60):
                assert await fetch(pool, b"x", chance.choice((b"POST", b"GET"))) == (200, b"ok")

        await asyncio.gather(*(client() for _ in range(10)))
        assert up.connections > 50


async def test_idle_connections_are_closed_in_time() -> None:
    """The last used connection is reused first; idle ones are closed before the upstream does."""
    async with serving(echo, idle_timeout_s=0.15) as (up, pool):
        await asyncio.gather(*(fetch(pool, b"x" * 1000) for _ in range(5)))
        assert pool.idle == pool.open == up.connections
        await wait_until_async(lambda: pool.open == 0)
        await wait_until_async(lambda: up.gone == up.connections)


@pytest.mark.parametrize("kind", ["bytes", "chunked", "counted"])
@row("C19")
async def test_early_response_is_read_during_the_upload(kind: str) -> None:
    """An upstream that refuses a body after its head gets its 413 through, then is closed."""

    async def refusing(up: Upstream, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    async with serving(refusing) as (up, pool):
        for count in range(1, 20):
            fields = [*HOST, (b"Content-Length", b"9999999999")] if kind == "counted" else HOST
            body = bytes(10_000_000) if kind == "bytes" else endless()
            response = await pool.request(b"POST", b"/", fields, body)

            assert (response.status, await body_of(response)) == (413, b"big")
            assert (pool.open, up.connections) == (0, count)


@row("C19")
async def test_response_and_upload_can_overlap() -> None:
    """A response is relayed while the request body is still being sent."""

    async def shouting(up: Upstream, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await reader.readuntil(b"\r\n"), 16):
            piece = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%b" % (size, piece.upper()))
        writer.write(b"0\r\n\r\n")
        await reader.readexactly(3)

    questions: asyncio.Queue[bytes] = asyncio.Queue()

    async def asking() -> AsyncIterator[bytes]:
        while piece := await questions.get():
            yield piece

    async with serving(shouting) as (_, pool):
        response = await pool.request(b"POST", b"/", HOST, asking())
        for word in (b"one", b"two"):
            questions.put_nowait(word)
            assert await response.read() == word.upper()
        questions.put_nowait(b"")
        assert await response.read() == b""


def stands_still(sent: list[int]) -> bool:
    """Tell whether the last entry equals the first in 20 looks in a row; keeps count in *sent*."""
    sent[1:] = [*sent[1:], sent[0]][-20:]
    return len(sent) == 21 and len(set(sent)) == 1


@row("C23")
async def test_slow_reader_pauses_the_upstream() -> None:
    """Reading pauses while a response is unread, and continues where it paused."""
    total, sent = 40_000_000, [0]

    async def pouring(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            writer.write(bytes(100_000))
            await writer.drain()
            sent[0] += 100_000
        await up.read_request(reader)
        writer.write(OK)

    async with serving(pouring) as (up, pool):
        response = await pool.request(b"GET", b"/", HOST)
        await wait_until_async(lambda: stands_still(sent))
        assert 0 < sent[0] < total / 2
        assert response.bytes_received <= (1 << 18) * 2
        got = 0
        while piece := await response.read():
            got += len(piece)
        assert got == total
        assert (await fetch(pool), up.connections) == ((200, b"ok"), 1)


@row("C48")
async def test_connect_that_takes_too_long_times_out() -> None:
    """A listener that never shakes hands is given up on in time, as a timeout."""
    context = ssl.create_default_context()
    async with serving(silent, ssl=context, connect_timeout_s=0.1) as (up, pool):
        with pytest.raises(UpstreamTimeout) as caught:
            await fetch(pool)

        assert (caught.value.stage, caught.value.status_hint) == ("connect", 504)
        assert pool.open == 0
        await wait_until_async(lambda: up.gone == 1)


@row("C48")
async def test_header_and_body_timeouts_are_separate() -> None:
    """Each wait has its own limit, none has one by default, and a late upstream is closed."""

    async def late(up: Upstream, reader: Reader, writer: Writer) -> None:
        if await up.read_request(reader) == b"body":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await reader.readexactly(1)

    async with serving(late) as (up, pool):
        with pytest.raises(UpstreamTimeout, match="no response") as caught:
            await pool.request(b"POST", b"/", HOST, b"head", header_timeout_s=0.05)
        assert (caught.value.stage, pool.open) == ("head", 0)

        response = await pool.request(b"POST", b"/", HOST, b"body", header_timeout_s=5)
        assert await response.read(timeout_s=5) == b"abc"
        with pytest.raises(UpstreamTimeout, match="no more") as caught:
            await response.read(timeout_s=0.05)
        assert (caught.value.stage, pool.open) == ("body", 0)
        await wait_until_async(lambda: up.gone == 2)


async def test_unreachable_upstream_raises_connect_error() -> None:
    """Refused, unknown and unspeakable names are the same thing to a client."""
    for host in ("127.0.0.1", "no.such.host.invalid", "x" * 70 + ".invalid", ""):
        pool = ConnectionPool(host, free_port())
        with pytest.raises(UpstreamUnreachable) as caught:
            await fetch(pool)
        assert (caught.value.stage, caught.value.status_hint, pool.open) == ("connect", 502, 0)
        await pool.aclose()


@row("C26")
async def test_upgraded_connection_is_raw_both_ways() -> None:
    """After a 101 that was asked for, bytes cross as they are until one side ends."""

    async def switching(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        head = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n"
        writer.write(head + b"early\r\n\r\n")
        while True:
            data = await reader.read(100_000)
            if not data or data == b"bye":
                return
            writer.write(data[::-1])

    fields = [*HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    async with serving(switching) as (_, pool):
        response = await pool.request(b"GET", b"/ws", fields)
        assert (response.status, response.upgraded) == (101, True)
        assert (b"X", b"y") in response.headers
        assert await response.read() == b"early\r\n\r\n"
        for word in (b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\xff", b"GET"):
            response.write(word)
            await response.drain()
            assert await response.read() == word[::-1]
        response.write(b"bye")
        assert await response.read() == b""
        response.write(b"nobody is there")
        assert pool.open == 0


@row("C26")
async def test_refused_upgrade_is_an_ordinary_response() -> None:
    """Where the upstream does not switch, its status and body are passed on."""
    fields = [*HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    refusal = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
    async with serving(answering(refusal, close=False)) as (_, pool):
        response = await pool.request(b"GET", b"/ws", fields)
        assert (response.status, response.upgraded) == (403, False)
        assert await body_of(response) == b"no"
        assert pool.idle == 1
        with pytest.raises(RuntimeError):
            response.write(b"x")


async def test_limit_makes_requests_wait_in_turn() -> None:
    """No more connections than allowed, all requests served, and the first is served first."""
    order: list[int] = []

    async with serving(echo, max_connections=2) as (up, pool):

        async def one(number: int) -> None:
            assert await fetch(pool, b"x" * number) == (200, b"x" * number)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))

        assert sorted(order) == list(range(20))
        assert order.index(19) > order.index(2)
        assert up.connections == pool.open == pool.idle == 2


async def test_limit_is_kept_when_connections_break() -> None:
    """A place that is freed by an error goes to who waits."""
    async with serving(answering(b"garbage"), max_connections=2) as (_, pool):
        found = await asyncio.gather(*(fetch(pool) for _ in range(9)), return_exceptions=True)

        assert {type(error) for error in found} == {UpstreamBroken}
        assert pool.open == 0


async def test_aclose_ends_all_requests() -> None:
    """In-flight, waiting and later requests fail; no connection stays open."""
    async with serving(silent, max_connections=1) as (up, pool):
        tasks = [asyncio.create_task(fetch(pool)) for _ in range(3)]
        await wait_until_async(lambda: up.requests)
        await pool.aclose()

        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, UpstreamError)
        with pytest.raises(UpstreamUnreachable, match="closed"):
            await fetch(pool)
        await wait_until_async(lambda: up.gone)


async def test_abort_ends_requests_in_flight_only() -> None:
    """In-flight requests fail with the reason, the upstream sees it, and the pool stays usable."""
    async with serving(silent) as (up, pool):
        tasks = [asyncio.create_task(fetch(pool)) for _ in range(3)]
        await wait_until_async(lambda: len(up.requests) == 3)
        pool.abort_connections("its time is over")

        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, UpstreamBroken)
            assert "its time is over" in str(error)
        await wait_until_async(lambda: up.gone == 3 and not pool.open)
        up.script = answering(OK)
        assert await fetch(pool) == (200, b"ok")


@row("C17")
async def test_connection_that_ends_at_once_raises() -> None:
    """Closed by the upstream before its request could be sent, it ends the request with an error.

    A process that is killed under the requests of a whole queue does so. The end may be here even
    before the caller has the connection.
    """
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, lambda: listener.accept()[0].close())
        pool = ConnectionPool("127.0.0.1", listener.getsockname()[1])
        try:
            for body in (None, b"x", b"x" * 100_000, pieces_of(b"ab")):
                with pytest.raises(UpstreamBroken):
                    async with asyncio.timeout(10):
                        await fetch(pool, body)
                assert pool.open == 0
        finally:
            loop.remove_reader(listener)
            await pool.aclose()


async def test_abort_ends_connection_that_was_just_made() -> None:
    """Aborted at any moment while it connects, a request fails or completes, and never hangs."""
    async with serving(silent) as (up, pool):
        task = asyncio.create_task(fetch(pool))
        async with asyncio.timeout(10):
            while not task.done():
                pool.abort_connections("its time is over")
                await asyncio.sleep(0)

        with pytest.raises(UpstreamBroken, match="its time is over"):
            await task
        assert pool.open == 0
        up.script = answering(OK)
        assert await fetch(pool) == (200, b"ok")


@row("C41")
async def test_tls_is_verified(tmp_path: Path) -> None:
    """With a context that knows it the upstream is trusted; by any other name it is not."""
    file = tmp_path / "localhost.pem"
    file.write_text(PEM)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    knowing = ssl.create_default_context(cafile=str(file))
    data = random.Random(41).randbytes(300_000)
    async with serving(echo, server_ssl=server, ssl=knowing, host="localhost") as (_, pool):
        assert await fetch(pool, data) == (200, data)
        assert await fetch(pool, data, b"PUT") == (200, data)
        assert await fetch(pool, pieces_of(data, data)) == (200, data + data)

    for host, context in (("127.0.0.1", knowing), ("localhost", ssl.create_default_context())):
        async with serving(echo, server_ssl=server, ssl=context, host=host) as (_, pool):
            with pytest.raises(UpstreamUnreachable, match="certificate"):
                await fetch(pool)
            assert pool.open == 0


class _Cutting:
    """Response listener that aborts all connections when the response has arrived."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool, self.is_notified = pool, False

    def done(self) -> bool:
        return self.is_notified

    def set_result(self, _: None) -> None:
        self.is_notified = True
        self.pool.abort_connections("the model is being stopped")


@row("C17")
async def test_connection_closed_while_its_response_is_delivered_is_not_kept() -> None:
    """A connection that a response listener closes is not returned to the pool."""
    async with serving(echo) as (up, pool):
        await fetch(pool, b"first")
        conn = pool.take()
        assert conn is not None
        start = post_start(b"/", b"Host: up\r\n")
        response = conn.begin(post_head(start, b"id", b"second"), b"second")
        listener = _Cutting(pool)
        response.set_listener(listener)
        await wait_until_async(listener.done)
        assert response.read_nowait() == b"second"
        assert (pool.open, pool.idle) == (0, 0)
        assert await fetch(pool, b"third") == (200, b"third")
        assert up.connections == 2
