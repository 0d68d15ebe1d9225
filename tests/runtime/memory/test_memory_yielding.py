"""Yielding: services leave memory to other programs, and come back when these are gone."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.runtime import MemoryLedger, QueueLimits, RequestError, Supervisor
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import Holder, MemoryNeed, Pool
from swapchart.runtime.memory.planning import Rules
from swapchart.runtime.memory.readings import leavers, relief
from swapchart.runtime.memory_yielding import MemoryYielding
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service
from swapchart.runtime.yield_rules import YieldRule

from .cases import GIB

START_S = 3.0
BUSY_S = 20.0


class Program:
    """A program such as blender, whose run is the condition of a rule.

    Attributes:
        is_running: It runs.
        error: Raised in place of a result.
        hangs: No result ever comes.
    """

    def __init__(self) -> None:
        self.is_running = self.hangs = False
        self.error: OSError | None = None

    async def reason(self, own: Collection[int]) -> str:
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        return "blender is running" if self.is_running else ""


class World:
    """A supervisor with a GPU of 24 GiB, 1 GiB of which is reserved, and one rule.

    Attributes:
        blender: Its run is the condition of the rule.
    """

    def __init__(
        self, needs: dict[str, Any], *, rule: dict[str, Any] | None = None,
        pinned: Collection[str] = (), queue: QueueLimits | None = None, other_gib: float = 0,
    ) -> None:  # fmt: skip
        self.launcher = ScriptedLauncher({name: ServerScript(healthy_s=START_S) for name in needs})
        self.blender = Program()
        pools = [Pool(name="GPU0", capacity=24 * GIB, reserve=GIB)]
        if other_gib:
            pools.append(Pool(name="RAM", capacity=int(other_gib * GIB)))
        self.ledger = MemoryLedger(pools)
        given: dict[str, Any] = {"keep": {"GPU0": 0}, "condition": self.blender, **(rule or {})}
        self.ledger.yield_rules = (YieldRule(key="one", **given),)
        self.specs = [
            service(
                name, endpoint=f"http://127.0.0.1:{5800 + ord(name[0])}", pinned=name in pinned,
                memory=need if isinstance(need, MemoryNeed)
                else MemoryNeed(options=({"GPU0": int(need * GIB)},)),
            )
            for name, need in needs.items()
        ]  # fmt: skip
        self.queue = queue or QueueLimits(timeout_s=300.0)
        self.supervisor: Supervisor

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.supervisor = Supervisor(
                self.launcher, self.specs, policy=no_evictions, queue=self.queue, memory=self.ledger
            )
            async with self.supervisor:
                await scenario()
            self.launcher.assert_ended()

        run_virtual(main)

    @property
    def yielding(self) -> MemoryYielding:
        assert self.supervisor.memory_yielding is not None
        return self.supervisor.memory_yielding

    def states(self) -> dict[str, str]:
        return {life.spec.name: life.state for life in self.supervisor.lifecycles()}

    async def use(self, name: str, seconds: float) -> None:
        async with self.supervisor.lease(name):
            await anyio.sleep(seconds)

    async def load(self, *names: str) -> None:
        for name in names:
            await self.supervisor.load(name)


def test_acceptance_case_26_idle_models_yield_to_a_program_and_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Case 26: a idle 12, b busy 8: a goes within 5 s, b after its request; a is back later."""
    world = World({"a": 12, "b": 8})

    async def scenario() -> None:
        await world.load("a")
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.use, "b", START_S + BUSY_S)
            await anyio.sleep(START_S + 1.0)
            world.blender.is_running = True
            await anyio.sleep(5.0)
            assert world.states() == {"a": "stopped", "b": "ready"}
            tasks.start_soon(world.use, "a", 1.0)
            await anyio.sleep(1.0)
            (request,) = world.supervisor.scheduler.queue
            assert request.why.endswith("GPU0 is left to other programs (blender is running)")
            await anyio.sleep(BUSY_S)
            assert world.states() == {"a": "stopped", "b": "stopped"}
            assert anyio.current_time() < began + 60.0
            await anyio.sleep(100.0)
            assert world.states()["a"] == "stopped", "the request waits for as long as it runs"
            world.blender.is_running = False
            ended = anyio.current_time()
        assert 60.0 <= anyio.current_time() - ended <= 60.0 + START_S + 5.0
        await anyio.sleep(2 * START_S + 2.0)
        assert world.states() == {"a": "ready", "b": "ready"}
        assert world.supervisor.scheduler.evictions == {("a", "yield"): 1, ("b", "yield"): 1}

    with caplog.at_level(logging.INFO):
        world.run(scenario)
    lines = [record.getMessage() for record in caplog.records if "memory pool" in record.message]
    assert lines == [
        "memory pool GPU0 is left to other programs (blender is running), of which models keep"
        " 0 MiB",
        "memory pool GPU0 is for models again",
    ]


