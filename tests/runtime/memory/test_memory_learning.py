"""Learning from the readings of running services, on the virtual clock."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.runtime import MemoryLearning
from swapchart.runtime.memory import MemoryNeed
from swapchart.runtime.memory.footprints import Observation
from swapchart.runtime.testing import service

from .cases import GIB, MIB
from .test_memory_watch import MappedMeter, World


class LearningWorld(World):
    """A world whose services have keys; those without GiB are unknown.

    Attributes:
        stored: Observations in the order in which they were reported.
    """

    def __init__(self, needs: dict[str, float], held: dict[str, float]) -> None:
        super().__init__(needs, held)
        self.stored: list[Observation] = []
        self.ledger.learning = MemoryLearning(
            instance="i", clock=lambda: 1000.0, store=self.stored.append
        )

    @staticmethod
    def spec(name: str, gib: float) -> Any:
        need = MemoryNeed(
            options=({"GPU0": int(gib * GIB)},), source="declared" if gib else "unknown", key=name
        )
        return service(name, endpoint=f"http://127.0.0.1:{5800 + ord(name[0])}", memory=need)

    def need(self, name: str) -> MemoryNeed:
        found = self.supervisor.scheduler.services[name].need
        assert found is not None
        return found


def test_case_15_unknown_runs_alone_once_and_then_beside_the_others() -> None:
    world = LearningWorld({"u": 0, "a": 2, "b": 3}, {"u": 7.1})

    async def scenario() -> None:
        for name in ("a", "b", "u"):
            await world.supervisor.load(name)
        assert world.states() == {"u": "ready", "a": "stopped", "b": "stopped"}
        await anyio.sleep(6.0)
        assert world.ledger.free("GPU0") == 0, "it holds what it was granted until it stops"
        await world.supervisor.unload("u")
        learned = world.need("u")
        assert learned.source == "learned"
        assert learned.options == (
            {"GPU0": int(7.1 * GIB) + int(int(7.1 * GIB) * 0.03) + 64 * MIB},
        )
        for name in ("a", "b", "u"):
            await world.supervisor.load(name)
        assert {*world.states().values()} == {"ready"}

    world.run(scenario)
    assert {(each.model, each.run) for each in world.stored} == {
        ("u", "i-1"), ("u", "i-2"), ("a", "i-1"), ("a", "i-2"), ("b", "i-1"), ("b", "i-2"),
    }  # fmt: skip


def test_memory_learning_growth_is_reported_again() -> None:
    world = LearningWorld({"u": 0}, {"u": 7})

    async def scenario() -> None:
        await world.supervisor.load("u")
        await anyio.sleep(6.0)
        world.meter.held["u"] = 9
        await anyio.sleep(6.0)
        world.meter.held["u"] = 8
        await anyio.sleep(6.0)

    world.run(scenario)
    assert [(each.ready, each.highest) for each in world.stored] == [
        (7 * GIB, 7 * GIB), (7 * GIB, 9 * GIB)
    ]  # fmt: skip
    assert world.stored[0].free_before == 23 * GIB
    assert world.stored[0].is_alone


def test_memory_learning_without_processes_takes_the_difference_between_quiet_moments() -> None:
    world = LearningWorld({"u": 0}, {"u": 7})
    world.meter.is_told_apart = False
    world.meter.others = 2

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await anyio.sleep(12.0)

    world.run(scenario)
    assert [(each.method, each.highest) for each in world.stored] == [("delta", 7 * GIB)]


def test_memory_learning_without_processes_throws_away_starts_that_overlap() -> None:
    world = LearningWorld({"a": 5, "b": 5}, {})
    world.meter.is_told_apart = False

    async def scenario() -> None:
        await anyio.sleep(6.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "a")
            await anyio.sleep(1.0)
            tasks.start_soon(world.supervisor.load, "b")
        await anyio.sleep(12.0)

    world.run(scenario)
    assert world.stored == []


def test_memory_learning_start_beside_another_service_is_not_alone() -> None:
    world = LearningWorld({"a": 5, "b": 5}, {})

    async def scenario() -> None:
        for name in ("a", "b"):
            await world.supervisor.load(name)
            await anyio.sleep(6.0)

    world.run(scenario)
    assert [(each.model, each.is_alone) for each in world.stored] == [("a", True), ("b", False)]


def test_memory_learning_observes_where_plans_are_only_shown() -> None:
    world = LearningWorld({"u": 0, "a": 20}, {"u": 7})
    world.ledger.decides = False

    async def scenario() -> None:
        for name in ("a", "u"):
            await world.supervisor.load(name)
        assert {*world.states().values()} == {"ready"}
        await anyio.sleep(6.0)

    world.run(scenario)
    assert {each.model for each in world.stored} == {"a", "u"}


def test_memory_learning_declaration_that_is_exceeded_is_logged_once_per_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = LearningWorld({"a": 5, "b": 5}, {"a": 5.5, "b": 5.2})

    async def scenario() -> None:
        for _ in range(2):
            for name in ("a", "b"):
                await world.supervisor.load(name)
            await anyio.sleep(20.0)
            await world.supervisor.unload_all()
        assert world.need("a").options == ({"GPU0": 5 * GIB},)

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    text = "a holds 5.5 GiB of GPU0 and declares 5.0 GiB: raise its `memory`"
    assert [record.getMessage() for record in caplog.records] == [text, text]


def test_memory_learning_forgotten_service_is_unknown_again() -> None:
    world = LearningWorld({"u": 0}, {"u": 7})
    gone: list[str] = []

    async def scenario() -> None:
        world.ledger.learning._forget = gone.append
        await world.supervisor.load("u")
        await anyio.sleep(6.0)
        await world.supervisor.unload("u")
        assert world.need("u").source == "learned"
        entry = world.supervisor.scheduler.services["u"]
        assert world.ledger.forget(entry) == 1
        assert world.need("u") == replace(world.specs[0].memory)
        assert gone == ["u"]

    world.run(scenario)


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_memory_learning_guess_shrinks_to_what_was_measured(is_told_apart: bool) -> None:
    """A model of which nothing is known gives back the rest of its pool once it has settled."""
    world = LearningWorld({"u": 0, "a": 4}, {"u": 7})
    world.meter.is_told_apart = is_told_apart

    async def scenario() -> None:
        await anyio.sleep(6.0)
        async with world.supervisor.lease("u"), anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "a")
            await anyio.sleep(20.0)
            assert world.states() == {"u": "ready", "a": "stopped"}
            world.meter.held["u"] = 8
            await anyio.sleep(20.0)
            if is_told_apart:
                assert world.states() == {"u": "ready", "a": "stopped"}, "it has grown"
            await anyio.sleep(30.0)
            assert world.states() == {"u": "ready", "a": "ready"}
        entry = world.supervisor.scheduler.services["u"]
        assert entry.need is not None
        assert (entry.need.source, entry.claim) == ("learned", entry.need.options[0])

    world.run(scenario)


def test_memory_learning_guess_stays_while_nothing_was_measured() -> None:
    world = LearningWorld({"u": 0}, {"u": 0})

    async def scenario() -> None:
        await world.supervisor.load("u")
        await anyio.sleep(90.0)
        assert world.ledger.free("GPU0") == 0

    world.run(scenario)


def test_memory_learning_of_a_shared_file_counts_it_in_full() -> None:
    """Each of two models that map one file needs all of it when it runs alone."""
    world = LearningWorld({"a": 10, "b": 8}, {"a": 10, "b": 8})
    world.meter = MappedMeter(world.launcher, world.meter.held)

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(world.supervisor.load, name)
        await anyio.sleep(20.0)

    world.run(scenario)
    highest = {each.model: each.highest for each in world.stored}
    assert highest == {"a": 10 * GIB, "b": 8 * GIB}
