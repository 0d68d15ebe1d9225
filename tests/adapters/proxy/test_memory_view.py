"""Memory pools in the API: models, notices and events, and a key for some models."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from tools.asgi import Bench, Call, run_proxied

from swapchart.adapters.proxy.api.host import coarse_memory, memory_view
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions
from swapchart.runtime import MemoryLedger, ServiceSpec
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.memory.footprints import Observation
from swapchart.runtime.ports import PoolReading

GIB = 1 << 30
PER_MODEL = 4 * GIB
KEYS = (
    ApiKey(key="sk-all"),
    ApiKey(key="sk-a", scopes=frozenset({"infer", "admin"}), models=("a",)),
)


class FixedMeter:
    """A GPU of 24 GiB of which other programs use `others` bytes."""

    def __init__(self) -> None:
        self.others = 2 * GIB

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        processes = dict.fromkeys(pids, 3 * GIB)
        used = self.others + sum(processes.values())
        return [
            PoolReading(
                name="GPU0", capacity=24 * GIB, used=used, processes=processes,
                others={"blender": self.others}, source="test",
            )
        ]  # fmt: skip


def with_memory(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, memory=MemoryNeed(options=({"GPU0": PER_MODEL},), key=spec.name))


def run(
    main: Callable[[Bench, FixedMeter], Awaitable[None]], options: ProxyOptions | None = None
) -> None:
    meter = FixedMeter()
    ledger = MemoryLedger([Pool(name="GPU0", capacity=24 * GIB, reserve=GIB)])

    async def scenario(bench: Bench) -> None:
        await main(bench, meter)

    run_proxied(
        scenario, options=options, specs=with_memory, policy=no_evictions, memory=ledger,
        meter=meter,
    )  # fmt: skip


def events(call: Call, kind: str) -> list[Any]:
    found = []
    for block in call.body.decode().split("\n\n")[:-1]:
        if "data:" in block:
            value = json.loads(block.partition("data:")[2])
            found += [json.loads(value["data"])] if value["type"] == kind else []
    return found


async def read(bench: Bench) -> None:
    watch = bench.supervisor.memory_watch
    assert watch is not None
    await watch.read()


async def too_full(bench: Bench, meter: FixedMeter) -> None:
    """Let the GPU be too full for longer than 5 s."""
    watch = bench.supervisor.memory_watch
    assert watch is not None
    assert watch._ledger is not None
    watch._ledger.evicts_under_pressure = False
    meter.others = 22 * GIB
    await read(bench)
    watch.states["GPU0"].full_since = -1e9
    await read(bench)


def test_running_models_show_the_memory_that_they_hold() -> None:
    async def main(bench: Bench, meter: FixedMeter) -> None:
        await bench.client.chat("a")
        await read(bench)
        (row,) = (await bench.client.call("GET", "/running")).json()["running"]

        assert row["memory"] == {
            "GPU0": {"claim": PER_MODEL, "seen": 3 * GIB, "source": "declared"}
        }

    run(main)


def test_running_models_without_a_need_show_no_memory() -> None:
    async def main(bench: Bench) -> None:
        await bench.client.chat("a")
        (row,) = (await bench.client.call("GET", "/running")).json()["running"]
        assert "memory" not in row

    run_proxied(main)


def test_memory_event_comes_at_once_and_with_each_change() -> None:
    async def main(bench: Bench, meter: FixedMeter) -> None:
        call = bench.client.begin("GET", "/api/events")
        await call.until(lambda c: events(c, "memory"))
        first = events(call, "memory")[0]
        assert (first["mode"], first["models"]) == ("auto", [])
        await bench.client.chat("a")
        await call.until(lambda c: events(c, "memory")[-1]["models"])
        await call.until(lambda c: events(c, "memory")[-1]["models"][0]["phase"] == "ready")
        await too_full(bench, meter)
        await call.until(lambda c: events(c, "pressure"))
        (pressure,) = events(call, "pressure")
        assert pressure["pool"] == "GPU0"
        assert pressure["text"].startswith("pool GPU0 is too full: 3.0 GiB more")
        last = events(call, "memory")[-1]
        assert [(notice["kind"], notice["pool"]) for notice in last["notices"]] == [
            ("pressure", "GPU0")
        ]
        assert last["pools"][0]["others"] == {"blender": 22 * GIB}
        call.leave()
        await call.task

    run(main)


def test_memory_is_compared_in_steps_of_one_percent() -> None:
    """Changes of each reading, or of time alone, are not published."""

    async def main(bench: Bench, meter: FixedMeter) -> None:
        await bench.client.chat("a")
        await read(bench)
        before = coarse_memory(memory_view(bench.app.proxy))
        meter.others += 1 << 20
        await read(bench)
        assert coarse_memory(memory_view(bench.app.proxy)) == before
        meter.others += 256 << 20
        await read(bench)
        assert coarse_memory(memory_view(bench.app.proxy)) != before

    run(main)


def test_memory_of_a_key_for_some_models_shows_no_other_model() -> None:
    async def main(bench: Bench, meter: FixedMeter) -> None:
        learning = bench.supervisor.scheduler.memory
        assert learning is not None
        for name in ("a", "b"):
            await bench.client.chat(name, headers=[("authorization", "Bearer sk-all")])
            held = Observation(
                model=name, key=name, run="1", pool="GPU0", at=0.0, ready=9 * GIB, highest=9 * GIB
            )
            learning.learning.footprints.add(held)
        await too_full(bench, meter)
        for key, names in (("sk-all", ["a", "b"]), ("sk-a", ["a"])):
            headers = [("authorization", f"Bearer {key}")]
            state = (await bench.client.call("GET", "/api/memory", headers=headers)).json()
            assert [row["model"] for row in state["models"]] == names
            assert {row["model"] for row in state["learned"]} == {*names}
            exceeded = [each for each in state["notices"] if each["kind"] == "exceeded"]
            assert [each["model"] for each in exceeded] == names
            assert "pressure" in {each["kind"] for each in state["notices"]}
            call = bench.client.begin("GET", "/api/events", headers=headers)
            await call.until(lambda c: events(c, "memory"))
            (told,) = events(call, "memory")
            assert [row["model"] for row in told["models"]] == names
            call.leave()
            await call.task

    run(main, ProxyOptions(keys=KEYS))


def test_memory_is_left_to_other_programs_by_request_until_a_further_one() -> None:
    async def main(bench: Bench, meter: FixedMeter) -> None:
        async def call(value: Any) -> Any:
            return await bench.client.call("POST", "/api/memory/yield", value=value)

        await bench.client.chat("a")
        answer = await call({"pools": ["GPU0"], "seconds": 7200, "keep": GIB})
        assert (answer.status, answer.json()) == (200, {"pools": ["GPU0"]})
        state = (await bench.client.call("GET", "/api/memory")).json()
        (pool,) = state["pools"]
        assert (pool["keep"], pool["free"]) == (GIB, GIB - PER_MODEL)
        assert pool["left_because"] == "GPU0 is left to other programs (by request)"
        assert state["away"] == [{"model": "a"}]
        answer = await call({"pools": ["GPU0"], "seconds": 0})
        assert answer.json() == {"pools": []}
        (pool,) = (await bench.client.call("GET", "/api/memory")).json()["pools"]
        assert (pool["keep"], pool["left_because"]) == (None, "")

    run(main)


def test_memory_yield_request_that_makes_no_sense_is_refused() -> None:
    async def main(bench: Bench, meter: FixedMeter) -> None:
        wrong: list[Any] = [
            {}, [], {"pools": "GPU0"}, {"pools": ["GPU7"]}, {"pools": ["GPU0"], "seconds": -1},
            {"pools": ["GPU0"], "seconds": 1e300}, {"pools": ["GPU0"], "keep": -1},
            {"pools": ["GPU0"], "keep": "4GiB"},
        ]  # fmt: skip
        for value in wrong:
            answer = await bench.client.call("POST", "/api/memory/yield", value=value)
            assert answer.status == 400, value
        ledger = bench.supervisor.scheduler.memory
        assert ledger is not None
        assert ledger.pools["GPU0"].keep is None

    run(main)


def test_memory_yield_request_is_refused_while_memory_is_only_observed() -> None:
    """It would have no effect, and the client would believe that it has one."""

    async def main(bench: Bench, meter: FixedMeter) -> None:
        ledger = bench.supervisor.scheduler.memory
        assert ledger is not None
        ledger.decides = False
        value = {"pools": ["GPU0"]}
        answer = await bench.client.call("POST", "/api/memory/yield", value=value)
        assert answer.status == 409
        assert "`memory.mode` is observe" in answer.json()["error"]["message"]

    run(main)
