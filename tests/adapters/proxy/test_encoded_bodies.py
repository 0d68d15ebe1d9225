"""JSON bodies with a byte order mark or packed by gzip."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers
from tools.asgi import Bench, run_proxied

from swapchart.adapters.proxy.body.errors import BadBodyError, BodyTooLargeError
from swapchart.adapters.proxy.body.gzip_body import unpacked_pieces
from swapchart.adapters.proxy.options import ProxyOptions

BODY = json.dumps({"model": "a", "messages": [], "pad": "x" * 3000}).encode()
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
PACKED = {**JSON, "content-encoding": "gzip"}


@given(binary(max_size=2000), integers(1, 200))
def test_unpacked_pieces_are_what_was_packed(start: bytes, repeats: int) -> None:
    body = start * repeats
    pieces = [*unpacked_pieces(gzip.compress(body), len(body))]

    assert b"".join(pieces) == body


@given(binary(max_size=300))
def test_bytes_that_are_no_gzip_are_an_error(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        b"".join(unpacked_pieces(b"x" + body, 1 << 20))


@given(binary(min_size=1, max_size=300), integers(1, 300))
def test_body_that_is_cut_off_is_an_error(body: bytes, size: int) -> None:
    packed = gzip.compress(body)
    with pytest.raises(BadBodyError):
        b"".join(unpacked_pieces(packed[: min(size, len(packed) - 1)], 1 << 20))


@pytest.mark.parametrize("rest", [b"x", gzip.compress(b"{}", mtime=0), b"x" * 100_000])
def test_body_that_goes_on_after_its_end_is_an_error(rest: bytes) -> None:
    with pytest.raises(BadBodyError, match="after its end"):
        b"".join(unpacked_pieces(gzip.compress(b"{}") + rest, 1 << 20))


def test_bomb_is_unpacked_no_further_than_its_limit() -> None:
    bomb, limit = gzip.compress(bytes(64 << 20)), 1 << 20
    pieces: list[bytes] = []
    with pytest.raises(BodyTooLargeError):
        pieces.extend(unpacked_pieces(bomb, limit))

    assert sum(map(len, pieces)) <= limit
    assert max(map(len, pieces)) <= 1 << 18


@pytest.mark.parametrize("pad", [0, 1, 70_000, 1_000_000])
def test_large_bodies_are_unpacked_whole(pad: int) -> None:
    body = bytes(range(256)) * (pad // 256) + b"1" * (pad % 256)

    assert b"".join(unpacked_pieces(gzip.compress(body), pad)) == body


def test_body_may_begin_with_a_byte_order_mark() -> None:
    """The model gets it without; a form type does not make it a form."""

    async def main(bench: Bench) -> None:
        for headers in (JSON, {"content-type": "application/x-www-form-urlencoded"}):
            sent = b"\xef\xbb\xbf" + BODY
            answer = await bench.client.call("POST", CHAT, body=sent, headers=headers)

            assert answer.status == 200
            assert bench.server.last.body == BODY
            assert bench.server.last.header("content-length") == str(len(BODY))

    run_proxied(main, "a")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
def test_gzip_body_goes_to_the_model_unpacked(coding: str) -> None:
    """With its own length and no Content-Encoding, and later requests are as ever."""

    async def main(bench: Bench) -> None:
        headers = {**JSON, "content-encoding": coding}
        for _ in range(3):
            packed = gzip.compress(BODY)
            answer = await bench.client.call("POST", CHAT, body=packed, headers=headers)

            assert answer.status == 200
            assert bench.server.last.body == BODY
            assert bench.server.last.header("content-length") == str(len(BODY))
            assert bench.server.last.header("content-encoding") is None
            assert (await bench.client.call("POST", CHAT, body=BODY, headers=JSON)).status == 200

    run_proxied(main, "a")


def test_gzip_body_stays_within_the_limit_of_bodies() -> None:
    async def main(bench: Bench) -> None:
        bomb = gzip.compress(b'{"model": "a", "pad": "' + b"x" * (8 << 20) + b'"}')
        answer = await bench.client.call("POST", CHAT, body=bomb, headers=PACKED)

        assert answer.status == 413
        assert bench.app.bodies.used_bytes == 0
        assert not bench.server.received

    run_proxied(main, "a", options=ProxyOptions(json_limit_bytes=1 << 20))


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_other_codings_are_refused_with_415(coding: str) -> None:
    async def main(bench: Bench) -> None:
        headers = {**JSON, "content-encoding": coding}
        answer = await bench.client.call("POST", CHAT, body=b"\x00\x01", headers=headers)

        assert (answer.status, answer.error()["code"]) == (415, "unknown_encoding")
        assert answer.header("accept-encoding") == "gzip"
        assert coding in answer.error()["message"]

    run_proxied(main, "a")


def test_body_that_is_no_gzip_is_refused_with_400() -> None:
    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", CHAT, body=b"\x1f\x8bxx", headers=PACKED)

        assert answer.status == 400
        assert "gzip" in answer.error()["message"]

    run_proxied(main, "a")
