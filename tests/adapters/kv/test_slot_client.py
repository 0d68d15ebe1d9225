"""What a hostile llama-server tells of its slots is bounded."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from swapchart.adapters.kv.slot_client import SlotClient

_PACKED = gzip.compress(bytes(200 << 20), 1)


async def asked(body: bytes, head: bytes = b"") -> tuple[object, list[bytes]]:
    """Return what the client makes of *body* as ``/props``, and the heads of its requests."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n" % (len(body), head) + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with SlotClient(f"http://127.0.0.1:{port}", timeout_s=5.0) as client:
            try:
                return await client.props(), heads
            except OSError as error:
                return error, heads


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"[]," * 500_000 + b"1]", b"9" * 5000, b""]
)
def test_props_that_are_missing_are_no_error(body: bytes) -> None:
    """Nesting, floods and numbers without end are no properties."""
    assert asyncio.run(asked(body))[0] is None


def test_props_beyond_their_limit_are_an_error_of_the_server() -> None:
    """More than 2 MiB are not even read."""
    assert isinstance(asyncio.run(asked(b" " * (3 << 20)))[0], ConnectionError)


def test_props_that_are_compressed_are_not_decompressed() -> None:
    """Nothing that was asked for is packed, so 200 MB in 200 KB are no properties."""
    found, heads = asyncio.run(asked(_PACKED, b"Content-Encoding: gzip\r\n"))

    assert found is None
    assert b"accept-encoding: identity" in heads[0].lower()
