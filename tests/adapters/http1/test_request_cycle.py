"""How our HTTP/1.1 server carries requests and answers: framing, order and pressure."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import Any

import pytest
from tools.h1_server import Call, Server
from tools.net import wait_until
from tools.raw import Answer, Connection
from tools.rows import row
from tools.wire import G, H, P, get

from swapchart.adapters.http1.server.extensions import FULL_BODY, FULL_RESPONSE


def closes(client: Connection) -> bool:
    return client.read_all() == b""


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_full_response_goes_out_at_once(server: Server, method: bytes) -> None:
    """The extension sends what `send` would send, once, and says when it cannot."""

    async def whole(call: Call) -> None:
        await call.read()
        send_full_response = call.scope["extensions"][FULL_RESPONSE]
        call.events.append(
            send_full_response(200, [(b"x-a", b"1"), (b"content-length", b"2")], b"ok")
        )
        call.events.append(send_full_response(200, [], b"again"))

    async def begun(call: Call) -> None:
        await call.start()
        call.events.append(call.scope["extensions"][FULL_RESPONSE](200, [], b"late"))
        await call.piece(b"own", more=False)

    server.handlers |= {"/whole": whole, "/begun": begun}
    with server.connect() as client:
        for _ in range(2):
            client.send(get("/whole", method=method))
            head = client.read_head()
            assert (head.status, head.header("x-a")) == (200, "1")
            assert method == b"HEAD" or client.read_exactly(2) == b"ok"
        client.send(get("/begun"))
        assert client.read_answer().body == b"own"

    assert [call.events for call in server.calls] == [[True, False], [True, False], [False]]


@pytest.mark.parametrize(
    ("headers", "body"),
    [([(b"x", b"a\r\nb")], b""), ([(b"content-length", b"3")], b"ab")],
)
@row("C07")
def test_full_response_that_is_wrong_is_not_sent(
    server: Server, headers: list[tuple[bytes, bytes]], body: Any
) -> None:
    """What would break the answer is an error of the application, and 500 for the client."""

    async def whole(call: Call) -> None:
        call.scope["extensions"][FULL_RESPONSE](200, headers, body)

    server.handlers["/"] = whole
    with server.connect() as client:
        client.send(G + b"\r\n")
        assert client.read_answer().status == 500


def test_full_body_is_taken_once(server: Server) -> None:
    """The extension gives what `receive` would give, and then there is only the disconnect."""

    async def taking(call: Call) -> None:
        take = call.scope["extensions"][FULL_BODY]
        call.events += [take(), take()]
        await call.answer(call.events[0] or await call.read())
        call.events.append((await call.receive())["type"])

    server.handlers["/"] = taking
    with server.connect() as client:
        client.send(P + b"Content-Length: 3\r\n\r\nabc")
        assert client.read_answer().body == b"abc"
        client.send(P + b"Content-Length: 4\r\n\r\nab")
        wait_until(lambda: len(server.calls) == 2 and len(server.calls[1].events) == 2)
        client.send(b"cd")
        assert client.read_answer().body == b"abcd"
    wait_until(lambda: len(server.calls[1].events) == 3)

    assert server.calls[0].events == [b"abc", None, "http.disconnect"]
    assert server.calls[1].events == [None, None, "http.disconnect"]


def test_request_leaves_no_reference_cycle(server: Server) -> None:
    """What belongs to a request is gone with it: no cycle keeps it until the collector comes."""

    async def whole(call: Call) -> None:
        call.scope["extensions"][FULL_BODY]()
        call.scope["extensions"][FULL_RESPONSE](200, [], b"ok")
        server.calls.clear()

    server.handlers["/"] = whole
    with server.connect() as client:
        gc.disable()
        try:
            gc.collect()
            for _ in range(200):
                client.send(P + b"Content-Length: 3\r\n\r\nabc")
                assert client.read_answer().body == b"ok"
            found = gc.collect()
        finally:
            gc.enable()

    assert found < 200


def test_scope_describes_the_request(server: Server) -> None:
    """Path decoded once, bytes kept beside it, fields in order, addresses of both ends."""
    with server.connect() as client:
        client.send(b"POST /a%20b%2Fc?x=%20 HTTP/1.1\r\nhost: y:1\r\nB: 1\r\nA: 2 \r\nB: 3\r\n\r\n")
        assert client.read_answer().status == 200
        scope = server.calls[0].scope

        assert scope["type"] == "http"
        assert scope["asgi"]["version"] == "3.0"
        scheme = "https" if "tls" in server.where else "http"
        assert (scope["http_version"], scope["scheme"], scope["root_path"]) == ("1.1", scheme, "")
        assert (scope["path"], scope["raw_path"]) == ("/a b/c", b"/a%20b%2Fc")
        assert scope["query_string"] == b"x=%20"
        assert scope["headers"] == [(b"host", b"y:1"), (b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
        assert scope["server"] == ("127.0.0.1", server.port)
        assert scope["client"] == client.socket.getsockname()


@row("C06")
def test_authority_of_an_absolute_target_is_the_host(server: Server) -> None:
    """It replaces Host, so that who checks Host checks what was asked for."""
    with server.connect() as client:
        client.send(b"GET http://real:1/ HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n")
        client.read_answer()

        assert server.calls[0].scope["headers"] == [(b"host", b"real:1"), (b"a", b"b")]


@pytest.mark.parametrize(
    ("target", "status"), [(b"/" + b"a" * 16383, 200), (b"/" + b"a" * 16384, 414)]
)
@pytest.mark.parametrize("split", [False, True])
@row("C08")
def test_target_beyond_its_limit_is_refused(
    server: Server, target: bytes, status: int, split: bool
) -> None:
    """16 KiB of target and not a byte more."""
    assert sent(server, b"GET " + target + b" HTTP/1.1\r\n" + H + b"\r\n", split).status == status


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 431)])
@pytest.mark.parametrize("split", [False, True])
@row("C08")
def test_headers_beyond_their_number_are_refused(
    server: Server, count: int, status: int, split: bool
) -> None:
    """100 fields and not one more, Host among them."""
    fields = b"".join(b"A%d: b\r\n" % number for number in range(count))

    assert sent(server, G + fields + b"\r\n", split).status == status


@pytest.mark.parametrize(("size", "status"), [(32768 - 1 - 9 - 5, 200), (32768 - 14, 431)])
@pytest.mark.parametrize("split", [False, True])
@row("C08")
def test_headers_beyond_their_size_are_refused(
    server: Server, size: int, status: int, split: bool
) -> None:
    """32 KiB of target and fields, their separators included, and not a byte more."""
    # "/" is 1 byte, "Host: x" with its line end 9, "A: " with its own 5.
    assert sent(server, G + b"A: " + b"b" * size + b"\r\n\r\n", split).status == status


@pytest.mark.parametrize("head", [b"GET /" + b"a" * 100_000, G + b"A: " + b"b" * 100_000])
@row("C08")
def test_endless_headers_are_cut_off(server: Server, head: bytes) -> None:
    """A head without an end is refused as soon as it is too long, with what it is."""
    with server.connect() as client:
        client.send(head)

        assert client.read_answer().status == (431 if H in head else 414)


def sent(server: Server, data: bytes, split: bool) -> Answer:
    with server.connect() as client:
        if split:
            for at in range(0, len(data), 1000):
                client.send(data[at : at + 1000])
        else:
            client.send(data)
        return client.read_answer()


@row("C45")
def test_pipelined_requests_get_responses_in_order(server: Server) -> None:
    """Many requests in one segment, some with bodies, some slow: one after the other."""

    async def numbered(call: Call) -> None:
        body = await call.read()
        number = int(call.scope["query_string"])
        await asyncio.sleep(0.01 if number % 5 == 0 else 0)
        assert number == len([done for done in server.calls if done.events])
        call.events.append(number)
        await call.answer(b"%d:%b" % (number, body))

    server.handlers["/n"] = numbered
    data = b"".join(
        get(f"/n?{number}", b"Content-Length: 2") + b"%02d" % number for number in range(50)
    )
    with server.connect() as client:
        client.send(data)
        for number in range(50):
            assert client.read_answer().body == b"%d:%02d" % (number, number)


@row("C45")
def test_error_behind_pipelined_requests_is_sent_last(server: Server) -> None:
    """What came before the unreadable is served first; then the error, then the end."""

    async def slow(call: Call) -> None:
        await asyncio.sleep(0.05)
        await call.answer(b"slow")

    server.handlers["/slow"] = slow
    with contextlib.ExitStack() as stack:  # all at once: TLS takes 2 s to close
        clients = [stack.enter_context(server.connect()) for _ in range(3)]
        bad = (b"GARBAGE\r\n\r\n", P + b"Transfer-Encoding: x\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n")
        for client, request in zip(clients, bad, strict=True):
            client.send(get("/slow") + get("/") + request + get("/"))
        for client in clients:
            found = [client.read_answer() for _ in range(3)]

            assert [answer.body for answer in found[:2]] == [b"slow", b"ok"]
            assert found[2].status in (400, 501)
        assert all(map(closes, clients))
    assert len(server.calls) == 6


@row("C45")
def test_pipelined_bytes_kept_unparsed_are_bounded(server: Server) -> None:
    """A client that pipelines without reading is paused, and served when it is its turn."""
    go = asyncio.Event()

    async def gate(call: Call) -> None:
        await go.wait()
        await call.answer()

    server.handlers["/gate"] = gate
    with server.connect() as client:
        client.send(get("/gate"))
        server.wait_call()
        client.socket.settimeout(0.3)
        count = 0
        one = get("/", b"A: " + b"b" * 4000) * 10
        with contextlib.suppress(TimeoutError):
            while count < 2000:
                client.socket.sendall(one)
                count += 1
        assert count < 2000
        server.do(go.set)
        client.socket.settimeout(10)
        for _ in range(1 + count * 10):
            assert client.read_answer().status == 200


def test_keep_alive_follows_version_and_connection_header(server: Server) -> None:
    """1.1 lasts unless told, 1.0 ends unless told, and the answer says which."""
    with server.connect() as client:
        for version, field, says in (
            (b"1.1", b"A: b", None),
            (b"1.0", b"Connection: keep-alive", "keep-alive"),
            (b"1.1", b"Connection: Keep-Alive", None),
            (b"1.1", b"Connection: a, close", "close"),
        ):
            client.send(get("/", field, version=version))
            answer = client.read_answer()
            assert answer.header("connection") == says
        assert closes(client)
    with server.connect() as client:
        client.send(get("/", version=b"1.0"))
        assert client.read_answer().header("connection") == "close"
        assert closes(client)


def test_application_can_close_the_connection(server: Server) -> None:
    """An application that says close is obeyed; its other hop-by-hop fields are not ours."""

    async def closing(call: Call) -> None:
        fields = ((b"Connection", b"close"), (b"Transfer-Encoding", b"gzip"), (b"A", b"b"))
        await call.answer(headers=fields)

    server.handlers["/"] = closing
    with server.connect() as client:
        client.send(get("/"))
        answer = client.read_answer()

        names = [name.lower() for name, _ in answer.headers]
        assert names == ["a", "content-length", "connection", "x-request-id", "date"]
        assert closes(client)


@row("C46")
def test_date_is_sent_once(server: Server) -> None:
    """Ours, unless there is one; never a Server of ours."""

    async def dated(call: Call) -> None:
        await call.answer(headers=((b"Date", b"then"), (b"Server", b"llama.cpp")))

    server.handlers["/dated"] = dated
    with server.connect() as client:
        client.send(get("/dated") + get("/"))
        first, second = client.read_answer(), client.read_answer()

    assert [value for name, value in first.headers if name.lower() == "date"] == ["then"]
    assert first.header("server") == "llama.cpp"
    assert second.header("server") is None
    assert str(second.header("date")).endswith(" GMT")


@pytest.mark.parametrize("more", [False, True])
@row("C46")
def test_response_without_a_body_ends_after_its_headers(server: Server, more: bool) -> None:
    """HEAD, 204 and 304 have no body whatever the application sends; the next answer is whole."""

    async def bodied(call: Call) -> None:
        status = int(call.scope["query_string"])
        await call.start(status=status, headers=((b"content-length", b"5"),))
        if more:
            await call.piece(b"he")
            await call.piece(b"llo", more=False)
        else:
            await call.piece(b"hello", more=False)

    server.handlers["/"] = bodied
    with server.connect() as client:
        for status, method in ((200, b"HEAD"), (204, b"GET"), (304, b"GET"), (200, b"GET")):
            client.send(get(f"/?{status}", method=method))
            head = client.read_head()
            assert head.status == status
            assert head.header("content-length") == (None if status == 204 else "5")
            assert head.header("transfer-encoding") is None
        assert client.read_exactly(5) == b"hello"


def test_response_bodies_are_framed(server: Server) -> None:
    """A length where it is known, chunks where it is not, the end of the connection for 1.0."""

    async def pieces(call: Call) -> None:
        await call.start(headers=((b"a", b"b"),))
        for piece in (b"one", b"", b"two" * 50_000):
            await call.piece(piece)
        await call.piece(b"end" if call.scope["query_string"] else b"", more=False)

    server.handlers["/"] = pieces
    whole = b"one" + b"two" * 50_000
    with server.connect() as client:
        for query, end in (("", b""), ("?x", b"end")):
            client.send(get("/" + query))
            answer = client.read_answer()
            assert answer.header("transfer-encoding") == "chunked"
            assert answer.body == whole + end
            assert answer.chunks[0] == b"one"
        client.send(get("/", b"Connection: keep-alive", version=b"1.0"))
        head = client.read_head()
        assert (head.header("transfer-encoding"), head.header("connection")) == (None, "close")
        assert client.read_all() == whole


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_bodies_of_any_size_cross(server: Server, size: int) -> None:
    """What is sent is read, and what is answered arrives, in one piece or not."""

    async def echo(call: Call) -> None:
        await call.answer(await call.read())

    server.handlers["/"] = echo
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with server.connect() as client:
        for _ in range(2):
            client.request("POST", "/", body=data)
            assert client.read_answer().body == data
        client.send(P + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, size, 1000):
            piece = data[at : at + 1000]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
        assert client.read_answer().body == data


def test_response_headers_are_sent_before_a_slow_body(server: Server) -> None:
    """A client gets to know the status while the first token is still being computed."""
    go = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.start(headers=((b"content-type", b"text/event-stream"),))
        await go.wait()
        await call.piece(b"data: x\n\n")
        await call.piece(b"", more=False)

    server.handlers["/"] = slow
    with server.connect() as client:
        client.send(get("/"))
        head = client.read_head()
        assert head.status == 200
        server.do(go.set)
        assert client.read_body(head).body == b"data: x\n\n"


BAD_ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "too long": [("start", ((b"content-length", b"3"),)), ("piece", b"abcd", False)],
    "too short": [("start", ((b"content-length", b"3"),)), ("piece", b"ab", False)],
    "bad length": [("start", ((b"content-length", b"3x"),)), ("piece", b"abc", False)],
    "field with CRLF": [("start", ((b"a", b"b\r\nc: d"),)), ("piece", b"abc", False)],
    "name with LF": [("start", ((b"a\nb", b"b"),)), ("piece", b"abc", False)],
    "field with NUL": [("start", ((b"a", b"b\0"),)), ("piece", b"abc", False)],
    "body first": [("piece", b"abc", False)],
    "nothing": [],
    "only a start": [("start", ())],
    "two starts": [("start", ()), ("start", ())],
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
@row("C49")
def test_application_that_fails_gives_500(
    server: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of an answer that cannot be sent is sent; the error says nothing of its cause."""

    async def broken(call: Call) -> None:
        for step in BAD_ANSWERS[name]:
            if step[0] == "start":
                await call.start(headers=step[1])
            else:
                await call.piece(step[1], more=bool(step[2]))

    server.handlers["/"] = broken
    with caplog.at_level(logging.ERROR, "swapchart.h1"), server.connect() as client:
        client.send(get("/"))
        answer = client.read_answer()

        assert (answer.status, answer.json()["error"]["type"]) == (500, "server_error")
        assert closes(client)
        wait_until(lambda: caplog.records)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("fields", [(), ((b"content-length", b"9"),)])
