"""Heads that come again: recognized, and never read differently than the parser reads them."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.rows import row
from tools.wire import REFUSED, SMUGGLED, P

from swapchart.adapters.http1.client.response import ResponseConnection, UpstreamResponse
from swapchart.adapters.http1.client.response_parser import RepeatedHeads, ResponseParser
from swapchart.adapters.http1.io_batch import WriteBatch
from swapchart.adapters.http1.repeated_head import (
    TRIES,
    RepeatedFields,
    RepeatedHead,
    packed,
    parts_of_head,
)
from swapchart.adapters.http1.server.request_cycle import RequestCycle
from swapchart.adapters.http1.server.request_parser import RequestParser
from swapchart.adapters.http1.server.validation import H1Limits
from swapchart.adapters.http1.server.writer import ConnectionWriter

_KEY = P + b"Authorization: Bearer k\r\nX-Empty:\r\n"
_OK = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: %d\r\nX-Z: z\r\n\r\n%b"


def post(body: bytes, head: bytes = _KEY, *, rest: bytes = b"") -> bytes:
    """Return a request with *body*, whose length stands between *head* and *rest*."""
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (head, len(body), rest, body)


# ---- pure
def test_repeated_head_splits_messages_with_other_lengths() -> None:
    """Only the digits of the length may differ, and all of the body must be there, alone."""
    data = post(b"abc", rest=b"A: b\r\n")
    parts = parts_of_head(data, len(data) - 3)
    assert parts is not None
    head = RepeatedHead(*parts, [(b"content-length", b"3")])

    assert head.split(data) == (b"3", b"abc")
    assert head.split(post(b"x" * 1234, rest=b"A: b\r\n")) == (b"1234", b"x" * 1234)
    assert head.split(post(b"", rest=b"A: b\r\n")) == (b"0", b"")
    for other in (
        data + b"d", data[:-1], data[: -len(b"abc")], data[:9], b"", b"P" + data,
        data.replace(b": 3", b": 03"), data.replace(b": 3", b":  3"), data.replace(b": 3", b": +3"),
        data.replace(b": 3", b": 3 "), data.replace(b"A: b", b"A: c"), data.replace(b": 3", b": 2"),
        data.replace(b"\r\nA: b", b""), data.replace(b"POST", b"PUT"),
    ):  # fmt: skip
        assert head.split(other) is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        P + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        P + b"content-length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        P + b"Content-Length: 03\r\n\r\n",
        P + b"Content-Length: 3 \r\n\r\n",
        P + b"Content-Length: 4\r\n\r\n",
        P + b"Content-Length: 3\r\nX: " + b"x" * 4096 + b"\r\n\r\n",
    ],
)
def test_parts_of_unusual_heads_are_not_remembered(head: bytes) -> None:
    """A head without one plain length that fits the body, or a long one, is parsed each time."""
    assert parts_of_head(head + b"abc", len(head)) is None


def test_repeated_fields_differ_in_the_length_only() -> None:
    """Each list is its own, and can be had as one object."""
    given = [(b"a", b"b"), (b"Content-Length", b"12"), (b"c", b"")]
    for fields in (given, given[1:], given[:2], given[1:2]):
        repeated = RepeatedFields(fields)
        found = repeated.with_length(b"7")

        assert found == [
            (name, b"7" if name == b"Content-Length" else value) for name, value in fields
        ]
        assert repeated.packed(b"7") == packed(found)
        found.clear()
        assert repeated.with_length(b"12") == fields


# ---- requests
class Requests:
    """A connection that only collects requests, and its parser."""

    def __init__(self, *, remembers: bool = True) -> None:
        self.cycles: list[RequestCycle] = []
        self.loop = SimpleNamespace(time=lambda: 1.0)
        self.writer = ConnectionWriter(cast("Any", self.loop), WriteBatch())
        self.parser = RequestParser(
            cast("Any", self), H1Limits(), root_path="", state={}, accepts_upgrades=False
        )
        if not remembers:
            cast("Any", self.parser)._tries = 0

    def enqueue(self, cycle: RequestCycle) -> None:
        self.cycles.append(cycle)

    def feed(self, pieces: list[bytes]) -> None:
        """Parse *pieces*, up to an error or a request for another protocol."""
        for piece in pieces:
            self.parser.parse(piece)
            if self.parser.error or self.parser.upgrade_head is not None:
                return

    def seen(self) -> tuple[Any, ...]:
        """Return all that came of the input, without ids."""
        parser = self.parser
        cycles = [
            (
                cycle.scope, b"".join(cast("Any", cycle)._chunks), cycle.keep_alive,
                cycle.is_received, cycle.is_expecting, cycle.size, cycle.received,
            )
            for cycle in self.cycles
        ]  # fmt: skip
        return cycles, parser.error, parser.upgrade_head, parser.is_in_head, parser.is_unused

    def repeated(self) -> list[bool]:
        """Return for each request whether its head was recognized."""
        return [cycle.repeated_head is not None for cycle in self.cycles]


def test_request_head_is_recognized_from_the_third_request_on() -> None:
    """The second one is remembered; a client that sends only one leaves nothing behind."""
    requests = Requests()

    requests.feed([post(b"a"), post(b"bc"), post(b"x" * 999), post(b""), post(b"d", P), post(b"e")])

    assert requests.repeated() == [False, False, True, True, False, False]
    plain = Requests(remembers=False)
    plain.feed([post(b"a"), post(b"bc"), post(b"x" * 999), post(b""), post(b"d", P), post(b"e")])
    assert plain.seen() == requests.seen()
    assert not any(plain.repeated())


def test_request_in_two_pieces_does_not_end_the_recognition() -> None:
    """Many clients send head and body apart at times."""
    requests, data = Requests(), post(b"abc")
    requests.feed([data, data, data[:-3], data[-3:], data, data[:9], data[9:], data])

    assert requests.repeated() == [False, False, False, True, False, False]


def test_senders_of_varying_heads_are_no_longer_remembered() -> None:
    """After some heads that did not come again, remembering costs nothing more."""
    requests = Requests()
    requests.feed([post(b"a", P + b"X-Trace: %d\r\n" % number) for number in range(TRIES + 1)])
    again = post(b"a", P + b"X-Trace: again\r\n")
    requests.feed([again, again])

    assert not any(requests.repeated())


@pytest.mark.parametrize(
    "field", [b"Connection: close", b"X-Request-ID: a", b"Expect: 100-continue"]
)
def test_request_heads_with_an_effect_are_parsed_each_time(field: bytes) -> None:
    """Fields that the server acts on are read by the parser."""
    requests, data = Requests(), post(b"a", P + field + b"\r\n")
    requests.feed([post(b"a"), data, data, data])

    assert not any(requests.repeated())


@row("C04")
@pytest.mark.parametrize("name", REFUSED)
def test_invalid_request_behind_repeated_heads_is_refused_alike(name: str) -> None:
    """A remembered head changes nothing about other requests, in one read or byte by byte."""
    data = REFUSED[name][1] + SMUGGLED
    before = [post(b"abc", P)] * 3
    for pieces in ([data], [bytes((byte,)) for byte in data[:300]]):
        requests, plain = Requests(), Requests(remembers=False)
        requests.feed([*before, *pieces])
        plain.feed([*before, *pieces])

        assert requests.repeated()[:3] == [False, False, True]
        assert requests.seen() == plain.seen()


@row("C05")
@pytest.mark.parametrize("junk", [b"P", b"\r", b"\r\n", b" ", b"\0", b"GET"])
def test_bytes_before_a_repeated_head_are_not_forgotten(junk: bytes) -> None:
    """A request is recognized only if the parser has read nothing since the last one."""
    data = post(b"abc")
    for pieces in ([data, data, data, junk, data], [data, data, data + junk, data]):
        requests, plain = Requests(), Requests(remembers=False)
        requests.feed(pieces)
        plain.feed(pieces)

        assert requests.seen() == plain.seen()


_MESSAGES = [
    *(post(b"x" * size) for size in (1, 1, 3, 12)),
    *(post(b"y", rest=b"A: b\r\n"), post(b"", P), post(b"yy", rest=b"A: b\r\n")),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    P + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    post(b"x", P + b"Connection: close\r\n"),
    post(b"x", P + b"X-Request-ID: a\r\n"),
]
_JUNK = st.sampled_from([b"", b"", b"", b"", b"\r\n", b"P", b"\0", b"Content-Length: 3\r\n", b"1"])


@st.composite
def reads(draw: st.DrawFn) -> list[bytes]:
    """Reads of a connection: mostly whole messages, with some cuts and some junk."""
    found: list[bytes] = []
    for message in draw(st.lists(st.sampled_from(_MESSAGES), min_size=3, max_size=9)):
        junk, at = draw(_JUNK), draw(st.integers(0, len(message)))
        data = message[:at] + junk + message[at:]
        places = draw(st.lists(st.integers(0, len(data)), max_size=1))
        marks = [0, *places, len(data)]
        found += [data[start:end] for start, end in pairwise(marks) if start < end]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(found) - 1))
        found[at : at + 2] = [b"".join(found[at : at + 2])]
    return found


@row("C04")
def test_request_behind_connection_close_is_rejected_although_its_head_is_known() -> None:
    """Nothing is accepted behind `Connection: close`, whether its head is known or not."""
    requests = Requests()

    requests.feed([post(b"x"), post(b"x"), post(b"x", P + b"Connection: close\r\n"), post(b"x")])

    assert len(requests.cycles) == 3
    assert requests.parser.error == 400


@settings(max_examples=500, deadline=None)
@given(reads())
@row("C04")
def test_requests_are_read_alike_with_and_without_memory(pieces: list[bytes]) -> None:
    """Whatever comes, the parser that remembers heads reads it as the one that does not."""
    requests, plain = Requests(), Requests(remembers=False)
    requests.feed(pieces)
    plain.feed(pieces)

    assert requests.seen() == plain.seen()


# ---- responses
def exchange(parser: ResponseParser, pieces: list[bytes]) -> tuple[Any, ...]:
    """Feed one response; return all that came of it, and whether its head was recognized."""
    response = UpstreamResponse(cast("ResponseConnection", None))
    parser.start(response, b"POST / HTTP/1.1\r\n\r\n", is_head=False)
    problem = next(filter(None, map(parser.feed, pieces)), None)
    facts = (
        problem, response.status, response.reason, response.headers, response.content_length,
        b"".join(response.chunks), response.bytes_received, response.buffered_bytes,
        parser.is_complete, parser.has_progress, parser.is_unanswered, parser.is_complete_at_eof,
        parser.has_surplus, parser.can_keep if parser.is_complete else None,
    )  # fmt: skip
    return facts, response.repeated_head is not None


def test_response_head_is_recognized_over_all_connections() -> None:
    """A pool remembers the last head of its upstream, whatever connection it came by."""
    heads = RepeatedHeads()
    first, second = (ResponseParser(2000, heads, keeps_events=False) for _ in range(2))

    assert not exchange(first, [_OK % (3, b"abc")])[1]
    facts, is_repeated = exchange(second, [_OK % (4, b"defg")])

    assert is_repeated
    assert facts[1:6] == (
        200, b"OK", [(b"Server", b"x"), (b"Content-Length", b"4"), (b"X-Z", b"z")], 4, b"defg",
    )  # fmt: skip
    assert not exchange(first, [(_OK % (3, b"abc"))[:-1], b"c"])[1]


_ANSWERS = [
    *(_OK % (size, b"x" * size) for size in (1, 3, 12)),
    _OK.replace(b"200 OK", b"500 X") % (2, b"no"),
    _OK.replace(b"X-Z: z", b"Connection: close") % (2, b"ok"),
    _OK.replace(b"X-Z: z", b"Content-Type: text/event-stream") % (2, b"ok"),
    b"HTTP/1.1 103 Early\r\n\r\n" + _OK % (2, b"ok"),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_ANSWERS), _JUNK, st.integers(), st.integers())))
def test_responses_are_read_alike_with_and_without_memory(
    answers: list[tuple[bytes, bytes, int, int]],
) -> None:
    """Whatever comes, the parser that remembers heads reads it as the one that does not."""
    heads, none = RepeatedHeads(), RepeatedHeads()
    none.tries = 0
    parser, plain = (ResponseParser(2000, each, keeps_events=False) for each in (heads, none))
    for answer, junk, at, cut in answers:
        at %= len(answer)
        data = answer[:at] + junk + answer[at:]
        pieces = [data] if cut % 3 else [data[: cut % len(data)], data[cut % len(data) :]]
        facts, _ = exchange(parser, [piece for piece in pieces if piece])

        assert facts == exchange(plain, [piece for piece in pieces if piece])[0]
        if facts[0] or not parser.is_complete or parser.has_surplus or not parser.can_keep:
            return  # the connection is closed then
