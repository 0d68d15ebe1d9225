"""Clients that listen to events and logs: how many there may be, and what each may hold."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from tools.net import LONG_S

from swapchart.adapters.http1.asgi_types import Message
from swapchart.adapters.proxy import responses
from swapchart.adapters.proxy.event_bus import EventBus, Subscription
from swapchart.adapters.proxy.listener_limits import ListenerLimits
from swapchart.runtime import LogRing
from swapchart.runtime.testing import run_virtual


def test_listeners_beyond_the_limits_are_refused() -> None:
    """So many with one key, so many in all; one that leaves makes room for another."""
    counted = ListenerLimits(3, 2)
    with counted.entered("a") as first, counted.entered("a") as second:
        with (
            counted.entered("a") as third,
            counted.entered("b") as other,
            counted.entered("c") as fourth,
        ):
            assert (first, second, third, other, fourth) == (True, True, False, True, False)
        with counted.entered("c") as again:
            assert again
    assert len(counted) == 0

    with counted.entered(""), counted.entered(""), counted.entered("") as third:
        assert third  # without keys all are one
        counted.limit_to(2, 2)
        with counted.entered("") as fourth:
            assert not fourth
    assert len(counted) == 0


def test_subscription_of_a_listener_that_does_not_read_is_bounded() -> None:
    """Events are counted as lost beyond a size, and what is taken at a time is small."""
    hub = EventBus()
    feed = hub.open()
    for _ in range(1000):
        hub.publish("transition", {"text": "x" * 10_000})

    taken = []
    while not feed.is_empty:
        taken.append(asyncio.run(feed.take(1.0)))
    assert feed.lost > 900
    assert sum(map(len, taken)) < 600 << 10
    assert max(map(len, taken)) < 80 << 10


def test_subscription_wait_room_ends_when_the_listener_reads() -> None:
    """A sender that can wait does so until the listener has read, and loses nothing."""

    async def main() -> None:
        feed = Subscription(iter(range(100)).__next__)
        feed.put("logData", "x" * (100 << 10))
        waiting = asyncio.ensure_future(feed.wait_room())
        await asyncio.sleep(1.0)
        assert not waiting.done()
        await feed.take(1.0)
        await asyncio.wait_for(waiting, LONG_S)
        assert feed.lost == 0

    run_virtual(main)


def test_log_readers_share_the_history() -> None:
    """A thousand readers that have not read yet hold the pieces of the log, and no copies."""

    async def main() -> int:
        ring = LogRing()
        for _ in range(100):
            ring.write(b"x" * 10_000)
        streams = [ring.stream() for _ in range(1000)]
        for stream in streams:
            assert len(await anext(stream)) <= 1 << 16
        tracemalloc.start()
        more = [ring.stream() for _ in range(100)]
        for stream in more:
            await anext(stream)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for stream in (*streams, *more):
            await stream.aclose()
        assert not ring._readers
        return grown

    assert run_virtual(main) < 2 << 20  # copies would be 100 MB


def test_log_pieces_equal_the_history() -> None:
    """The pieces of a log are what is kept of it, also when its first piece is cut."""
    ring = LogRing(10_000)
    for number in range(1000):
        ring.write(b"%d," % number * 7)

    assert b"".join(ring.pieces()) == ring.history()
    assert len(ring.pieces()) > 1
    assert LogRing().pieces() == []


def test_large_responses_on_their_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a total of what clients have not read, a large response is refused with 503."""
    monkeypatch.setattr(responses, "_LARGE_TOTAL_BYTES", 1 << 20)
    body = b"x" * (700 << 10)

    async def main() -> None:
        gate = asyncio.Event()
        sent: list[list[Message]] = [[], []]

        async def slow(message: Message) -> None:
            sent[0].append(message)
            if len(sent[0]) == 3:
                await gate.wait()

        async def quick(message: Message) -> None:
            sent[1].append(message)

        first = asyncio.ensure_future(responses.send_bytes(slow, 200, body, b"text/plain"))
        await asyncio.sleep(0)
        await responses.send_bytes(quick, 200, body, b"text/plain")
        assert [m["status"] for m in sent[1][:1]] == [503]
        gate.set()
        await first
        assert b"".join(bytes(m["body"]) for m in sent[0][1:]) == body
        assert [m["more_body"] for m in sent[0][1:]][-1] is False
        sent[1].clear()
        await responses.send_bytes(quick, 200, body, b"text/plain")
        assert [m["status"] for m in sent[1][:1]] == [200]

    asyncio.run(main())
    assert responses._Outstanding.size == 0
