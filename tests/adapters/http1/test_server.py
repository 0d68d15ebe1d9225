"""What our HTTP/1.1 server takes and what it refuses: a corpus of raw bytes on real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tools.h1_server import Server, serving, trickle
from tools.net import wait_until
from tools.raw import Answer
from tools.rows import row
from tools.wire import REFUSED, SMUGGLED, C, G, H, P


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "uvicorn"])
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as server:
        assert server.is_patched
        yield server


def ask(server: Server, data: bytes) -> tuple[Answer, bytes]:
    """Send *data*; returns the first answer and what came behind it up to the end."""
    with server.connect() as client:
        client.send(data)
        answer = client.read_answer()
        return answer, client.read_all()


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_request_is_refused_before_the_application(server: Server, name: str) -> None:
    """Ambiguous or unknown requests get an error and an end; nothing behind them is a request."""
    status, data = REFUSED[name]

    answer, rest = ask(server, data + SMUGGLED)

    assert (answer.status, rest) == (status, b"")
    assert answer.header("connection") == "close"
    assert answer.json()["error"]["code"] == status
    assert server.calls == []


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_request_sent_byte_by_byte_is_refused(server: Server, name: str) -> None:
    """The same when the request trickles in; a version may then count as unreadable."""
    status, data = REFUSED[name]
    with server.connect() as client:
        trickle(client, data[:200])
        answer = client.read_answer()

        assert answer.status in ({status, 400} if status == 505 else {status})
        assert client.read_all() == b""
        assert server.calls == []


BROKEN_BODIES = {
    "signed size": b"+2\r\nab\r\n0\r\n\r\n",
    "size 0x2": b"0x2\r\nab\r\n0\r\n\r\n",
    "size with underscore": b"1_0\r\n",
    "endless size": b"f" * 30 + b"\r\n",
    "no size": b"\r\n",
    "blank before the size": b" 2\r\nab\r\n0\r\n\r\n",
    "blank behind the size": b"2 \r\nab\r\n0\r\n\r\n",
    "other bytes for CRLF": b"2\r\nabXX0\r\n\r\n",
    "no CRLF": b"2\r\nab0\r\n\r\n",
    "bare LF": b"2\nab\n0\n\n",
    "LF in a quoted extension": b'2;x="\n"\r\nab\r\n0\r\n\r\n',
    "CR X LF": b"2\rX\nab\r\n0\r\n\r\n",
    "coding in the trailer": b"2\r\nab\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
    "length in the trailer": b"2\r\nab\r\n0\r\nContent-Length: 5\r\n\r\n",
    "giant trailer": b"0\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
    "giant extension": b"2;" + b"b" * 200_000 + b"\r\nab\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
@row("C04")
def test_broken_bodies_end_the_request(server: Server, name: str) -> None:
    """The application is told that the client is gone, the client that the request was bad."""
    with server.connect() as client:
        client.send(C)
        call = server.wait_call()
        client.send(BROKEN_BODIES[name] + SMUGGLED)
        answer = client.read_answer()

        assert answer.status in (400, 431)
        assert client.read_all() == b""
    wait_until(lambda: call.events)
    assert call.events[0] == "disconnect"
    assert len(server.calls) == 1


ACCEPTED: dict[str, tuple[bytes, str, bytes, bytes]] = {
    "plain": (G + b"\r\n", "GET", b"/", b""),
    "empty lines in front": (b"\r\n\r\n" + G + b"\r\n", "GET", b"/", b""),
    "body": (P + b"Content-Length: 3\r\n\r\nabc", "POST", b"/", b"abc"),
    "body of a GET": (G + b"Content-Length: 3\r\n\r\nabc", "GET", b"/", b"abc"),
    "no body": (P + b"Content-Length: 0\r\n\r\n", "POST", b"/", b""),
    "blanks around a value": (P + b"Content-Length: \t 3 \t \r\n\r\nabc", "POST", b"/", b"abc"),
    "chunks": (C + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "POST", b"/", b"abc"),
    "extensions": (C + b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n', "POST", b"/", b"abc"),
    "trailers": (C + b"3\r\nabc\r\n0\r\nHost: evil\r\nA: b\r\n\r\n", "POST", b"/", b"abc"),
    "leading zeros": (C + b"0003\r\nabc\r\n0\r\n\r\n", "POST", b"/", b"abc"),
    "Chunked": (P + b"transfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "POST", b"/", b"a"),
    "odd path": (b"GET /a%2Fb/../%zz//?x=%00&y HTTP/1.1\r\n" + H + b"\r\n", "GET",
                 b"/a%2Fb/../%zz//", b""),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", "OPTIONS", b"*", b""),
    "PURGE": (b"PURGE /a HTTP/1.1\r\n" + H + b"\r\n", "PURGE", b"/a", b""),
    "absolute": (b"GET http://y:1/a?b HTTP/1.1\r\n" + H + b"\r\n", "GET", b"/a", b""),
    "absolute without path": (b"GET HTTP://y?b HTTP/1.1\r\n" + H + b"\r\n", "GET", b"/", b""),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", b"/", b""),
    "IPv6 Host": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET", b"/", b""),
    "1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", "GET", b"/", b""),
    "unasked upgrade": (G + b"Connection: upgrade\r\nUpgrade: foo\r\n\r\n", "GET", b"/", b""),
    "h2c": (P + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
            b"Content-Length: 3\r\n\r\nabc", "POST", b"/", b"abc"),
    "websocket with a body": (P + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
                              b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                              "POST", b"/", b"abc"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("trickles", [False, True])
def test_unusual_valid_request_is_accepted(server: Server, name: str, trickles: bool) -> None:
    """However it is cut, it is one request, and what is behind it is another."""
    data, method, raw_path, body = ACCEPTED[name]
    with server.connect() as client:
        if trickles:
            trickle(client, data)
        else:
            client.send(data)
        answer = client.read_answer()

        assert (answer.status, answer.body) == (200, b"ok")
        assert len(server.calls) == 1
        call = server.calls[0]
        assert call.scope["method"] == method
        assert call.scope["raw_path"] == raw_path
        assert call.body == body
        assert all(name == name.lower() for name, _ in call.scope["headers"])
        assert (b"host", b"evil") not in call.scope["headers"]
        if name != "1.0 without Host":
            client.send(SMUGGLED)
            assert client.read_answer().status == 200
            assert server.calls[1].scope["path"] == "/smuggled"
