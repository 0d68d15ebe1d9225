"""Ids of requests: which ones clients may choose, and that each response of ours has one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.h1_server import Call, Server
from tools.raw import Head
from tools.rows import row

from swapchart.adapters.http1.request_id import (
    FIELD,
    is_request_id,
    new_request_id,
    request_id_of,
)

OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]+")
WELL_FORMED = {b"a-B.9_": True, b"x" * 128: True, b"x" * 129: False, b"": False, b"a b": False}
WELL_FORMED |= {b"\xe9": False, b"a;b": False, b"a\nb": False, b"a\n": False}


@pytest.mark.parametrize(("value", "is_fit"), WELL_FORMED.items())
@row("C44")
def test_request_ids_are_fit_for_logs(value: bytes, is_fit: bool) -> None:
    """An id that could break a log line is replaced; any other is the request's."""
    found = request_id_of([(b"a", b"b"), (FIELD, value)])

    assert is_request_id(value) is is_fit
    assert (found == value) is is_fit
    assert is_request_id(found)


@given(st.lists(st.tuples(st.sampled_from([FIELD, b"other"]), st.binary(max_size=140))))
@row("C44")
def test_request_id_any_headers_one_well_formed_id(fields: list[tuple[bytes, bytes]]) -> None:
    """The only id of a request counts; of several none does."""
    given = [value for name, value in fields if name == FIELD]
    found = request_id_of(fields)

    assert is_request_id(found)
    assert (found in given) is (len(given) == 1 and is_request_id(given[0]))


def test_new_request_ids_are_short_and_differ() -> None:
    """They share what tells this run from others, and are numbered."""
    found = {new_request_id() for _ in range(1000)}

    assert len(found) == 1000
    assert all(OURS.fullmatch(value.decode()) for value in found)
    assert len({value[:9] for value in found}) == 1


# ---- responses of our server
def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def id_of(head: Head) -> str:
    """Return the id of a response, which has exactly one."""
    (found,) = [value for name, value in head.headers if name.lower() == "x-request-id"]
    return found


def test_response_has_the_id_of_its_request_once(server: Server) -> None:
    """The client's, or one of ours; whatever the application says, which sees the same one."""

    async def naming(call: Call) -> None:
        await call.read()
        seen.append(call.scope["extensions"]["swapchart.request_id"])
        await call.answer(headers=((b"X-Request-Id", b"theirs"), (b"A", b"b")))

    async def streaming(call: Call) -> None:
        await call.start(headers=((b"x-request-id", b"theirs"),))
        await call.piece(b"a")
        await call.piece(b"b", more=False)

    seen: list[bytes] = []
    server.handlers |= {"/named": naming, "/stream": streaming}
    with server.connect() as client:
        found = []
        for path in ("/named", "/stream", "/plain"):
            for lines in (["X-Request-ID: mine-1"], ["X-Request-ID: a b"], []):
                client.send(get(path, *lines))
                found.append(id_of(client.read_answer()))

    assert [name if name == "mine-1" else "" for name in found] == ["mine-1", "", ""] * 3
    assert all(OURS.fullmatch(name) for name in found if name != "mine-1")
    assert len({*found}) == 7
    assert [value.decode() for value in seen] == found[:3]


def test_failed_and_rejected_requests_have_an_id(server: Server) -> None:
    """An application that fails, a head without Host, and input that is no HTTP."""

    async def failing(call: Call) -> None:
        raise RuntimeError("on purpose")

    server.handlers["/failing"] = failing
    rejected = {
        get("/failing", "X-Request-ID: mine"): (500, "mine"),
        b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n": (400, "mine"),
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nX: " + b"x" * 40_000: (431, "mine"),
        b"GET / HTTP/1.1\r\nX-Request-ID: a b\r\n\r\n": (400, ""),
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n": (505, ""),
        b"what\r\n\r\n": (400, ""),
    }
    for sent, (status, name) in rejected.items():
        with server.connect() as client:
            client.send(sent)
            answer = client.read_answer()

        assert answer.status == status, sent
        assert id_of(answer) == name if name else OURS.fullmatch(id_of(answer)), sent


def test_input_rejected_behind_a_request_has_another_id(server: Server) -> None:
    """What is no request does not get the id of the request before it."""
    with server.connect() as client:
        client.send(get("/", "X-Request-ID: mine") + b"what\r\n\r\n")
        first, second = client.read_answer(), client.read_answer()

    assert (first.status, id_of(first)) == (200, "mine")
    assert second.status == 400
    assert OURS.fullmatch(id_of(second))
