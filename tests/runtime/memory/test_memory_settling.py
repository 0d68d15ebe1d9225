"""Settling by memory: a driver that frees late, one that never does, and overlapping starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import anyio
import pytest

from swapchart.runtime import (
    Hook,
    MemoryLedger,
    QueueLimits,
    RunAction,
    Supervisor,
    Timings,
)
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.memory_settling import MemorySettling
from swapchart.runtime.ports import PoolReading
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service

from .cases import GIB


class LateDriver:
    """A GPU of 24 GiB whose driver frees the memory of a process late.

    Attributes:
        late_s: Seconds from the end of a process until its memory is free.
        is_listing_ended: Ended processes stay in the driver's list until then.
        is_told_apart: The driver says what each process holds.
        error: Raised instead of a reading.
    """

    def __init__(self, launcher: ScriptedLauncher, held: dict[str, float]) -> None:
        self._launcher, self._held = launcher, held
        self._known: dict[int, tuple[int, float]] = {}  # pid -> bytes, time of the last sight
        self.late_s = 0.0
        self.is_listing_ended = False
        self.is_told_apart = True
        self.is_prompt = False
        self.error: OSError | None = None

    def _processes(self) -> dict[int, int]:
        now = anyio.current_time()
        for process in self._launcher.live.values():
            self._known[process.pid] = int(self._held[process.name] * GIB), now
        return {p: n for p, (n, seen) in self._known.items() if now <= seen + self.late_s}

    async def read(self, pids: Collection[int]) -> Sequence[PoolReading]:
        if self.error is not None:
            raise self.error
        alive = {process.pid for process in self._launcher.live.values()}
        holding = self._processes()
        listed = {p: n for p, n in holding.items() if p in alive or self.is_listing_ended}
        return [
            PoolReading(
                name="GPU0", capacity=24 * GIB, used=sum(holding.values()),
                processes={p: n for p, n in listed.items() if p in pids}
                if self.is_told_apart
                else None,
                is_prompt=self.is_prompt,
            )
        ]  # fmt: skip


class World:
    """A supervisor with a GPU of 24 GiB, 1 GiB of which is reserved."""

    def __init__(self, **needs: float) -> None:
        self.launcher = ScriptedLauncher({name: ServerScript(healthy_s=1.0) for name in needs})
        self.driver = LateDriver(self.launcher, needs)
        self.ledger = MemoryLedger([Pool(name="GPU0", capacity=24 * GIB, reserve=GIB)])
        self.supervisor: Supervisor
        self._specs = [
            service(
                name, endpoint=f"http://127.0.0.1:{5800 + ord(name[0])}",
                memory=MemoryNeed(options=({"GPU0": int(gib * GIB)},)),
            )
            for name, gib in needs.items()
        ]  # fmt: skip

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.supervisor = Supervisor(
                self.launcher, self._specs, policy=no_evictions, memory=self.ledger,
                queue=QueueLimits(timeout_s=60.0), meter=self.driver,
            )  # fmt: skip
            async with self.supervisor:
                await scenario()
            self.launcher.assert_ended()

        run_virtual(main)

    async def stop(self, name: str) -> float:
        """Stop *name* once it has been read, and return the seconds that took."""
        await anyio.sleep(6.0)
        began = anyio.current_time()
        await self.supervisor.unload(name)
        return anyio.current_time() - began


@pytest.mark.parametrize("is_told_apart", [True, False])
@pytest.mark.parametrize("is_listing_ended", [True, False])
def test_settling_waits_until_the_driver_has_freed_the_memory(
    is_told_apart: bool, is_listing_ended: bool
) -> None:
    world = World(a=12)
    world.driver.is_told_apart, world.driver.is_listing_ended = is_told_apart, is_listing_ended

    async def scenario() -> None:
        await world.supervisor.load("a")
        prompt = await world.stop("a")
        assert prompt < 1.0
        world.driver.late_s = 3.0
        await world.supervisor.load("a")
        late = await world.stop("a")
        assert 2.5 <= late - prompt <= 3.6
        assert world.ledger.free("GPU0") == 23 * GIB

    world.run(scenario)


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_settling_that_runs_out_counts_what_is_missing_as_other_programs(
    is_told_apart: bool,
) -> None:
    world = World(a=12, b=14)
    world.driver.is_told_apart, world.driver.late_s = is_told_apart, 30.0

    async def scenario() -> None:
        await world.supervisor.load("a")
        assert 10.0 <= await world.stop("a") <= 11.0
        log = world.supervisor["a"].log.history().decode()
        assert log.count(
            "memory not free after 10 s: 12.0 GiB of GPU0 counts as held by other programs"
        ) == 1  # fmt: skip
        assert world.ledger.pools["GPU0"].foreign == 12 * GIB
        began = anyio.current_time()
        await world.supervisor.load("b")
        assert 15.0 <= anyio.current_time() - began <= 27.0, "starts when a's memory is free"

    world.run(scenario)


def test_settling_swap_starts_the_next_service_when_the_memory_is_free() -> None:
    """Nothing is started beside memory that has not come back, and nothing waits longer."""
    world = World(a=12, b=14)
    world.driver.late_s = 2.0

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "b")
            while anyio.current_time() < began + 1.9:
                await anyio.sleep(0.1)
                assert world.supervisor["b"].process is None
        assert anyio.current_time() - began <= 2.0 + 0.6 + 1.1  # a reading late, and its own start

    world.run(scenario)


def test_settling_start_that_fits_beside_does_not_wait_for_it() -> None:
    world = World(a=12, b=10)
    world.driver.late_s = 5.0

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.unload, "a")
            await anyio.sleep(0.5)
            began = anyio.current_time()
            await world.supervisor.load("b")
            assert anyio.current_time() - began < 1.5
            assert world.supervisor["a"].state == "settling"
        assert world.supervisor["a"].state == "stopped"
        assert "memory not free" not in world.supervisor["a"].log.history().decode()

    world.run(scenario)


@pytest.mark.parametrize("kind", ["fails", "prompt", "observed"])
def test_settling_does_not_wait_without_a_reading_that_tells_it(kind: str) -> None:
    world = World(a=12)
    world.driver.late_s = 30.0
    world.driver.is_prompt = kind == "prompt"
    world.ledger.decides = kind != "observed"

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        if kind == "fails":
            world.driver.error = OSError("the driver does not respond")
        assert await world.stop("a") < 1.0

    world.run(scenario)


def test_settling_of_a_kill_does_not_wait() -> None:
    world = World(a=12)
    world.driver.late_s = 30.0

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.unload, "a")
            await anyio.sleep(2.0)
            assert world.supervisor["a"].state == "settling"
            world.supervisor["a"].post("kill", cause="asked to kill")
        assert anyio.current_time() - began < 3.0

    world.run(scenario)


def test_settling_of_a_shutdown_does_not_wait() -> None:
    """Nothing starts after it, so the time is left to drains and hooks."""
    world = World(a=12)
    world.driver.late_s = 30.0

    async def scenario() -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)
        began = anyio.current_time()
        await world.supervisor.shutdown(60.0)
        assert anyio.current_time() - began < 1.0

    world.run(scenario)


# ---- pure
def test_memory_settling_counts_only_its_own_service_and_incarnation() -> None:
    settling = MemorySettling()
    pids = {"a": {1, 2}, "b": {3}}
    before = PoolReading(
        name="GPU0", capacity=24, used=20, processes={1: 8, 2: 2, 3: 6}, device="GPU-a"
    )
    settling.note("a", 1, "GPU0", before, pids, 10)
    assert set(settling.pids()) == {1, 2}

    def missing(used: int, processes: dict[int, int], incarnation: int = 1) -> dict[str, int]:
        reading = PoolReading(name="GPU0", capacity=24, used=used, processes=processes)
        return settling.missing("a", incarnation, {"GPU0": reading}, {"b": {3}})

    assert missing(20, {3: 6}) == {"GPU0": 10}
    assert missing(24, {3: 10}) == {"GPU0": 10}, "b has grown; nothing has come back"
    assert missing(13, {3: 6}) == {"GPU0": 3}
    assert missing(12, {3: 6}) == {}, "more than 75 % has come back"
    assert missing(12, {2: 2, 3: 6}) == {"GPU0": 2}, "the driver knows a process of it"
    assert missing(20, {3: 6}, incarnation=2) == {}
    assert settling.missing("a", 1, {}, {}) == {}
    settling.forget("a")
    assert missing(20, {3: 6}) == {}


@pytest.mark.parametrize("pools", [(), (Pool(name="GPU0", capacity=24 * GIB),)])
def test_settling_hook_of_a_service_without_memory_is_all_that_is_waited_for(
    pools: tuple[Pool, ...],
) -> None:
    """With a meter, but without a need, the service has stopped once its hook has succeeded."""

    async def main() -> None:
        launcher = ScriptedLauncher({"a": ServerScript()})
        settle = Hook(action=RunAction(argv=("free",)), timeout_s=5.0)
        spec = service("a", settle=settle, timings=Timings(settle=600.0))
        async with Supervisor(
            launcher, [spec], memory=MemoryLedger(pools), meter=LateDriver(launcher, {"a": 0})
        ) as supervisor:
            await supervisor.load("a")
            began = anyio.current_time()
            await supervisor.unload("a")
            assert anyio.current_time() - began <= 1.0

    run_virtual(main)