@pytest.mark.parametrize("ends", ["raises", "returns", "is short"])
@row("C49", "C17")
def test_aborted_responses_never_end_cleanly(
    server: Server, fields: tuple[tuple[bytes, bytes], ...], ends: str
) -> None:
    """A client can tell half an answer from a whole one: no last chunk, fewer bytes, no FIN."""

    async def breaking(call: Call) -> None:
        await call.start(headers=fields)
        await call.piece(b"half")
        await asyncio.sleep(0.02)
        if ends == "raises":
            raise LookupError("secret")
        if ends == "is short" and fields:
            await call.piece(b"x", more=False)

    server.handlers["/"] = breaking
    with server.connect() as client:
        client.send(get("/"))
        head = client.read_head()
        half = b"half" if fields else b"4\r\nhalf\r\n"
        assert client.read_exactly(len(half)) == half
        assert client.read_all() == b""
        assert head.status == 200


@row("C21")
def test_expect_continue_is_sent_when_the_body_is_received(server: Server) -> None:
    """Not before the application asks for the body, not twice, and not when the body is here."""
    go = asyncio.Event()

    async def reads_late(call: Call) -> None:
        await go.wait()
        await call.answer(await call.read())

    server.handlers["/late"] = reads_late
    head = get("/late", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST")
    with server.connect() as client:
        client.send(head)
        server.wait_call()
        assert client.is_silent_for(0.05)
        server.do(go.set)
        assert client.read_exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert client.read_answer().body == b"abc"
        client.send(head + b"abc")
        assert client.read_exactly(12) == b"HTTP/1.1 200"


@row("C21")
def test_refusal_needs_no_body(server: Server) -> None:
    """An application that refuses by the head alone saves the client the upload; then an end."""

    async def refuses(call: Call) -> None:
        await call.answer(status=413)

    server.handlers["/"] = refuses
    with server.connect() as client:
        client.send(get("/", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST"))
        head = client.read_head()
        assert (head.status, head.header("connection")) == (413, "close")
        assert client.read_body(head).body == b"ok"
        assert closes(client)


@row("C19")
def test_refusal_reaches_client_that_still_sends(server: Server) -> None:
    """The answer is not lost in the reset that an early close would cause."""

    async def refuses(call: Call) -> None:
        await call.answer(b"too large", status=413)

    server.handlers["/"] = refuses
    for _ in range(5):
        with server.connect() as client:
            client.send(get("/", b"Content-Length: 99000000", method=b"POST"))
            with contextlib.suppress(ConnectionError):
                for _ in range(300):
                    client.send(bytes(10_000))
            head = client.read_head()
            assert (head.status, head.header("connection")) == (413, "close")
            assert client.read_body(head).body == b"too large"


@row("C22")
def test_many_tiny_chunks_take_bounded_time(server: Server) -> None:
    """200,000 chunks of one byte arrive as one body, in few messages."""
    messages = []

    async def counts(call: Call) -> None:
        while True:
            message = await call.receive()
            messages.append(len(message["body"]))
            if not message["more_body"]:
                break
        await call.answer()

    server.handlers["/"] = counts
    with server.connect() as client:
        client.send(P + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n")
        assert client.read_answer().status == 200
    assert sum(messages) == 200_000
    assert len(messages) < 2_000


def test_upload_waits_for_the_application(server: Server) -> None:
    """A body that is not read pauses the client, and arrives completely once it is read."""
    go = asyncio.Event()

    async def late(call: Call) -> None:
        await go.wait()
        await call.answer(b"%d" % len(await call.read()))

    server.handlers["/"] = late
    size = 40_000_000
    with server.connect() as client:
        client.send(get("/", b"Content-Length: %d" % size, method=b"POST"))
        client.socket.settimeout(0.3)
        done = 0
        with contextlib.suppress(TimeoutError):
            while done < size:
                done += client.socket.send(bytes(min(100_000, size - done)))
        assert done < size
        server.do(go.set)
        client.socket.settimeout(10)
        while done < size:
            done += client.socket.send(bytes(min(100_000, size - done)))
        assert client.read_answer().body == b"%d" % size


@row("C13")
def test_response_waits_for_a_slow_client(server: Server) -> None:
    """An application cannot get far ahead of a client that does not read."""
    count = [0]

    async def pours(call: Call) -> None:
        await call.start()
        for _ in range(400):
            await call.piece(bytes(100_000))
            count[0] += 1
        await call.piece(b"", more=False)

    server.handlers["/"] = pours
    with server.connect() as client:
        client.send(get("/"))
        server.wait_call()
        wait_until(lambda: stands_still(count))
        assert count[0] < 200
        assert len(client.read_answer().body) == 40_000_000


def stands_still(count: list[int]) -> bool:
    """Tell whether the first entry was the same in 20 looks; keeps them behind it."""
    count[1:] = [*count[1:], count[0]][-20:]
    return count[0] > 0 and len(count) == 21 and len(set(count)) == 1
