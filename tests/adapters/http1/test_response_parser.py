"""Response parser: what it makes of bytes does not depend on how they are cut into reads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from
from hypothesis.strategies import data as draws

from swapchart.adapters.http1.client.response import ResponseConnection, UpstreamResponse
from swapchart.adapters.http1.client.response_parser import RepeatedHeads, ResponseParser
from swapchart.adapters.http1.client.single_chunk import payload_of

_UPGRADE = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
_EVENTS = b"Content-Type: text/event-stream\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

#: Bytes of a response -> what must come of it: status, body, complete, reusable, complete at EOF.
_RESPONSES: dict[bytes, tuple[int, bytes, bool, bool, bool]] = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": (200, b"hello", True, True, False),
    b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n": (204, b"", True, True, True),
    _CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n": (
        200, b"abcde", True, True, False,
    ),
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok": (
        200, b"ok", True, False, False,
    ),
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end": (200, b"until the end", False, False, True),
    _HINTS + b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx": (
        404, b"x", True, True, False,
    ),
    b"HTTP/1.1 200 OK\r\n" + _EVENTS + b"Content-Length: 1\r\n\r\nx": (
        200, b"x", True, False, False,
    ),
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw": (
        101, b"raw", False, False, True,
    ),
}  # fmt: skip

#: Bytes that are no response that may be passed on -> a word of the reason.
_BROKEN = {
    b"HTTP/1.1 600 Much\r\n\r\n": "status",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": "transfer coding",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n": "upgrade",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17: "interim",
    b"SSH-2.0-OpenSSH_9.6\r\n": "HTTP",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3000 + b"\r\n\r\n": "header fields",
}


def parse(reads: list[bytes], *, request: bytes = b"GET / HTTP/1.1\r\n\r\n") -> tuple[Any, ...]:
    """Feed *reads* to a new parser; return it, the response and the first problem."""
    parser = ResponseParser(2000, RepeatedHeads(), keeps_events=False)
    response = UpstreamResponse(cast("ResponseConnection", None))
    parser.start(response, request, is_head=False)
    for read in reads:
        problem = parser.feed(read)
        if problem is not None:
            return parser, response, problem
    return parser, response, None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return *data* in parts that begin at *places*."""
    edges = [*sorted({place % len(data) for place in places} | {0}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(sampled_from(sorted(_RESPONSES)), lists(integers(0, 400), max_size=12))
def test_feed_response_in_any_reads_same_result(data: bytes, places: list[int]) -> None:
    """Status, body and reuse are the same for one read and for any number of them."""
    status, body, is_complete, can_keep, is_complete_at_eof = _RESPONSES[data]
    request = _UPGRADE if status == 101 else b"GET / HTTP/1.1\r\n\r\n"

    parser, response, problem = parse(cut(data, places), request=request)

    assert problem is None
    assert (response.status, b"".join(response.chunks)) == (status, body)
    assert response.bytes_received == response.buffered_bytes == len(body)
    assert (parser.is_complete, parser.can_keep) == (is_complete, can_keep)
    assert parser.is_complete_at_eof == is_complete_at_eof
    assert not parser.has_surplus
    assert response.upgraded == (status == 101)


@given(sampled_from(sorted(_BROKEN)), lists(integers(0, 4000), max_size=12))
def test_feed_broken_response_in_any_reads_is_reported(data: bytes, places: list[int]) -> None:
    """What must not be passed on is reported before a status is set."""
    parser, response, problem = parse(cut(data, places))

    assert problem is not None
    assert _BROKEN[data].lower() in problem.lower()
    assert (response.status, response.chunks, parser.is_complete) == (0, [], False)
    assert not parser.is_unanswered


@given(draws())
def test_feed_bytes_after_response_are_surplus(draw: Any) -> None:
    """Bytes after a complete response make the connection unusable, in the same read or later."""
    whole = [data for data, expected in _RESPONSES.items() if expected[2]]
    data = draw.draw(sampled_from(sorted(whole)))
    extra = draw.draw(sampled_from([b"x", b"\x00", sorted(whole)[0]]))

    parser, response, problem = parse(cut(data + extra, draw.draw(lists(integers(0, 400)))))

    assert problem is None
    assert parser.is_complete
    assert parser.has_surplus or not parser.can_keep
    assert b"".join(response.chunks) == _RESPONSES[data][1]


@pytest.mark.parametrize("is_head", [False, True])
def test_start_second_exchange_on_the_same_parser(is_head: bool) -> None:
    """A response with headers of a body does not wait for it after HEAD; the next one is parsed."""
    parser = ResponseParser(2000, RepeatedHeads(), keeps_events=False)
    headers = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    first = UpstreamResponse(cast("ResponseConnection", None))
    parser.start(first, b"HEAD / HTTP/1.1\r\n\r\n", is_head=is_head)
    assert parser.is_unanswered
    parser.feed(headers if is_head else headers + b"abc")
    assert (parser.is_complete, parser.can_keep, first.content_length) == (True, True, 3)

    second = UpstreamResponse(cast("ResponseConnection", None))
    parser.start(second, b"GET / HTTP/1.1\r\n\r\n", is_head=False)
    assert (parser.is_complete, parser.is_unanswered) == (False, True)
    parser.feed(headers + b"def")

    assert parser.is_complete
    assert (first.chunks, second.chunks) == ([] if is_head else [b"abc"], [b"def"])


def take(parser: ResponseParser, response: UpstreamResponse, reads: list[bytes]) -> str | None:
    """Feed *reads* as a connection does whose chunks are taken as they arrive."""
    for read in reads:
        payload = payload_of(read) if parser.is_between_chunks else None
        if payload is not None:
            response.add(payload)
            continue
        problem = parser.feed(read)
        if problem is not None:
            return problem
    return None


#: Framings of a chunk, some of them invalid.
_FRAMINGS = (
    b"%(size)x\r\n%(data)b\r\n", b"%(size)X\r\n%(data)b\r\n", b"0%(size)x\r\n%(data)b\r\n",
    b"%(size)x;a=b\r\n%(data)b\r\n", b"%(size)x\n%(data)b\n", b"%(size)x \r\n%(data)b\r\n",
    b"%(size)x\r\n%(data)b.\r\n", b"%(size)x\r\n%(data)b\r\n\r\n", b"-%(size)x\r\n%(data)b\r\n",
)  # fmt: skip


@given(draws())
def test_chunks_that_arrive_alone_need_no_parser(draw: Any) -> None:
    """The body, the problem and the reuse are those of a parser that gets each byte."""
    usual = sampled_from(_FRAMINGS[:1] * 6 + _FRAMINGS)
    sizes = sampled_from([1, 9, 10, 15, 16, 200, 255, 256, 4095, 4096])
    wanted = draw.draw(lists(sizes | integers(1, 40), max_size=8))
    parts = []
    for size in wanted:
        data = draw.draw(binary(min_size=8, max_size=8)) * (size // 8 + 1)
        parts.append(draw.draw(usual) % {b"size": size, b"data": data[:size]})
    parts.append(
        draw.draw(sampled_from([b"", b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"0\r\n", b"\r\n"]))
    )
    reads = [_CHUNKED, *(part for part in parts if part)]
    for place in draw.draw(lists(integers(0, 30), max_size=3)):  # some reads have several, or half
        at = place % len(reads)
        if place % 2 and at + 1 < len(reads):
            reads[at : at + 2] = [reads[at] + reads[at + 1]]
        else:
            reads[at : at + 1] = [part for part in (reads[at][:-1], reads[at][-1:]) if part]

    expected, other, problem = parse(reads)
    parser = ResponseParser(2000, RepeatedHeads(), keeps_events=False)
    response = UpstreamResponse(cast("ResponseConnection", None))
    parser.start(response, b"GET / HTTP/1.1\r\n\r\n", is_head=False)

    assert take(parser, response, reads) == problem
    assert b"".join(response.chunks) == b"".join(other.chunks)
    assert response.bytes_received == other.bytes_received
    assert (parser.is_complete, parser.has_surplus) == (expected.is_complete, expected.has_surplus)
    assert parser.can_keep == expected.can_keep


def test_payload_of_a_chunk_of_each_size() -> None:
    """A chunk is recognized up to some kilobytes; what is cut, longer or the last is not."""
    for size in range(1, 8200):
        chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
        assert payload_of(chunk) == (b"x" * size if len(chunk) <= 8192 else None)
        if size < 300:
            others = (chunk[:-1], chunk + b"\r\n", chunk[:-2] + b"y\r\n", b"0" + chunk, chunk * 2)
            assert [payload_of(other) for other in others] == [None] * 5
    for other in (b"", b"\r\n", b"0\r\n\r\n", b"0\r\n\r\n\r\n", b"1\r\n\r\n", b"3\r\nab\r\n"):
        assert payload_of(other) is None
