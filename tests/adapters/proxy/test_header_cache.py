"""What was found out about a head holds for its like, and for no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tools.asgi import Bench, proxied
from tools.rows import row

from swapchart.adapters.proxy.access.header_cache import HeaderCache
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

FIELDS = [(b"host", b"a"), (b"content-length", b"5"), (b"x", b"1"), (b"authorization", b"k")]


def scope(headers: Any = FIELDS, client: str = "1.1.1.1", server: str = "2.2.2.2") -> Any:
    return {"headers": headers, "client": (client, 9), "server": (server, 80)}


def test_header_cache_ignores_the_content_length() -> None:
    """Nothing but the length, and the client's port, differs between two requests of a client."""
    memo = HeaderCache()
    longer = [(name, b"99" if name == b"content-length" else value) for name, value in FIELDS]

    assert memo.of(scope(longer)) is memo.of(scope())
    assert memo.of({**scope(), "client": ("1.1.1.1", 10)}) is memo.of(scope())


@pytest.mark.parametrize(
    "other",
    [
        scope(FIELDS[:-1]),
        scope(FIELDS[::-1]),
        scope([*FIELDS, (b"x", b"1")]),
        scope([*FIELDS[:-1], (b"authorization", b"K")]),
        scope(client="1.1.1.2"),
        scope(server="2.2.2.3"),
        {"headers": FIELDS},
    ],
)
def test_header_cache_distinguishes_all_other_headers(other: Any) -> None:
    """Every field, their order, and both addresses count."""
    memo = HeaderCache()

    assert memo.of(other) is not memo.of(scope())


def test_header_cache_is_bounded() -> None:
    """Neither many nor long ones fill the memory."""
    memo = HeaderCache()
    for number in range(5000):
        memo.of(scope([(b"x-request-id", b"%d" % number)]))
    long = scope([(b"cookie", b"x" * 10_000)])

    assert len(memo._known) <= 512
    assert memo.of(long) is not memo.of(long)


@row("C33", "C40")
def test_header_cache_refuses_a_removed_key_at_once() -> None:
    """Other keys hold for the next request, though one like it has passed before."""

    async def main(bench: Bench) -> None:
        headers = {"Authorization": "Bearer sk-old"}
        for _ in range(2):
            assert (await bench.client.chat("a", headers=headers)).status == 200
        proxy = bench.app.proxy
        proxy.configure(proxy.catalog, ProxyOptions(keys=(ApiKey(key="sk-new"),)))
        assert (await bench.client.chat("a", headers=headers)).status == 401

    async def whole() -> None:
        async with proxied(options=ProxyOptions(keys=(ApiKey(key="sk-old"),))) as bench:
            await main(bench)

    asyncio.run(whole())


@row("C34")
def test_header_cache_hit_sends_no_key_upstream() -> None:
    """The lines that are kept are those without what was meant for us, for every route."""

    async def whole() -> None:
        async with proxied(options=ProxyOptions(keys=(ApiKey(key="sk-ours"),))) as bench:
            headers = {"Authorization": "Bearer sk-ours", "X-Mine": "1"}
            for _ in range(3):
                assert (await bench.client.chat("a", headers=headers)).status == 200
            for received in bench.server.received:
                assert received.header("x-mine") == "1"
                assert received.header("authorization") is None

    asyncio.run(whole())
