"""A blocked event loop is seen, measured and told."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
from tools.asgi import proxied
from tools.net import wait_until, wait_until_async
from tools.rows import row

from swapchart.adapters.app.log_buffer import keeping_log
from swapchart.adapters.proxy.monitoring.event_loop import LoopWatch


def somebody_who_blocks(seconds: float) -> None:
    time.sleep(seconds)


@row("A37")
def test_blocked_loop_is_logged_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    """While it is blocked its stack is logged once, from outside; then how long it took."""

    async def story() -> None:
        with LoopWatch().watching() as watch, keeping_log() as ring:
            await wait_until_async(lambda: sum(watch.lags.counts) >= 1)
            logging.getLogger("swapchart.loop").propagate = True
            somebody_who_blocks(3.0)
            while_blocked = caplog.text
            await wait_until_async(lambda: watch.blocked)
            assert while_blocked.count("the event loop is blocked") == 1
            assert "in somebody_who_blocks" in while_blocked
            assert "the event loop was blocked for" in caplog.text
            assert watch.blocked == 1
            assert sum(watch.lags.counts[-3:]) == 1  # 1 s and more
            await wait_until_async(lambda: b"somebody_who_blocks" in ring.history())

    with caplog.at_level(logging.WARNING, "swapchart.loop"):
        asyncio.run(story())
    assert not [t for t in threading.enumerate() if t.name == "swapchart-loop-watch"]


@row("A37")
def test_busy_loop_is_not_reported_as_blocked(caplog: pytest.LogCaptureFixture) -> None:
    """Many short turns are measured, and nothing is told."""

    async def story() -> None:
        with LoopWatch().watching() as watch:
            while sum(watch.lags.counts) < 3:
                time.sleep(0.01)  # noqa: ASYNC251
                await asyncio.sleep(0)
            assert watch.blocked == 0

    with caplog.at_level(logging.WARNING, "swapchart.loop"):
        asyncio.run(story())
    assert "blocked" not in caplog.text


@row("A37")
def test_loop_lag_is_in_the_metrics() -> None:
    """Prometheus gets a histogram of the lag and a count of the times it was too much."""

    async def story() -> None:
        async with proxied() as bench:
            with LoopWatch().watching() as watch:
                bench.app.proxy.loop_watch = watch
                somebody_who_blocks(2.0)
                await wait_until_async(lambda: watch.blocked)
                text = (await bench.client.call("GET", "/metrics")).body.decode()
        assert "swapchart_loop_blocked_total 1.0" in text
        assert 'swapchart_loop_lag_seconds_bucket{le="1.0"} 0.0' in text
        assert 'swapchart_loop_lag_seconds_bucket{le="+Inf"} 1.0' in text

    asyncio.run(story())


def test_log_of_another_thread_reaches_readers() -> None:
    """A reader of the proxy's log hears of it, by way of the loop that the ring belongs to."""
    writers: set[int] = set()

    async def story() -> None:
        with keeping_log() as ring:
            ring.watch(lambda: writers.add(threading.get_ident()))
            stream = ring.stream()
            log = logging.getLogger("swapchart.test")
            thread = threading.Thread(target=log.warning, args=("from elsewhere",))
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            thread.start()
            assert b"from elsewhere" in await asyncio.wait_for(reading, 10)
            wait_until(lambda: not thread.is_alive())
            await stream.aclose()

    asyncio.run(story())
    assert writers == {threading.get_ident()}