def test_yielding_model_in_steady_use_takes_no_further_request_and_goes() -> None:
    """Requests that overlap would keep a model busy, and thus on the GPU, for ever."""
    world = World({"b": 8})

    async def scenario() -> None:
        await world.load("b")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.use, "b", 8.0)
            await anyio.sleep(3.0)
            world.blender.is_running = True
            await anyio.sleep(3.0)
            assert world.yielding.leaving() == ["b"]
            tasks.start_soon(world.use, "b", 8.0)
            await anyio.sleep(1.0)
            (request,) = world.supervisor.scheduler.queue
            assert request.why == "GPU0 is left to other programs (blender is running)"
            await anyio.sleep(4.0)
            assert world.states() == {"b": "stopped"}
            world.blender.is_running = False
        assert world.states() == {"b": "ready"}

    world.run(scenario)


def test_yielding_program_that_comes_and_goes_makes_no_model_come_and_go() -> None:
    world = World({"a": 12})

    async def scenario() -> None:
        await world.load("a")
        for _ in range(20):
            world.blender.is_running = True
            await anyio.sleep(10.0)
            world.blender.is_running = False
            await anyio.sleep(50.0)
            assert world.states() == {"a": "stopped"}
        await anyio.sleep(20.0)
        assert world.states() == {"a": "ready"}
        assert world.supervisor.scheduler.evictions == {("a", "yield"): 1}

    world.run(scenario)


def test_yielding_keeps_as_much_as_the_rule_says() -> None:
    world = World({"a": 12, "b": 3, "c": 2}, rule={"keep": {"GPU0": 4 * GIB}})

    async def scenario() -> None:
        await world.load("a", "b")
        world.blender.is_running = True
        await anyio.sleep(5.0)
        assert world.states() == {"a": "stopped", "b": "ready", "c": "stopped"}
        await world.load("c")  # fits into what is kept, in place of b
        assert world.states() == {"a": "stopped", "b": "stopped", "c": "ready"}

    world.run(scenario)


@pytest.mark.parametrize("evicts_pinned", [False, True])
def test_yielding_evicts_pinned_models_only_if_the_rule_says_so(evicts_pinned: bool) -> None:
    world = World({"p": 2, "a": 12}, pinned=["p"], rule={"evicts_pinned": evicts_pinned})

    async def scenario() -> None:
        await world.load("p", "a")
        world.blender.is_running = True
        await anyio.sleep(5.0)
        assert world.states() == {"p": "stopped" if evicts_pinned else "ready", "a": "stopped"}
        if not evicts_pinned:
            await world.use("p", 1.0)  # it stays, so requests for it are served

    world.run(scenario)


def test_yielding_respects_the_residency_of_a_model() -> None:
    queue = QueueLimits(min_residency_s=float("inf"), timeout_s=None)
    world = World({"a": 12}, queue=queue)

    async def scenario() -> None:
        await world.load("a")
        world.blender.is_running = True
        world.yielding.notice()
        await anyio.sleep(START_S - 0.5)
        assert world.states() == {"a": "ready"}
        await world.use("a", 0.1)  # served, and it does not stay longer for it
        await anyio.sleep(2.0)
        assert world.states() == {"a": "stopped"}

    world.run(scenario)


def test_yielding_model_runs_at_another_place_meanwhile() -> None:
    need = MemoryNeed(options=({"GPU0": 8 * GIB}, {"RAM": 8 * GIB}))
    world = World({"a": need}, other_gib=40)

    async def scenario() -> None:
        await world.load("a")
        assert world.supervisor.scheduler.services["a"].claim == {"GPU0": 8 * GIB}
        world.blender.is_running = True
        await anyio.sleep(5.0)
        assert world.states() == {"a": "stopped"}
        await world.load("a")
        assert world.supervisor.scheduler.services["a"].claim == {"RAM": 8 * GIB}
        (process,) = world.launcher.of("a")
        world.blender.is_running = False
        await anyio.sleep(100.0)
        assert world.states() == {"a": "ready"}
        assert world.launcher.of("a") == [process], "it stays where it is"

    world.run(scenario)


