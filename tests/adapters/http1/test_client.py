"""What crosses an upstream connection, and what does not: rows of section C, on real sockets."""

from __future__ import annotations

import random
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator

import pytest
from tools.net import wait_until_async
from tools.rows import row
from tools.scripted_upstream import (
    HOST,
    OK,
    Upstream,
    answering,
    body_of,
    echo,
    fetch,
    pieces_of,
    serving,
    silent,
)

from swapchart.adapters.http1.client.pool import UpstreamBroken

pytestmark = pytest.mark.anyio


async def test_exchange_headers_and_body_arrive_unchanged() -> None:
    """Target, fields and body arrive byte for byte; so do reason, fields and body back."""
    answer = b"HTTP/1.1 299 Very \xfc Odd\r\nX-a: 1\r\nx-A: \xff\r\nContent-Length: 3\r\n\r\nabc"
    async with serving(answering(answer)) as (up, pool):
        fields = [*HOST, (b"x-Y", b"1"), (b"X-y", b"\xfe2"), (b"content-length", b"999")]
        response = await pool.request(b"POST", b"/a%2Fb/../c?q=%zz", fields, b"hello")

        assert response.status == 299
        assert response.reason == b"Very \xfc Odd"
        assert response.headers == [(b"X-a", b"1"), (b"x-A", b"\xff"), (b"Content-Length", b"3")]
        assert response.content_length == 3
        assert await body_of(response) == b"abc"
        assert response.bytes_received == 3
        head, body = up.requests[0]
        assert head == (
            b"POST /a%2Fb/../c?q=%zz HTTP/1.1\r\nHost: up\r\nx-Y: 1\r\nX-y: \xfe2\r\n"
            b"Content-Length: 5\r\n\r\n"
        )
        assert body == b"hello"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
async def test_bodies_of_any_size_cross(size: int) -> None:
    """Joined with the head or written in slices, a body arrives whole, both ways."""
    data = random.Random(size).randbytes(size)
    async with serving(echo) as (up, pool):
        assert await fetch(pool, data) == (200, data)
        assert await fetch(pool, data, b"PUT") == (200, data)
        assert (up.connections, pool.open, pool.idle) == (1, 1, 1)


async def test_iterator_bodies_are_chunked_unless_their_length_is_given() -> None:
    """Pieces cross as chunks, or as they are behind a Content-Length; empty ones are no end."""
    async with serving(echo) as (up, pool):
        assert await fetch(pool, pieces_of(b"ab", b"", b"c" * 100_000)) == (
            200,
            b"ab" + b"c" * 100_000,
        )
        assert b"Transfer-Encoding: chunked" in up.requests[0][0]

        fields = [*HOST, (b"Content-Length", b"4")]
        async with await pool.request(b"PUT", b"/", fields, pieces_of(b"ab", b"cd")) as response:
            assert await body_of(response) == b"abcd"
        assert b"Transfer-Encoding" not in up.requests[1][0]
        assert up.connections == 1


@pytest.mark.parametrize("pieces", [[b"ab"], [b"ab", b"cde"]])
@row("C09")
async def test_iterator_body_of_wrong_length_ends_the_exchange(pieces: list[bytes]) -> None:
    """A body with fewer or more bytes than its Content-Length is never sent as complete."""
    async with serving(silent) as (up, pool):
        fields = [*HOST, (b"Content-Length", b"4")]
        with pytest.raises(UpstreamBroken, match="expected 4") as caught:
            await pool.request(b"POST", b"/", fields, pieces_of(*pieces))

        assert caught.value.stage == "send"
        await wait_until_async(lambda: up.gone)


@row("C15")
async def test_iterator_body_that_raises_raises_from_request() -> None:
    """What the iterator raises (its client left) is raised to the caller; upstream sees a close."""

    async def leaving() -> AsyncIterator[bytes]:
        yield b"some"
        raise LookupError("the client left")

    async with serving(silent) as (up, pool):
        with pytest.raises(LookupError, match="the client left"):
            await pool.request(b"POST", b"/", HOST, leaving())

        await wait_until_async(lambda: up.gone)


