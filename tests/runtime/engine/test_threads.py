"""Events from other threads: their order and number are kept."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread
import pytest

from swapchart.machine import Machine, NotHandledError, read
from swapchart.runtime import Host, HostStateError, Step

#: Threads and events of each; 200 threads of 1,000 events take half a minute.
THREADS, EVENTS = 200, 50

COUNTER = """
format: swapchart.chart/v1
name: Counter
data: {n: {initial: 0}}
events: {tick: {payload: true}, never: {}}
actions: {add: {set: {n: n + 1}}}
chart:
  states:
    on: {initial: true, transitions: [{event: tick, "on": add}, {event: never, target: off}]}
    off: {transitions: [{event: never, target: on}]}
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_events_of_many_threads_keep_order_and_count(backend: str) -> None:
    """Each thread's events arrive in the order of the thread, none is lost, none comes twice."""
    found: list[tuple[int, int]] = []

    async def main() -> None:
        complete = anyio.Event()

        def listen(step: Step) -> None:
            found.append(step.payload)
            if len(found) == THREADS * EVENTS:
                complete.set()

        async with Host() as host:
            one = host.start(Machine(read(COUNTER)), id="c")
            one.listen(listen)
            futures: list[Future[Any]] = []

            def post(thread: int) -> None:
                futures.extend(
                    host.post_threadsafe("c", "tick", payload=(thread, number))
                    for number in range(EVENTS)
                )

            threads = [threading.Thread(target=post, args=(n,)) for n in range(THREADS)]
            for thread in threads:
                thread.start()
            with anyio.fail_after(120):
                await complete.wait()
            for thread in threads:
                thread.join()
            assert {future.result(0).kind for future in futures} == {"taken"}

    anyio.run(main, backend=backend)
    assert len(found) == THREADS * EVENTS
    for thread in range(THREADS):
        assert [number for owner, number in found if owner == thread] == list(range(EVENTS))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_error_of_a_thread_event_is_in_its_future(backend: str) -> None:
    """A thread gets the step or the error; afterward the host says that it has ended."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(Machine(read(COUNTER)), id="c")

            def ask() -> list[object]:
                first = one.post_threadsafe("never").result(10)
                late = host.post_threadsafe("c", "tick").exception(10)
                lost = host.post_threadsafe("d", "tick").exception(10)
                return [first, late, lost]

            step, late, lost = await anyio.to_thread.run_sync(ask)
            assert getattr(step, "target", None) == ("off",)
            assert isinstance(late, NotHandledError)
            assert isinstance(lost, KeyError)
        with pytest.raises(HostStateError, match="has ended"):
            host.post_threadsafe("c", "tick")

    anyio.run(main, backend=backend)
