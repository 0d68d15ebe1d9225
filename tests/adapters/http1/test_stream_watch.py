"""Reuse of upstream connections behind event streams."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

import pytest
from tools.net import wait_until_async
from tools.rows import row
from tools.scripted_upstream import Script, Upstream, fetch, serving

from swapchart.adapters.http1.client.pool import ConnectionPool, UpstreamBroken

pytestmark = pytest.mark.anyio

_EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7\r\ndata: 1\r\n0\r\n\r\n"
)
_ANSWER = (200, b"data: 1")


def streaming(at_most: int | None = None, *, answer: bytes = _EVENTS) -> Script:
    """Return a server of event streams that closes behind *at_most* of them."""

    async def script(up: Upstream, reader: Reader, writer: Writer) -> None:
        served = 0
        while at_most is None or served < at_most:
            await up.read_request(reader)
            writer.write(answer)
            served += 1

    return script


async def _learn(pool: ConnectionPool) -> None:
    """Send a request, and wait until the pool knows that its connection was left open."""
    assert await fetch(pool) == _ANSWER
    await wait_until_async(lambda: pool.streams.is_kept)


@row("A04")
async def test_upstream_that_closes_behind_a_stream_gets_no_further_request() -> None:
    """llama-server says Keep-Alive, and closes after a stream: the next request would be lost."""
    async with serving(streaming(1), stream_watch_s=60.0) as (up, pool):
        for _ in range(3):
            assert await fetch(pool) == _ANSWER
            assert pool.idle == 0
        await wait_until_async(lambda: pool.open == 0)
        assert (up.connections, len(up.requests)) == (3, 3)
        assert not pool.streams.is_kept


async def test_connection_behind_a_stream_is_not_reused_while_it_is_watched() -> None:
    """Nothing is sent before the upstream has shown what it does; few connections are watched."""
    async with serving(streaming(), stream_watch_s=60.0) as (up, pool):
        for _ in range(12):
            assert await fetch(pool) == _ANSWER
            assert pool.idle == 0
        assert (up.connections, pool.open) == (12, 8)


async def test_upstream_that_keeps_connections_is_reused_behind_a_stream() -> None:
    """The watched connection is closed, the next one carries all further streams."""
    async with serving(streaming(), stream_watch_s=0.01) as (up, pool):
        await _learn(pool)
        assert (pool.open, pool.idle) == (0, 0)
        for _ in range(5):
            assert await fetch(pool) == _ANSWER
            assert (pool.open, pool.idle) == (1, 1)
        assert up.connections == 2


async def test_connection_that_is_closed_early_ends_the_reuse() -> None:
    """A server that begins to close behind streams is watched again."""
    async with serving(streaming(), stream_watch_s=0.01) as (up, pool):
        await _learn(pool)
        pool.streams._watch_s = 60.0  # of what follows
        up.script = streaming(1)
        assert await fetch(pool) == _ANSWER
        await wait_until_async(lambda: pool.open == 0)
        assert not pool.streams.is_kept
        for _ in range(3):
            assert await fetch(pool) == _ANSWER
            assert pool.idle == 0


@pytest.mark.parametrize("head", [b"Connection: close\r\n", b""])
async def test_connection_is_closed_behind_a_stream_that_says_so(head: bytes) -> None:
    """`Connection: close`, and bytes behind the last chunk, are no matter of experience."""
    answer = _EVENTS.replace(b"Transfer", head + b"Transfer")
    async with serving(streaming(), stream_watch_s=0.01) as (up, pool):
        await _learn(pool)
        up.script = streaming(answer=answer if head else answer + b"x")
        assert await fetch(pool) == _ANSWER
        assert pool.open == 0


async def test_broken_stream_is_an_error_on_a_reused_connection() -> None:
    """A stream that ends without its last chunk is never taken for complete."""
    answers = [_EVENTS, _EVENTS[:-5]]

    async def script(up: Upstream, reader: Reader, writer: Writer) -> None:
        for answer in answers:
            await up.read_request(reader)
            writer.write(answer)

    async with serving(streaming(), stream_watch_s=0.01) as (up, pool):
        await _learn(pool)
        up.script = script
        assert await fetch(pool) == _ANSWER
        assert pool.idle == 1
        with pytest.raises(UpstreamBroken):
            await fetch(pool)
        assert (up.connections, pool.open) == (2, 0)


async def test_pool_closes_watched_connections() -> None:
    """A pool that is closed waits for no watch."""
    async with serving(streaming(), stream_watch_s=60.0) as (_, pool):
        assert await fetch(pool) == _ANSWER
        assert pool.open == 1
        async with asyncio.timeout(30):
            await pool.aclose()
        assert pool.open == 0


async def test_limited_pool_watches_no_connection() -> None:
    """A request may wait for the connection, so it is closed at once."""
    async with serving(streaming(), stream_watch_s=60.0, max_connections=1) as (up, pool):
        for number in range(3):
            assert await fetch(pool) == _ANSWER
            assert (up.connections, pool.open) == (number + 1, 0)