@pytest.mark.parametrize(
    ("method", "target", "field"),
    [
        (b"GET", b"/ HTTP/1.1\r\nX: y", (b"A", b"1")),
        (b"GET /x", b"/", (b"A", b"1")),
        (b"GET", b"/a b", (b"A", b"1")),
        (b"GET", b"", (b"A", b"1")),
        (b"GET", b"/", (b"A", b"1\r\nB: 2")),
        (b"GET", b"/", (b"A", b"1\n")),
        (b"GET", b"/", (b"A", b"1\0")),
        (b"GET", b"/", (b"A\r\n", b"1")),
    ],
)
@row("C04")
async def test_request_header_with_line_break_is_refused(
    method: bytes, target: bytes, field: tuple[bytes, bytes]
) -> None:
    """CR, LF, NUL and blanks where they would end something early are refused."""
    async with serving(echo) as (up, pool):
        with pytest.raises(ValueError, match=r"request header|without spaces"):
            await pool.request(method, target, [*HOST, field])

        assert up.connections == 0


@pytest.mark.parametrize("lengths", [[b"1", b"2"], [b"-1"], [b"1_0"], [b""], [b"0x3"]])
@row("C04")
async def test_iterator_body_needs_one_valid_length(lengths: list[bytes]) -> None:
    """A length that two parsers could read differently is refused."""
    async with serving(echo) as (_, pool):
        fields = [*HOST, *((b"Content-Length", value) for value in lengths)]
        with pytest.raises(ValueError, match="one Content-Length"):
            await pool.request(b"POST", b"/", fields, pieces_of(b"abc"))


H = b"HTTP/1.1 200 OK\r\n"
T = b"Transfer-Encoding: chunked\r\n"
HEADLESS = {
    "both framings": H + b"Content-Length: 2\r\n" + T + b"\r\nok",
    "both framings, other order": H + T + b"Content-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "listed lengths": H + b"Content-Length: 2, 2\r\n\r\nok",
    "signed length": H + b"Content-Length: +2\r\n\r\nok",
    "endless length": H + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nok",
    "odd coding": H + b"Transfer-Encoding: gzip\r\n\r\nok",
    "coding on chunked": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": H + T + T + b"\r\n0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nok",
    "status 99": b"HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok",
    "status 1000": b"HTTP/1.1 1000 What\r\nContent-Length: 2\r\n\r\nok",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/0.9": b"<html>hello</html>",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "folded field": H + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "NUL": H + b"A: b\0\r\nContent-Length: 2\r\n\r\nok",
    "giant field": H + b"A: " + b"b" * 110_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "giant head": H + b"A: bcdef\r\n" * 11_000 + b"\r\n",
    "endless head": H + b"A: bcdef\r\n" * 40_000,
    "flood of 1xx": b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 17 + OK,
    "unasked 101": b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "bare 101": b"HTTP/1.1 101 Switch\r\n\r\n",
    "no answer": b"",
    "half a head": H + b"Content-Le",
}  # fmt: skip


@pytest.mark.parametrize("name", HEADLESS)
@row("C07")
async def test_response_with_invalid_headers_raises(name: str) -> None:
    """A response that parsers could read differently is rejected as a whole."""
    async with serving(answering(HEADLESS[name])) as (_, pool):
        with pytest.raises(UpstreamBroken) as caught:
            await pool.request(b"POST", b"/", HOST, b"x")

        assert (caught.value.stage, caught.value.status_hint) == ("head", 502)
        assert pool.open == 0


CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
TRUNCATED = {
    "short body": H + b"Content-Length: 9\r\n\r\nabc",
    "no last chunk": CHUNKED,
    "half a chunk": CHUNKED[:-5] + b"abc",
    "bad chunk size": CHUNKED + b"zz\r\n",
    "signed chunk size": CHUNKED + b"+2\r\nab\r\n",
    "chunk size 0x2": CHUNKED + b"0x2\r\nab\r\n",
    "endless chunk size": CHUNKED + b"f" * 30 + b"\r\n",
    "chunk without CRLF": CHUNKED + b"2\r\nabXX",
    "giant trailer": CHUNKED + b"0\r\nA: " + b"b" * 400_000,
    "giant extension": CHUNKED + b"2;" + b"b" * 400_000,
    "length in trailer": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("name", TRUNCATED)
@row("C07", "C17")
async def test_response_with_broken_body_never_ends_cleanly(name: str) -> None:
    """The part of the body that arrived is read; then the error gives its size."""
    async with serving(answering(TRUNCATED[name])) as (_, pool):
        response = await pool.request(b"POST", b"/", HOST, b"x")
        got = b""
        with pytest.raises(UpstreamBroken) as caught:  # noqa: PT012 - it may be any of the reads
            while piece := await response.read():
                got += piece

        assert got in (b"abc", b"abcab")
        assert (caught.value.stage, caught.value.bytes_received) == ("body", len(got))
        assert not response.at_end
        assert pool.open == 0


SURPLUS = {
    "204 with a body": (b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc", b""),
    "304 with a body": (b"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\nabc", b""),
    "a second answer": (OK + OK, b"ok"),
    "half a second answer": (OK + b"H", b"ok"),
    "more than its length": (H + b"Content-Length: 2\r\n\r\nokay", b"ok"),
    "data after close": (H + b"Connection: close\r\nContent-Length: 2\r\n\r\nok!", b"ok"),
}  # fmt: skip


@pytest.mark.parametrize("name", SURPLUS)
@row("C07")
async def test_response_followed_by_more_bytes_closes_the_connection(name: str) -> None:
    """The connection is not used again, so no later request can get those bytes."""
    answer, body = SURPLUS[name]
    async with serving(answering(answer, close=False)) as (up, pool):
        for count in (1, 2, 3):
            assert (await fetch(pool))[1] == body
            assert (up.connections, pool.idle) == (count, 0)


@row("C07")
async def test_idle_connection_that_receives_bytes_is_not_reused() -> None:
    """A response that arrives before the request is discarded with its connection."""

    async def chatty(up: Upstream, reader: Reader, writer: Writer) -> None:
        await up.read_request(reader)
        writer.write(OK)
        await writer.drain()
        if up.connections == 1:
            writer.write(H + b"Content-Length: 6\r\n\r\nforged")
            up.requests.append((b"forged", b""))
        await reader.read()

    async with serving(chatty) as (up, pool):
        assert await fetch(pool) == (200, b"ok")
        await wait_until_async(lambda: len(up.requests) == 2)
        assert await fetch(pool) == (200, b"ok")
        assert up.connections == 2


@row("C46")
async def test_response_without_a_body_ends_after_its_headers() -> None:
    """HEAD, 204 and 304 end with their heads, keep their fields, and the connection lives on."""

    async def script(up: Upstream, reader: Reader, writer: Writer) -> None:
        for line in (b"200 OK", b"204 No", b"304 Same", b"200 OK"):
            await up.read_request(reader)
            length = b"" if line[:3] == b"204" else b"Content-Length: 7\r\n"
            writer.write(b"HTTP/1.1 %b\r\n%b\r\n" % (line, length))

    async with serving(script) as (up, pool):
        for status in (200, 204, 304, 200):
            response = await pool.request(b"HEAD", b"/", HOST)
            assert response.status == status
            assert response.content_length == (None if status == 204 else 7)
            assert response.at_end
            assert response.read_nowait() == b""
        assert up.connections == 1


@row("C46")
async def test_response_to_head_request_has_no_body() -> None:
    """An upstream that sends a body all the same loses the connection."""
    async with serving(answering(OK, close=False)) as (up, pool):
        for count in (1, 2):
            assert await fetch(pool, None, b"HEAD") == (200, b"")
            await wait_until_async(lambda: pool.idle == 0)
            assert up.connections == count


@row("C46")
async def test_interim_responses_are_dropped() -> None:
    """Interim responses (100, 103) are dropped, and their headers are not in the final one."""
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\nContent-Length: 3\r\n\r\n"
    )
    async with serving(answering(answer + OK, close=False)) as (up, pool):
        response = await pool.request(b"POST", b"/", HOST, b"x")

        assert (response.status, response.reason) == (200, b"OK")
        assert response.headers == [(b"Content-Length", b"2")]
        assert await body_of(response) == b"ok"
        assert await fetch(pool) == (200, b"ok")
        assert up.connections == 1


async def test_response_without_length_ends_with_the_connection() -> None:
    """Without length and coding the end of the connection is the end of the body, a clean one."""
    async with serving(answering(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nall of it")) as (_, pool):
        response = await pool.request(b"GET", b"/", HOST)

        assert response.content_length is None
        assert await body_of(response) == b"all of it"
        assert pool.open == 0


@row("C20")
async def test_trailers_are_dropped() -> None:
    """Fields behind a body never join those in front of it."""
    answer = CHUNKED + b"0\r\nAuthorization: x\r\nX-Sum: 9\r\n\r\n"
    async with serving(answering(answer, close=False)) as (up, pool):
        for _ in range(2):
            response = await pool.request(b"POST", b"/", HOST, b"x")
            assert await body_of(response) == b"abc"
            assert response.headers == [(b"Transfer-Encoding", b"chunked")]
        assert up.connections == 1
