"""Selectors: which of several models a name stands for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, Received, proxied, say
from tools.net import wait_until_async

from swapchart.adapters.proxy.models.definitions import (
    BodyFilters,
    ModelDefinition,
    PeerDefinition,
    SelectorDefinition,
)
from swapchart.adapters.proxy.models.selection import (
    Candidate,
    Readiness,
    pick_spillover,
    pick_warm,
)


def seen(text: str) -> list[Candidate]:
    """Read candidates such as ``ready:2 stopped``."""
    items = (item.partition(":") for item in text.split())
    return [Candidate(readiness, int(count or 0)) for readiness, _, count in items]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("candidates", "place"),
    [
        ("stopped stopped", 0),
        ("stopped ready", 1),
        ("ready ready", 0),
        ("starting ready", 1),
        ("stopped starting", 1),
        ("asleep starting", 1),
        ("stopped asleep", 1),
        ("stopping stopped", 0),
        ("failed stopped", 1),
        ("failed failed", 0),
        ("failed stopping", 1),
    ],
)
def test_warm_selector_prefers_ready_models(candidates: str, place: int) -> None:
    """The first that is ready, else that starts, else that sleeps, else the first."""
    assert pick_warm(seen(candidates)) == place


@pytest.mark.parametrize(
    ("candidates", "limit", "turn", "place"),
    [
        ("stopped stopped", 1, 0, 0),
        ("ready stopped", 1, 0, 0),
        ("ready:1 stopped", 1, 0, 1),
        ("ready:1 stopped", 2, 0, 0),
        ("starting:1 stopped", 1, 0, 1),
        ("stopped ready", 1, 0, 1),
        ("stopped:1 stopped", 1, 0, 1),
        ("ready:1 ready", 2, 0, 1),
        ("ready ready", 1, 0, 0),
        ("ready ready", 1, 1, 1),
        ("ready ready", 1, 2, 0),
        ("ready:1 ready:1", 1, 0, 0),
        ("ready:1 ready:1", 1, 1, 1),
        ("ready:3 ready:1 stopped", 2, 0, 1),
        ("ready:3 ready:2 stopped", 2, 0, 2),
        ("ready:5 ready:4", 2, 0, 1),
        ("remote remote", 1, 0, 0),
        ("remote:1 remote", 1, 0, 1),
        ("ready:1 remote", 1, 0, 1),
        ("remote ready", 1, 0, 1),
        ("stopping stopped", 1, 0, 1),
        ("stopping stopping", 1, 0, None),
        ("failed stopping", 1, 0, None),
        ("stopping:1 ready:9", 1, 0, 1),
        ("asleep stopped", 1, 0, 0),
    ],
)
def test_spillover_selector_uses_the_next_target_when_full(
    candidates: str, limit: int, turn: int, place: int | None
) -> None:
    """The least busy of those that run while it has room, else the next that does not."""
    assert pick_spillover(seen(candidates), limit, turn) == place


READINESS = st.sampled_from(get_args(Readiness))
CANDIDATES = st.lists(st.builds(Candidate, READINESS, st.integers(0, 4)), min_size=1, max_size=5)


@given(CANDIDATES, st.integers(1, 3), st.integers(0, 9))
def test_spillover_selector_skips_failing_targets(
    candidates: list[Candidate], limit: int, turn: int
) -> None:
    """Whatever runs, the choice is one that can answer, and none only if there is none."""
    place = pick_spillover(candidates, limit, turn)
    able = [item for item in candidates if item.readiness not in ("stopping", "failed")]

    if place is None:
        assert not able
    else:
        assert candidates[place] in able


def run(
    main: Callable[[Bench], Awaitable[None]], *cards: ModelDefinition | str, **options: Any
) -> None:
    async def whole() -> None:
        async with proxied(*cards, **options) as bench:
            bench.supervisor.scheduler.policy = lambda target, running: frozenset()
            await main(bench)

    asyncio.run(whole())


async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    await writer.drain()
    await asyncio.Event().wait()


def test_selector_pin_rewrites_the_model() -> None:
    """The body's model becomes the target's name, and that name's filters apply."""
    card = ModelDefinition(
        id="a", aliases=("a:fast",),
        filters=BodyFilters(set_params_by_id={"a:fast": {"speed": 1}}),
    )  # fmt: skip
    selector = SelectorDefinition(id="s", strategy="pin", targets=("a:fast", "b"))

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", "/v1/completions", body=b'{ "model":"s", "n":1.0 }')

        assert bench.server.last.body == b'{ "model":"a:fast", "n":1.0,"speed":1 }'
        unknown = await bench.client.call("GET", "/upstream/s/x")
        assert unknown.status == 404

    run(main, card, "b", selectors=[selector])


def test_warm_selector_follows_running_models() -> None:
    """A request goes to the target that runs, else to the first."""
    selector = SelectorDefinition(id="s", strategy="warm", targets=("a", "b"))

    async def main(bench: Bench) -> None:
        await bench.client.chat("b")
        await bench.client.chat("s")
        assert bench.server.last.json()["model"] == "b"
        assert bench.supervisor["a"].incarnation == 0
        await bench.supervisor.unload("b")
        await bench.client.chat("s")
        assert bench.server.last.json()["model"] == "a"

    run(main, selectors=[selector])


def test_spillover_selector_reserves_until_the_end() -> None:
    """A busy target spills over to the next; its place is free again when the request ends."""
    selector = SelectorDefinition(id="s", strategy="spillover", targets=("a", "b", "p/m"))
    peer = PeerDefinition(id="p", url="http://127.0.0.1:9", models=("m",))

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        held = []
        for name in ("a", "b"):
            call = bench.client.begin("POST", "/v1/completions", value={"model": "s"})
            await call.until(lambda c: c.messages)
            held.append(call)
            assert bench.server.last.json()["model"] == name
        remote = await bench.client.call("POST", "/v1/completions", value={"model": "s"})
        assert (remote.status, remote.error()["code"]) == (502, "upstream_connect")
        held[1].leave()
        await held[1].task
        await wait_until_async(lambda: bench.supervisor["b"].in_flight == 0)
        bench.server.respond = answer
        assert (await bench.client.chat("s")).status == 200
        assert bench.server.last.json()["model"] == "b"
        held[0].leave()
        await held[0].task

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(writer, b"{}")

    run(main, selectors=[selector], peers=[peer])


def test_selector_without_targets_is_an_error() -> None:
    """When all targets are on their way out, the client is told to come back."""
    selector = SelectorDefinition(id="s", strategy="spillover", targets=("a",))

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        call = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await call.until(lambda c: c.messages)
        unload = bench.client.begin("POST", "/api/models/unload/a")
        await wait_until_async(lambda: bench.supervisor["a"].state == "draining")
        refused = await bench.client.chat("s")

        assert refused.status == 503
        assert refused.error()["message"] == "selector 's' has no available spillover targets"
        assert refused.header("retry-after") is not None
        call.leave()
        assert (await unload.answer()).status == 200

    run(main, selectors=[selector])
