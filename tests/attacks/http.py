"""Attacks on HTTP/1.1 and HTTP/2 framing, by clients and by models."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tools import raw
from tools.swapchart_process import chat_body
from tools.wire import REFUSED, SMUGGLED

from .entry import VARIANTS, Attack
from .target import CHAT, Target, play_response, read_request

_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def ambiguous_requests(target: Target) -> None:
    """Every request that no server may take is refused, and what stands behind it is no request."""
    for name, (_, data) in REFUSED.items():
        with (
            target.connect(0.05 if target.is_stock else 10.0) as client,
            contextlib.suppress(TimeoutError, ConnectionError),
        ):
            client.send(data + SMUGGLED)
            seen = client.read_all()
            assert target.is_stock or seen.count(b"HTTP/1.1 ") == 1, (name, seen)


def endless_head(target: Target) -> None:
    """A head of 20 MB in one field is refused long before its end."""
    status = target.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ", *[b"a" * 100_000] * 200)

    assert status in (0, 400, 414, 431)


def many_fields(target: Target) -> None:
    """100,000 fields in a head are refused."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    status = target.send(head, *[b"A: b\r\n" * 1000] * 100, b"\r\n")

    assert status in (0, 400, 431)


def tiny_chunks(target: Target) -> None:
    """A body in 50,000 chunks of one byte is a body, and holds nothing up."""
    body = b'{"model":"demo","messages":[],"max_tokens":1,"pad":"' + b"x" * 50_000 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    status = target.send(head + b"Content-Type: application/json\r\n" + _CHUNKED, chunks,
                         b"0\r\n\r\n")  # fmt: skip

    assert status in (200, 400), status


def pipelined_requests(target: Target) -> None:
    """2,000 requests in one piece are answered in order, or the connection ends."""
    with target.connect() as client, contextlib.suppress(ConnectionError):
        client.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1999)
        client.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        client.read_all()


def model_sends_endless_head(target: Target) -> None:
    """A model's head of 20 MB is an error of the model, and is not kept."""
    reply = target.ask_hostile(play_response(b"A: ", *[b"a" * 100_000] * 200))

    assert reply.startswith(b"HTTP/1.1 502"), reply[:200]


def model_sends_tiny_chunks(target: Target) -> None:
    """A response in 50,000 chunks of one byte passes."""
    chunks = b"1\r\nx\r\n" * 50_000
    reply = target.ask_hostile(play_response(_CHUNKED, chunks, b"0\r\n\r\n"))

    assert reply.startswith(b"HTTP/1.1 200"), reply[:200]


def model_breaks_its_framing(target: Target) -> None:
    """A chunk's size that is no number ends the response; the client sees that it is not whole."""
    reply = target.ask_hostile(play_response(_CHUNKED, b"5\r\nhello\r\nzz\r\n"))

    assert not reply.endswith(b"0\r\n\r\n"), reply


def client_leaves_while_model_sends(target: Target) -> None:
    """A client that resets in the middle of an endless response frees its model."""

    def play(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + _CHUNKED)
        while True:
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")

    with target.played(play):
        for _ in range(8):
            client = raw.Connection(target.port, timeout_s=30.0)
            client.request("POST", CHAT, value=chat_body("hostile", stream=True))
            client.read_head()
            client.reset()
        target.wait_quiet()


def http2_from_the_first_byte(target: Target) -> None:
    """The preface of HTTP/2, a window of 0 and a request: refused in HTTP/1.1, no frame comes."""
    window_of_0 = b"\0\0\6\4\0\0\0\0\0" + b"\0\4\0\0\0\0"
    fields = b"\x82\x86\4\7/health\1\x09127.0.0.1"
    request = b"\0\0%c\1\5\0\0\0\1" % len(fields) + fields
    with target.connect() as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window_of_0 + request)
        seen = client.read_all()

    assert seen.startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 ")), seen
    assert seen.count(b"HTTP/") == 1, seen


def http2_by_upgrade(target: Target) -> None:
    """An offer of ``h2c``, alone or behind another one, is ignored."""
    for offer in (b"h2c", b"websocket, h2c", b"websocket\r\nUpgrade: h2c"):
        with target.connect() as client:
            client.send(
                b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: "
                + offer
                + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            )
            assert client.read_answer().status in (200, 400, 426), offer


def slow_clients(target: Target) -> None:
    """200 unfinished headers and 200 unfinished bodies delay no client and take little memory."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(400):
            client = stack.enter_context(target.connect())
            client.send(head + b"Content-Length: 1000\r\n\r\n{" if number % 2 else head)
        assert target.call("GET", "/health").status == 200
    target.wait_quiet()


def response_nobody_reads(target: Target) -> None:
    """A model that pours 200 MB to a client that does not read has to wait."""
    poured = []

    def play(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(200):
            connection.sendall(bytes(1_000_000))
            poured.append(1)

    with target.played(play):
        client = target.connect()
        client.request("POST", CHAT, value=chat_body("hostile", stream=True))
        client.read_head()
        time.sleep(0.5)
        client.reset()
        target.wait_quiet()
    assert len(poured) < 100


def upload_nobody_reads(target: Target) -> None:
    """A client that leaves an upload which its model does not read leaves its model idle."""
    left = threading.Event()

    def play(connection: socket.socket) -> None:
        left.wait(30)

    with target.played(play):
        for way in ("close", "reset"):
            client = target.connect(0.2)
            fields = {"Content-Length": "100000000", "Content-Type": "application/octet-stream"}
            client.request("POST", "/upstream/hostile/upload", headers=fields)
            with contextlib.suppress(TimeoutError):
                for _ in range(1000):
                    client.send(bytes(100_000))
            target.proxy.wait_busy("hostile", in_flight=1)
            getattr(client, way)()
            target.wait_quiet()
        left.set()


#: The servers' own layers do not say that a client has left whose body is not read.
_OURS = tuple(variant for variant in VARIANTS if "stock" not in variant)

ATTACKS: tuple[Attack, ...] = (
    Attack(ambiguous_requests, may_log="h11|Invalid|hypercorn"),
    Attack(endless_head),
    Attack(many_fields),
    Attack(tiny_chunks),
    Attack(pipelined_requests),
    Attack(model_sends_endless_head),
    Attack(model_sends_tiny_chunks),
    Attack(model_breaks_its_framing),
    Attack(client_leaves_while_model_sends),
    Attack(http2_from_the_first_byte, may_log="Invalid"),
    Attack(http2_by_upgrade),
    Attack(slow_clients),
    Attack(response_nobody_reads),
    Attack(upload_nobody_reads, variants=_OURS),
)
