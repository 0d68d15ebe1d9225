"""Many large bodies at once take bounded memory; one that finds no room is refused in time."""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamWriter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.asgi import Received, proxied, say_ok
from tools.net import wait_until_async
from tools.rows import row
from tools.swapchart_process import CHAT, Journal, Serve

from swapchart.adapters.proxy.body.memory_budget import BodyBudget, BodyBudgetError
from swapchart.adapters.proxy.options import ProxyOptions

MIB = 1 << 20


def body_of(size: int) -> bytes:
    head = b'{"model":"a","pad":"'
    return head + b"x" * (size - len(head) - 2) + b'"}'


@pytest.mark.anyio
@row("C10")
async def test_body_waits_for_memory_and_then_is_refused() -> None:
    """Three quarters are taken: another such body waits, and is refused with Retry-After."""
    blocked = asyncio.Event()

    async def respond(received: Received, writer: StreamWriter) -> None:
        await blocked.wait()
        await say_ok(received, writer)

    options = ProxyOptions(body_budget_bytes=1 * MIB, body_wait_s=0.2)
    async with proxied("a", respond=respond, options=options) as bench:
        body = body_of(3 * MIB // 4)
        first = bench.client.begin("POST", CHAT, body=body)
        await wait_until_async(lambda: bench.server.received)
        began = time.monotonic()
        refused = await bench.client.call("POST", CHAT, body=body)
        waited_s = time.monotonic() - began
        small = bench.client.begin("POST", CHAT, value={"model": "a"})
        late = bench.client.begin("POST", CHAT, body=body)
        await wait_until_async(lambda: bench.app.bodies.waiting)
        blocked.set()
        statuses = [(await call.answer()).status for call in (first, small, late)]

        assert (refused.status, refused.error()["code"]) == (503, "no_room_for_body")
        assert refused.header("retry-after") == "1"
        assert 0.2 <= waited_s < 5.0
        assert statuses == [200, 200, 200]
        assert bench.app.bodies.used_bytes == 0


@pytest.mark.anyio
@pytest.mark.parametrize("declares", [True, False])
@row("C10")
async def test_clients_that_leave_release_their_memory(declares: bool) -> None:
    """In the middle of the body, and while they wait for room."""
    options = ProxyOptions(body_budget_bytes=1 * MIB, body_wait_s=60.0)
    async with proxied("a", options=options) as bench:
        headers = {"content-length": str(MIB)} if declares else {}
        pieces = [body_of(MIB)[: MIB // 2], b""]
        calls = [
            bench.client.begin("POST", CHAT, pieces=[*pieces, b"x"], headers=headers)
            for _ in range(3)
        ]
        for call in calls:
            call._pieces = call._pieces[:1]  # and then nothing comes
        await asyncio.sleep(0)
        for call in calls:
            call.leave()
        await asyncio.gather(*(call.task for call in calls), return_exceptions=True)

        assert bench.app.bodies.used_bytes == 0
        assert bench.app.bodies.waiting == 0
        assert (await bench.client.call("POST", CHAT, body=body_of(MIB))).status == 200


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(1, 120), st.sampled_from(["stays", "leaves", "soon"])), max_size=12
    )
)
@row("C10")
def test_memory_budget_holds_in_any_order(wishes: list[tuple[int, str]]) -> None:
    """Never more than the limit except for one alone; in the end all memory is released."""

    async def main() -> None:
        budget = BodyBudget(100, 0.02)
        most = 0

        async def one(size: int, how: str) -> None:
            nonlocal most
            await budget.take(size)
            most = max(most, budget.used_bytes)
            assert budget.used_bytes <= 100 or budget.used_bytes == size
            try:
                await asyncio.sleep(0.03 if how == "stays" else 0)
            finally:
                budget.give_back(size)

        tasks = [asyncio.ensure_future(one(*wish)) for wish in wishes]
        await asyncio.sleep(0)
        for (_, how), task in zip(wishes, tasks, strict=True):
            if how == "leaves":
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            result is None or isinstance(result, BodyBudgetError | asyncio.CancelledError)
            for result in results
        ), results
        assert (budget.used_bytes, budget.waiting) == (0, 0)

    asyncio.run(main())


@pytest.mark.slow
@row("C10")
def test_large_bodies_at_once_take_bounded_memory(serve: Serve, journal: Journal) -> None:
    """24 bodies of 32 MiB for a model that loads: half a GiB is taken, the others wait unread."""
    loads = journal.model("a", "--load-s", "3")
    proxy = serve({"a": loads}, config={"healthCheckTimeout": 60})
    body = body_of(32 * MIB)
    before = psutil.Process(proxy.pid).memory_info().rss
    most = 0

    def ask(number: int) -> int:
        return proxy.call("POST", CHAT, body=body, timeout_s=60.0).status

    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(ask, number) for number in range(24)]
        while not all(answer.done() for answer in answers):
            most = max(most, psutil.Process(proxy.pid).memory_info().rss)
            time.sleep(0.02)
    statuses = [answer.result() for answer in answers]

    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 16
    assert most - before <= (512 + 150) * MIB
