"""Bodies that arrive in pieces: each piece is passed on at once, in order, and no byte is lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from tools.asgi import Received, Respond, say
from tools.compiled import IS_COMPILED
from tools.front import Front, run
from tools.net import wait_until_async

from swapchart.adapters.http1.client.response import UpstreamResponse
from swapchart.adapters.proxy.models.definitions import ModelDefinition, UpstreamTimeouts

STREAM = {"model": "a", "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streams(send: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> Respond:
    """Return a server whose streams *send* writes; other requests get an empty object."""

    async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
        if b"stream" in received.body:
            await send(writer)
        else:
            await say(writer, b"{}")

    return respond


@pytest.mark.skipif(IS_COMPILED, reason="compiled methods cannot be replaced")
def test_pieces_are_passed_on_without_waking_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task reads once, at the end; the events arrive one by one before that."""
    reads = []
    read = UpstreamResponse.read

    async def counted(self: UpstreamResponse, *, timeout_s: float | None = None) -> bytes:
        reads.append(self.bytes_received)
        return await read(self, timeout_s=timeout_s)

    monkeypatch.setattr(UpstreamResponse, "read", counted)
    go_on: list[asyncio.Event] = []

    async def stepwise(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for number in range(5):
            writer.write(chunk(b"data: %d\n\n" % number))
            await writer.drain()
            await go_on[-1].wait()
            go_on[-1].clear()
        writer.write(b"0\r\n\r\n")

    async def main(front: Front) -> None:
        go_on.append(asyncio.Event())
        async with front.client() as client:
            await front.warm(client)
            reads.clear()
            client.send(STREAM)
            assert (await client.head())[0] == 200
            for number in range(5):
                assert await client.reader.readuntil(b"\n\n\r\n") == chunk(b"data: %d\n\n" % number)
                assert reads == []
                go_on[-1].set()
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
            assert len(reads) == 1
        front.assert_nothing_is_acquired()

    run(main, respond=streams(stepwise))


def test_client_that_reads_slowly_gets_each_byte() -> None:
    """It slows the upstream, and the pieces that wait stay in order."""
    events = [b"data: %06d %b\n\n" % (number, b"x" * 20_000) for number in range(1_000)]
    written = []

    async def much(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for event in events:
            writer.write(chunk(event))
            await writer.drain()
            written.append(len(event))
        writer.write(b"0\r\n\r\n")

    async def main(front: Front) -> None:
        written.clear()
        async with front.client() as client:
            await front.warm(client)
            client.send(STREAM)
            await wait_until_async(lambda: len(written) > 10)
            for _ in range(50):  # turns of the loop in which the client takes nothing
                await asyncio.sleep(0)
            assert len(written) < len(events)
            status, body = await client.response()
            assert (status, body) == (200, b"".join(events))
        (record,) = front.finished
        assert record.sent_bytes == len(body)
        assert (record.is_whole, record.first_chunk[:12]) == (False, b"data: 000000")
        assert b"".join(record.body_chunks).endswith(events[-1])
        front.assert_nothing_is_acquired()

    run(main, respond=streams(much))


def test_stream_without_a_byte_is_ended_after_the_limit() -> None:
    """Each piece begins the limit anew; the client of the silent stream is disconnected."""

    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for number in range(8):
            writer.write(chunk(b"data: %d\n\n" % number))
            await writer.drain()
            await asyncio.sleep(0.1)  # longer than the limit in all
        await asyncio.sleep(60)

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            client.send(STREAM)
            await client.head()
            rest = await client.reader.read()
            assert rest == b"".join(chunk(b"data: %d\n\n" % number) for number in range(8))
        (record,) = front.finished
        assert (record.status, record.code) == (504, "broken")
        assert "no more of the response" in record.error
        front.assert_nothing_is_acquired()

    limits = UpstreamTimeouts(stall_s=0.5)
    run(main, *(ModelDefinition(id=name, limits=limits) for name in "ab"), respond=streams(silent))


def test_stream_that_breaks_aborts_the_client_behind_its_last_piece() -> None:
    async def broken(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: 1\n\n"))
        await writer.drain()
        writer.write(chunk(b"data: 2\n\n") + b"no length\r\n")
        await writer.drain()

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            client.send(STREAM)
            await client.head()
            rest = await client.reader.read()
            assert re.sub(rb"\w+\r\n|\r\n", b"", rest) == b"data: 1\n\ndata: 2\n\n"
            assert not rest.endswith(b"0\r\n\r\n")
        (record,) = front.finished
        assert (record.status, record.code) == (502, "broken")
        front.assert_nothing_is_acquired()

    run(main, respond=streams(broken))


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_chunks_are_framed_for_the_client(version: str) -> None:
    """A chunk that arrives alone is passed on as it came, unless the client gets no chunks."""
    texts = [b"data: %b\n\n" % (b"x" * size) for size in (1, 8, 300, 9_000)]
    framed = [chunk(text) for text in texts] + [
        b"a;x=1\r\ndata: 12\n\n\r\n",
        b"0A\r\ndata: 34\n\n\r\n",
    ]
    texts += [b"data: 12\n\n", b"data: 34\n\n"]
    go_on: list[asyncio.Event] = []

    async def stepwise(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for part in framed:
            await go_on[-1].wait()
            go_on[-1].clear()
            writer.write(part)
        writer.write(b"0\r\n\r\n")

    async def main(front: Front) -> None:
        go_on.append(asyncio.Event())
        async with front.client() as client:
            await front.warm(client)
            client.send(STREAM, version=version)
            assert (await client.head())[0] == 200
            for text in texts:
                go_on[-1].set()
                expected = text if version == "1.0" else chunk(text)
                assert await client.reader.readexactly(len(expected)) == expected
            rest = b"" if version == "1.0" else b"0\r\n\r\n"
            assert await client.reader.readexactly(len(rest)) == rest
        (record,) = front.finished
        assert (record.status, record.sent_bytes) == (200, len(b"".join(texts)))
        assert b"".join(record.body_chunks) == b"".join(texts)
        front.assert_nothing_is_acquired()

    run(main, respond=streams(stepwise))


def test_client_that_leaves_ends_its_stream() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(chunk(b"data: 1\n\n"))
            await writer.drain()
            await asyncio.sleep(0.001)

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            client.send(STREAM)
            await client.head()
        await wait_until_async(lambda: 499 in [record.status for record in front.finished])
        front.assert_nothing_is_acquired()

    run(main, respond=streams(endless))