@pytest.mark.parametrize("source", ["unknown", "estimated", "learned"])
def test_yielding_model_of_uncertain_size_waits_too(source: Any) -> None:
    """A guess is tried alone otherwise; it must not be tried on a card that others use."""
    world = World({"u": MemoryNeed(options=({"GPU0": 2 * GIB},), source=source)})

    async def scenario() -> None:
        world.blender.is_running = True
        await anyio.sleep(3.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.use, "u", 0.1)
            await anyio.sleep(30.0)
            assert world.states() == {"u": "stopped"}
            world.blender.is_running = False

    world.run(scenario)


def test_yielding_request_ends_by_the_timeout_of_the_queue_with_the_reason() -> None:
    world = World({"a": 12}, queue=QueueLimits(timeout_s=20.0))

    async def scenario() -> None:
        world.blender.is_running = True
        await anyio.sleep(3.0)
        with pytest.raises(RequestError, match=r"GPU0 is left to other programs \(blender"):
            await world.load("a")

    world.run(scenario)


def test_yielding_model_comes_back_only_if_nothing_has_to_go_for_it() -> None:
    world = World({"a": 12, "b": 9, "c": 14})

    async def scenario() -> None:
        await world.load("a", "b")
        await world.use("a", 1.0)
        world.blender.is_running = True
        await anyio.sleep(5.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.use, "c", 200.0)
            await anyio.sleep(1.0)
            world.blender.is_running = False
            await anyio.sleep(100.0)
            assert world.states() == {"a": "stopped", "b": "ready", "c": "ready"}
        await anyio.sleep(100.0)
        assert world.states()["a"] == "stopped", "c took its place, so it is no longer missed"

    world.run(scenario)


def test_yielding_rule_without_come_back_leaves_models_stopped() -> None:
    world = World({"a": 12}, rule={"comes_back": False, "quiet_for_s": 5.0})

    async def scenario() -> None:
        await world.load("a")
        world.blender.is_running = True
        await anyio.sleep(5.0)
        world.blender.is_running = False
        await anyio.sleep(60.0)
        assert world.states() == {"a": "stopped"}
        await world.load("a")

    world.run(scenario)


