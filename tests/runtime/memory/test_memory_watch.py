"""Readings of memory: what services and other programs hold, pressure, and a meter that fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.runtime import MemoryLedger, QueueLimits, Supervisor
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import Holder, MemoryNeed, Notice, Pool
from swapchart.runtime.memory.planning import Rules
from swapchart.runtime.memory.readings import foreign, relief
from swapchart.runtime.ports import PoolReading
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service

from .cases import GIB

ALLOCATION_S = 2.0


class ScriptedMeter:
    """A GPU of 24 GiB on which each service holds what it was given, 2 s after its spawn.

    Attributes:
        held: Service -> GiB.
        others: GiB of other programs.
        is_told_apart: The driver says what each process holds.
        error: Raised instead of a reading.
        hangs: A reading never ends.
        takes_s: Duration of a reading in seconds.
        reads: Number of readings.
    """

    def __init__(self, launcher: ScriptedLauncher, held: dict[str, float]) -> None:
        self.launcher, self.held = launcher, held
        self.others = 0.0
        self.is_told_apart = True
        self.error: OSError | None = None
        self.hangs = False
        self.takes_s = 0.0
        self.reads = 0

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        self.reads += 1
        if self.takes_s:
            await anyio.sleep(self.takes_s)
        if self.hangs:
            await anyio.sleep(2.0)
            raise TimeoutError("no reading within 2 s")
        if self.error is not None:
            raise self.error
        now = anyio.current_time()
        held = {
            process.pid: int(self.held[process.name] * GIB)
            for process in self.launcher.live.values()
            if now >= process.born_at + ALLOCATION_S
        }
        return [
            PoolReading(
                name="GPU0", device="GPU-a", capacity=24 * GIB,
                used=sum(held.values()) + int(self.others * GIB),
                processes={p: n for p, n in held.items() if p in pids}
                if self.is_told_apart
                else None,
            )
        ]  # fmt: skip


class World:
    """A supervisor with a GPU of 24 GiB, 1 GiB of which is reserved."""

    def __init__(self, needs: dict[str, float], held: dict[str, float] | None = None) -> None:
        self.launcher = ScriptedLauncher({name: ServerScript(healthy_s=3.0) for name in needs})
        self.meter = ScriptedMeter(self.launcher, {**needs, **(held or {})})
        self.ledger = MemoryLedger([Pool(name="GPU0", capacity=24 * GIB, reserve=GIB)])
        self.specs = [self.spec(name, gib) for name, gib in needs.items()]
        self.supervisor: Supervisor

    @staticmethod
    def spec(name: str, gib: float) -> Any:
        need = MemoryNeed(options=({"GPU0": int(gib * GIB)},))
        return service(name, endpoint=f"http://127.0.0.1:{5800 + ord(name[0])}", memory=need)

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.supervisor = Supervisor(
                self.launcher, self.specs, policy=no_evictions, queue=QueueLimits(timeout_s=60.0),
                memory=self.ledger, meter=self.meter,
            )  # fmt: skip
            async with self.supervisor:
                await scenario()
            self.launcher.assert_ended()

        run_virtual(main)

    def notices(self) -> list[Notice]:
        watch = self.supervisor.memory_watch
        assert watch is not None
        return watch.notices(anyio.current_time())

    def states(self) -> dict[str, str]:
        return {life.spec.name: life.state for life in self.supervisor.lifecycles()}


def test_memory_watch_reading_counts_services_and_other_programs() -> None:
    world = World({"a": 12, "b": 6}, {"a": 13})
    world.meter.others = 3

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        entry = world.supervisor.scheduler.services["a"]
        assert entry.seen == {"GPU0": 13 * GIB}
        assert world.ledger.pools["GPU0"].foreign == 3 * GIB
        assert world.ledger.free("GPU0") == 7 * GIB
        await world.supervisor.load("b")
        assert world.states() == {"a": "ready", "b": "ready"}

    world.run(scenario)


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_memory_watch_start_in_progress_is_not_taken_for_another_program(
    is_told_apart: bool,
) -> None:
    """Two services that start at once have not taken their memory yet, and keep their claims."""
    world = World({"a": 12, "b": 10, "c": 4})
    world.meter.is_told_apart = is_told_apart

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(world.supervisor.load, name)
            for _ in range(40):
                await anyio.sleep(0.1)
                assert world.ledger.pools["GPU0"].foreign == 0
                assert world.ledger.free("GPU0") == GIB
        await anyio.sleep(6.0)
        assert world.ledger.free("GPU0") == GIB

    world.run(scenario)


def test_memory_watch_request_waits_until_other_programs_have_left() -> None:
    world = World({"b": 6})
    world.meter.others = 20

    async def scenario() -> None:
        await anyio.sleep(6.0)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "b")
            await anyio.sleep(10.0)
            assert world.states()["b"] == "stopped"
            world.meter.others = 17
        assert 13.0 <= anyio.current_time() - began <= 19.0

    world.run(scenario)


def test_memory_watch_reads_at_once_and_every_second_while_a_request_waits() -> None:
    """No request waits longer for memory that other programs have given back."""
    world = World({"b": 6, "c": 20})
    world.meter.others = 20

    async def scenario() -> None:
        await anyio.sleep(6.0)
        world.meter.others = 17
        began = anyio.current_time()
        await world.supervisor.load("b")
        assert anyio.current_time() - began <= 3.2
        await world.supervisor.unload("b")
        await anyio.sleep(20.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "c")
            await anyio.sleep(8.0)
            assert world.states()["c"] == "stopped"
            world.meter.others = 2
            began = anyio.current_time()
        assert anyio.current_time() - began <= 4.5

    world.run(scenario)


def test_memory_watch_growth_evicts_the_cheapest_idle_service_after_five_seconds() -> None:
    world = World({"a": 10, "b": 6, "c": 6})

    async def scenario() -> None:
        for name in ("a", "b", "c"):
            await world.supervisor.load(name)
            await anyio.sleep(20.0)
        world.meter.held["a"] = 12
        await anyio.sleep(4.0)
        assert set(world.states().values()) == {"ready"}
        await anyio.sleep(12.0)
        assert world.ledger.free("GPU0") >= 0
        assert list(world.states().values()).count("stopped") == 1
        assert world.states()["c"] == "ready", "the one that was used last"
        (counted,) = world.supervisor.scheduler.evictions.items()
        assert (counted[0][1], counted[1]) == ("pressure", 1)

    world.run(scenario)


def test_memory_watch_pressure_without_eviction_only_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World({"a": 10})
    world.ledger.evicts_under_pressure = False

    async def scenario() -> None:
        await world.supervisor.load("a")
        world.meter.others = 20
        await anyio.sleep(15.0)
        assert world.states()["a"] == "ready"
        (notice,) = world.notices()
        assert (notice.kind, notice.pool) == ("pressure", "GPU0")
        assert notice.text == "pool GPU0 is too full: 7.0 GiB more than it has are held"
        world.meter.others = 2
        await anyio.sleep(6.0)
        assert world.notices() == []

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    assert caplog.text.count("pool GPU0 is too full: 7.0 GiB more than it has are held") == 1


@pytest.mark.parametrize("kind", ["hangs", "fails"])
def test_memory_watch_meter_without_answer_delays_no_request(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World({"a": 12, "b": 12})

    async def scenario() -> None:
        await anyio.sleep(1.0)
        world.meter.hangs = kind == "hangs"
        world.meter.error = OSError("the driver does not respond") if kind == "fails" else None
        await anyio.sleep(30.0)
        began = anyio.current_time()
        await world.supervisor.load("a")
        assert anyio.current_time() - began == pytest.approx(3.0, abs=0.5)
        await world.supervisor.load("b")
        assert world.states() == {"a": "stopped", "b": "ready"}
        assert world.supervisor.memory_watch is not None
        assert world.supervisor.memory_watch.is_stale("GPU0", anyio.current_time())
        (notice,) = world.notices()
        assert notice.kind == "reading"
        assert re.match(r"memory cannot be read \((no reading|the driver).*\): ", notice.text)
        world.meter.hangs, world.meter.error = False, None
        await anyio.sleep(8.0)
        assert world.notices() == []

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    assert caplog.text.count("memory could not be read") == 1


def test_memory_watch_pool_that_is_left_out_is_noticed() -> None:
    """The driver of one GPU has failed, and another is still read; one is declared only."""
    world = World({"a": 12})
    for name in ("GPU1", "NPU"):
        world.ledger.pools[name] = Pool(name=name, capacity=GIB)

    async def scenario() -> None:
        await anyio.sleep(1.0)
        assert world.supervisor.memory_watch is not None
        state = world.supervisor.memory_watch.states["GPU1"]
        state.reading = PoolReading(name="GPU1", capacity=GIB)
        state.read_at = anyio.current_time()
        await anyio.sleep(10.0)
        assert world.notices() == []
        await anyio.sleep(10.0)
        (notice,) = world.notices()
        assert (notice.kind, notice.pool) == ("reading", "GPU1")

    world.run(scenario)


def test_memory_watch_reads_often_only_while_services_start_or_stop() -> None:
    world = World({"a": 12})

    async def scenario() -> None:
        await anyio.sleep(50.0)
        calm = world.meter.reads
        await world.supervisor.load("a")
        assert 8 <= calm <= 13
        assert world.meter.reads - calm >= 10

    world.run(scenario)


def test_memory_watch_slow_reading_takes_a_small_share_of_the_time() -> None:
    """A reading takes 0.1 s where processes hold much memory, and is then repeated less often."""
    world = World({"a": 12})
    world.meter.takes_s = 0.1

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(20.0)
        before = world.meter.reads
        for _ in range(4):
            await world.supervisor.unload("a")
            await world.supervisor.load("a")
        assert world.meter.reads - before <= 16  # in 12 s, of 48 that take no time

    world.run(scenario)


# ---- pure
def test_foreign_without_processes_keeps_the_last_quiet_amount() -> None:
    a = Holder(name="a", phase="starting", claim={"GPU0": 12})
    arguments = {"pool": "GPU0", "before": 2, "is_told_apart": False}
    assert foreign(5, [a], is_quiet=False, **arguments) == 2  # type: ignore[arg-type]
    assert foreign(17, [a], is_quiet=False, **arguments) == 5  # type: ignore[arg-type]
    quiet = replace(a, phase="ready")
    assert foreign(12, [quiet], is_quiet=True, **arguments) == 0  # type: ignore[arg-type]


def test_relief_names_the_cheapest_idle_services_and_no_more() -> None:
    pool = Pool(name="GPU0", capacity=20, foreign=6)
    holders = [
        Holder(name="busy", claim={"GPU0": 6}, granted=1),
        Holder(name="dear", claim={"GPU0": 6}, load_s=60.0),
        Holder(name="cheap", claim={"GPU0": 6}),
    ]
    assert relief(pool, holders, 100.0, Rules()) == ("cheap",)
    fuller = replace(pool, foreign=20)
    assert relief(fuller, holders, 100.0, Rules()) == ("cheap", "dear")
    going = [*holders[:2], replace(holders[2], phase="stopping")]
    assert relief(pool, going, 100.0, Rules()) == ()
    assert relief(replace(pool, foreign=0), holders, 100.0, Rules()) == ()


@pytest.mark.parametrize("kind", ["hangs", "fails"])
def test_memory_watch_meter_that_fails_before_a_stop_does_not_hold_the_next_start_up(
    kind: str,
) -> None:
    """A reading from before the stop does not say that the memory has not come back."""
    world = World({"a": 12, "b": 12})

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(10.0)
        world.meter.hangs = kind == "hangs"
        world.meter.error = OSError("the driver does not respond") if kind == "fails" else None
        await anyio.sleep(3.0)
        began = anyio.current_time()
        await world.supervisor.load("b")
        assert anyio.current_time() - began <= 3.0 + 10.0 + 3.0  # start, settle limit, reading

    world.run(scenario)


def test_memory_watch_unknown_service_is_no_pressure_if_others_grow_a_little() -> None:
    """A service that holds all that was left is not evicted for what another program takes."""
    world = World({"u": 0}, {"u": 7})

    async def scenario() -> None:
        need = MemoryNeed(options=({"GPU0": 0},), source="unknown")
        world.supervisor.update(replace(world.specs[0], memory=need))
        await world.supervisor.load("u")
        world.meter.others = 0.5
        await anyio.sleep(30.0)
        assert world.states() == {"u": "ready"}

    world.run(scenario)


def test_memory_watch_stuck_service_keeps_its_memory_and_is_at_rest() -> None:
    """Its claim stays, requests get the reason, and it causes no readings by itself."""
    world = World({"a": 12, "b": 14})
    world.launcher = ScriptedLauncher(
        {"a": ServerScript(terminate_s=None, kill_s=None), "b": ServerScript()}
    )
    world.meter.launcher = world.launcher

    async def scenario() -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.unload, "a")
            await supervisor["a"].wait_for("stuck")
            tasks.start_soon(supervisor.load, "b")
            await anyio.sleep(1.0)
            (request,) = supervisor.scheduler.queue
            assert "a, which cannot be stopped" in request.why
            reads = world.meter.reads
            await anyio.sleep(6.0)
            assert world.meter.reads - reads <= 7, "more than for a request that waits"
            world.launcher.crash("a")
            await supervisor["b"].wait_for("ready")

    world.run(scenario)


class MappedMeter(ScriptedMeter):
    """Main memory of 24 GiB; 6 GiB of what each service holds are a file that all of them map.

    The kernel counts the pages of the file as available.
    """

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        (reading,) = await super().read(pids)
        assert reading.processes is not None
        assert reading.used is not None
        count = max(len(reading.processes), 1)
        files = dict.fromkeys(reading.processes, 6 * GIB // count)
        held = {pid: held - 6 * GIB + files[pid] for pid, held in reading.processes.items()}
        return [
            replace(
                reading, processes=held, used=reading.used - 6 * GIB * len(held), files=files,
                whole_files=dict.fromkeys(files, 6 * GIB),
            )
        ]  # fmt: skip


def test_memory_watch_other_programs_are_counted_beside_mapped_files() -> None:
    """Files that services map are no part of what the machine reports to be in use."""
    world = World({"a": 10, "b": 8})
    world.meter = MappedMeter(world.launcher, world.meter.held)
    world.meter.others = 3

    async def scenario() -> None:
        for name in ("a", "b"):
            await world.supervisor.load(name)
            await anyio.sleep(6.0)
            assert world.ledger.pools["GPU0"].foreign == 3 * GIB
        entries = world.supervisor.scheduler.services
        assert (entries["a"].seen, entries["b"].seen) == ({"GPU0": 7 * GIB}, {"GPU0": 5 * GIB})

    world.run(scenario)


@pytest.mark.parametrize("lie", ["negative", "more than there is", "a process", "another size"])
def test_memory_watch_driver_that_lies_delays_no_request_and_evicts_nothing(
    lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World({"a": 12, "b": 10})
    world.meter.others = 1

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(10.0)
        honest = world.meter.read

        async def read(pids: Collection[int]) -> Sequence[PoolReading]:
            (true,) = await honest(pids)
            match lie:
                case "negative":
                    return [replace(true, used=-GIB)]
                case "more than there is":
                    return [replace(true, used=900 * GIB)]
                case "a process":
                    return [replace(true, processes=dict.fromkeys(pids, 900 * GIB))]
            return [replace(true, capacity=900 * GIB, used=900 * GIB)]

        world.meter.read = read  # type: ignore[method-assign]
        await anyio.sleep(20.0)
        assert world.ledger.pools["GPU0"].foreign == GIB
        began = anyio.current_time()
        await world.supervisor.load("b")
        assert anyio.current_time() - began <= 3.5
        assert world.states() == {"a": "ready", "b": "ready"}

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    assert caplog.text.count("the reading of memory pool GPU0 is ignored") == 1
