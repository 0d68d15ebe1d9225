"""Memory of services that fall asleep: room for it, and what is learned of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.runtime import Timings
from swapchart.runtime.memory import MemoryNeed, Pool

from .cases import GIB
from .test_memory_learning import LearningWorld
from .test_memory_watch import World


class SleepingWorld(World):
    """A world in which `v` sleeps after 5 s, and needs 18 GiB of RAM for that."""

    @staticmethod
    def spec(name: str, gib: float) -> Any:
        made = World.spec(name, gib)
        if name != "v":
            return replace(made, memory=MemoryNeed(options=({"RAM": int(gib * GIB)},)))
        need = replace(made.memory, asleep={"GPU0": GIB, "RAM": 18 * GIB})
        return replace(made, memory=need, timings=Timings(doze_limit=5.0))


def test_service_stays_awake_until_there_is_room_for_its_sleep() -> None:
    world = SleepingWorld({"v": 12, "r": 4})
    world.ledger.pools["RAM"] = Pool(name="RAM", capacity=20 * GIB)

    async def scenario() -> None:
        await world.supervisor.load("r")
        await world.supervisor.load("v")
        await anyio.sleep(60.0)
        assert world.states() == {"v": "ready", "r": "ready"}
        log = world.supervisor["v"].log.history()
        assert log.count(b"stays awake: 2.0 GiB of RAM missing for its sleep") == 1
        await world.supervisor.unload("r")
        await anyio.sleep(11.0)
        assert world.states() == {"v": "asleep", "r": "stopped"}

    world.run(scenario)


class SleepLearningWorld(LearningWorld):
    """A learning world whose services sleep after 20 s."""

    @staticmethod
    def spec(name: str, gib: float) -> Any:
        return replace(LearningWorld.spec(name, gib), timings=Timings(doze_limit=20.0))


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_memory_learning_of_sleep_takes_what_is_left(is_told_apart: bool) -> None:
    world = SleepLearningWorld({"u": 0}, {"u": 7})
    world.meter.is_told_apart, world.meter.others = is_told_apart, 2.0

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await world.supervisor["u"].wait_for("asleep")
        world.meter.held["u"] = 1.5
        await anyio.sleep(11.0)
        await world.supervisor.unload("u")

    world.run(scenario)
    last = world.stored[-1]
    assert (last.method == "process") is is_told_apart
    assert (last.highest / GIB, last.asleep / GIB) == (7.0, 1.5)


def test_memory_learning_of_sleep_by_difference_leaves_out_what_others_took() -> None:
    world = SleepLearningWorld({"u": 0, "a": 2}, {"u": 7})
    world.meter.is_told_apart = False

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await world.supervisor["u"].wait_for("asleep")
        world.meter.held["u"] = 1.5
        world.supervisor["a"].start()
        await anyio.sleep(11.0)
        await world.supervisor.unload("u")

    world.run(scenario)
    assert [each.asleep for each in world.stored if each.model == "u"] == [0]


def test_memory_learning_of_the_way_to_sleep_is_no_need_of_a_start() -> None:
    """While it copies its weights, a server holds both amounts."""
    world = SleepLearningWorld({"u": 0}, {"u": 7})

    async def scenario() -> None:
        await world.supervisor.load("u")
        await anyio.sleep(6.0)
        entry = world.supervisor.scheduler.services["u"]
        entry.ending = "sleep"
        world.meter.held["u"] = 12
        await anyio.sleep(6.0)
        entry.ending = "stop"
        world.meter.held["u"] = 7
        await anyio.sleep(6.0)

    world.run(scenario)
    assert {each.highest for each in world.stored} == {7 * GIB}