@pytest.mark.parametrize("kind", ["hangs", "fails"])
def test_yielding_condition_that_is_not_known_delays_no_request(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World({"a": 12}, rule={"quiet_for_s": 10.0})

    async def scenario() -> None:
        world.blender.is_running = True
        await anyio.sleep(3.0)
        world.blender.hangs = kind == "hangs"
        world.blender.error = OSError("no such command") if kind == "fails" else None
        began = anyio.current_time()
        await world.load("a")
        assert anyio.current_time() - began <= 30.0, "it held before, so for a while it still does"
        began = anyio.current_time()
        await world.use("a", 0.1)
        assert anyio.current_time() - began <= 0.2

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    assert caplog.text.count("a condition of `yield` is not known") == 1


def test_yielding_to_what_other_programs_hold_waits_until_it_lasts() -> None:
    """Readings of a start and a stop differ for a moment; these are no other program."""
    world = World({"a": 12}, rule={"condition": None, "others": 2 * GIB, "quiet_for_s": 10.0})

    def hold(gib: int) -> None:
        pool = world.ledger.pools["GPU0"]
        world.ledger.pools["GPU0"] = replace(pool, foreign=gib * GIB)

    async def scenario() -> None:
        await world.load("a")
        hold(3)
        await anyio.sleep(4.0)
        hold(1)
        await anyio.sleep(20.0)
        assert world.states() == {"a": "ready"}
        hold(3)
        await anyio.sleep(10.0)
        assert world.states() == {"a": "stopped"}
        hold(1)
        await anyio.sleep(20.0)
        assert world.states() == {"a": "ready"}

    world.run(scenario)


def test_yielding_by_request_ends_after_its_time_and_survives_a_reload() -> None:
    world = World({"a": 12})

    async def scenario() -> None:
        await world.load("a")
        world.yielding.leave(["GPU0"], {}, 100.0)
        await anyio.sleep(2.0)
        assert world.states() == {"a": "stopped"}
        world.ledger.yield_rules = ()
        world.ledger.configure([Pool(name="GPU0", capacity=20 * GIB)], Rules(), {})
        world.supervisor.apply(world.specs)
        world.yielding.notice()
        await anyio.sleep(90.0)
        assert world.ledger.pools["GPU0"].keep == 0
        assert world.states() == {"a": "stopped"}
        await anyio.sleep(20.0)
        assert world.ledger.pools["GPU0"].keep is None
        assert world.states() == {"a": "ready"}
        world.yielding.leave(["GPU0"], {}, None)
        await anyio.sleep(1000.0)
        assert world.states() == {"a": "stopped"}
        world.yielding.take_back(["GPU0"])
        await anyio.sleep(10.0)
        assert world.states() == {"a": "ready"}

    world.run(scenario)


def test_yielding_rule_that_a_reload_removes_ends_at_once() -> None:
    world = World({"a": 12})

    async def scenario() -> None:
        await world.load("a")
        world.blender.is_running = True
        await anyio.sleep(5.0)
        world.ledger.yield_rules = ()
        world.supervisor.apply(world.specs)
        world.yielding.notice()
        await anyio.sleep(START_S + 2.0)
        assert world.states() == {"a": "ready"}

    world.run(scenario)


def test_yielding_rules_are_not_followed_while_memory_only_observes() -> None:
    world = World({"a": 12})
    world.ledger.decides = False

    async def scenario() -> None:
        await world.load("a")
        world.blender.is_running = True
        await anyio.sleep(10.0)
        assert world.states() == {"a": "ready"}

    world.run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_yielding_in_random_loads_cuts_no_request_and_ends_with_all_served(seed: int) -> None:
    """Requests and a program come at random: no request is cut, and the memory is left in time."""
    rng = random.Random(seed)
    needs = {name: rng.choice([2, 4, 6, 9]) for name in "abcd"}
    keep = rng.choice([0, 0, 5])
    rule = {"keep": {"GPU0": keep * GIB}, "quiet_for_s": rng.choice([5.0, 30.0])}
    world = World(needs, rule=rule, queue=QueueLimits(timeout_s=None, min_residency_s=2.0))
    served: list[str] = []

    async def client() -> None:
        for _ in range(12):
            await anyio.sleep(rng.uniform(0, 40))
            name = rng.choice([*needs])
            async with world.supervisor.lease(name):
                before = world.launcher.of(name)
                await anyio.sleep(rng.uniform(0, 8))
                assert world.states()[name] == "ready"
                assert world.launcher.of(name) == before
            served.append(name)

    async def program() -> None:
        for _ in range(5):
            await anyio.sleep(rng.uniform(0, 60))
            world.blender.is_running = True
            await anyio.sleep(5.0 + 8.0 + START_S + 2.0)  # look, requests, start, residency
            assert world.ledger.held("GPU0") <= keep * GIB
            await anyio.sleep(rng.uniform(0, 40))
            assert world.ledger.held("GPU0") <= keep * GIB
            world.blender.is_running = False
            await anyio.sleep(rng.uniform(0, 60))

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(client)
            tasks.start_soon(program)
        assert len(served) == 48
        assert world.yielding.leaving() == []

    world.run(scenario)


# ---- pure
def _holding(name: str, gib: int, **more: Any) -> Holder:
    return Holder(name=name, claim={"GPU0": gib * GIB}, **more)


def test_leavers_are_the_cheapest_idle_ones_then_busy_ones_and_never_pinned_ones() -> None:
    pool = Pool(name="GPU0", capacity=24 * GIB, keep=5 * GIB)
    holders = [
        _holding("busy", 6, granted=1),
        _holding("cheap", 4),
        _holding("dear", 4, load_s=60.0),
        _holding("pinned", 2, is_pinned=True),
    ]

    def found(keep: int, **more: Any) -> tuple[str, ...]:
        return leavers(replace(pool, keep=keep * GIB), holders, 100.0, Rules(), **more)

    assert found(16) == ()
    assert found(12) == ("cheap",)
    assert found(12, leaving=["dear"]) == ()
    assert found(8) == ("cheap", "dear")
    assert found(6) == ("busy", "cheap")
    assert found(0) == ("busy", "cheap", "dear")
    assert found(0, with_pinned=True) == ("busy", "cheap", "dear", "pinned")
    assert leavers(replace(pool, keep=None), holders, 100.0, Rules()) == ()


def test_relief_leaves_out_what_became_ready_within_its_own_load_time() -> None:
    pool = Pool(name="GPU0", capacity=20, foreign=12)
    fresh = Holder(name="fresh", claim={"GPU0": 6}, ready_at=95.0, load_s=8.0, used_at=95.0)
    old = Holder(name="old", claim={"GPU0": 6}, ready_at=0.0, load_s=80.0, used_at=95.0)
    assert relief(pool, [fresh, old], 100.0, Rules()) == ("old",)
    assert relief(pool, [fresh, old], 104.0, Rules()) == ("fresh",)
    assert relief(pool, [fresh], 100.0, Rules()) == ()
