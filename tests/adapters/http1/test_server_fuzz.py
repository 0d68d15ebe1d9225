"""Malformed requests: mutated bytes, split anywhere, against laws and a second parser.

No socket: the transport only collects what is written; the rest is real.
"""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.rows import row
from tools.transports import Wire

from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits

Request = tuple[str, bytes]  # method and body

H = b"Host: x\r\n"
P = b"POST / HTTP/1.1\r\n" + H
T = P + b"Transfer-Encoding: chunked\r\n\r\n"
WELL = [
    b"GET / HTTP/1.1\r\n" + H + b"\r\n",
    b"GET /a?b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    P + b"Content-Length: 5\r\n\r\nhello",
    T + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n",
    T + b"1\r\na\r\n0\r\nT: 1\r\n\r\n",
    P + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"HEAD http://y/z HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n",
    P + b"Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 1\r\n\r\nx",
]
WORDS = [
    *(bytes((value,)) for value in b"\r\n\0 \t:,;0+\xff\x0b*#"),
    *(b"\r\n", b"\r\n\r\n", b"-1", b"0x", b" HTTP/1.1", b"HTTP/2.0", b"0\r\n\r\n"),
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Host: y\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"GET / HTTP/1.1\r\n",
    b"ffffffffffffffff\r\n",
]


async def drive(pieces: list[bytes]) -> tuple[list[Request], list[int]]:
    """Feed *pieces*; returns the requests that came through whole, and the statuses answered."""
    loop = asyncio.get_running_loop()
    seen: list[Request] = []
    trouble: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        seen.append((scope["method"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    wire: Any = Wire()
    connection = ServerConnection(ConnectionManager(loop, H1Limits(), lambda: False), app, loop)
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    before = -1
    while before != len(wire.sent):  # an answer a turn, for what was pipelined
        before = len(wire.sent)
        for _ in range(4):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    await connection.finished
    assert trouble == []
    return seen, statuses(wire.sent, [method for method, _ in seen])


ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[!-9;-~]+: [^\r\n]*\r\n)*)\r\n")


def statuses(sent: bytes, methods: list[str]) -> list[int]:
    """Take *sent* apart, down to the last byte."""
    found: list[int] = []
    while sent:
        match = ANSWER.match(sent)
        assert match is not None, sent
        sent = sent[match.end() :]
        status = int(match[1])
        if status == 100:
            continue
        length = re.search(rb"content-length: (\d+)\r\n", match[2])
        assert length is not None or status == 200
        is_head = len(found) < len(methods) and methods[len(found)] == "HEAD"
        if length is not None and not is_head:
            sent = sent[int(length[1]) :]
        found.append(status)
    return found


def second_opinion(data: bytes) -> list[Request]:
    """Return the whole requests h11 finds in *data*, up to what it cannot read."""
    connection = h11.Connection(h11.SERVER)
    found: list[Request] = []
    method, body = "", b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method.decode(), b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Well-formed requests, a few of their bytes dropped, doubled or put in their place."""
    data = b"".join(draw(st.lists(st.sampled_from(WELL), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        word = draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=2)))
        data = data[:at] + word + data[at + size :]
    return data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(marks) if a < b]


@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 2000), max_size=6))
@row("C04")
def test_mutated_requests_are_parsed_as_other_parsers_do(data: bytes, places: list[int]) -> None:
    """Whatever comes: no crash, sound answers, the same however it is cut, and h11 agrees."""
    with asyncio.Runner() as runner:
        seen, answered = runner.run(drive([data]))
        seen_cut, answered_cut = runner.run(drive(cut(data, places)))

    assert set(answered) <= {200, 400, 405, 417, 431, 501, 505}
    assert answered[: len(seen)] == [200] * len(seen)
    assert len(answered) - len(seen) in (0, 1)
    assert seen_cut == seen
    assert [400 if status == 505 else status for status in answered_cut] == [
        400 if status == 505 else status for status in answered
    ]
    for ours, theirs in zip(seen, second_opinion(data), strict=False):
        assert ours == theirs


def test_bad_request_while_an_exception_is_handled_is_refused() -> None:
    """What else the thread handles does not change the response to a request that is wrong."""
    with asyncio.Runner() as runner:
        try:
            raise KeyError
        except KeyError:
            seen, answered = runner.run(drive([b"GET / HTTP/1.1\r\n\r\n"]))

    assert (seen, answered) == ([], [400])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
@row("C05")
def test_random_bytes_never_reach_the_application(data: bytes) -> None:
    """Bytes that are no request are not taken for one."""
    with asyncio.Runner() as runner:
        seen, answered = runner.run(drive([data]))

    assert seen == []
    assert answered in ([], [400], [505])
