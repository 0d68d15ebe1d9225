"""Virtual time on trio: its own mock clock drives hosts and players."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from swapchart.machine import Machine, read
from swapchart.runtime import Actions, Host, Player

pytest.importorskip("trio")
from trio.testing import MockClock

DAY_S = 86_400.0
REMINDER = read("""
format: swapchart.chart/v1
name: Reminder
events: {due: {origin: timer, of: pause}, told: {origin: activity, of: tell}}
actions:
  wait: {do: {effect: timer.start, timer: pause}}
  tell: {do: {effect: activity.start, activity: tell}}
chart:
  name: Reminder
  states:
    waiting: {initial: true, enter: wait, transitions: [{event: due, target: telling}]}
    telling: {enter: tell, transitions: [{event: told, target: done}]}
    done: {final: true}
""")


async def tell(point: str) -> str:
    await anyio.sleep(DAY_S)
    return "told"


def run(main: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    """Run *main* on trio and its mock clock; return its result and the real seconds it took."""
    began = time.perf_counter()
    clock = MockClock(autojump_threshold=0)
    result = anyio.run(main, backend="trio", backend_options={"clock": clock})
    return result, time.perf_counter() - began


def test_player_on_trio_mock_clock_takes_no_real_time() -> None:
    """Three days of a timer and an activity pass at once."""

    async def main() -> float:
        began = anyio.current_time()
        player = Player(REMINDER, activities={"tell": tell}, timers={"pause": 2 * DAY_S})
        async with player:
            await player.wait_for("done")
        return anyio.current_time() - began

    virtual_s, real_s = run(main)

    assert virtual_s == pytest.approx(3 * DAY_S)
    assert real_s < 60.0


def test_host_on_trio_mock_clock_runs_instances_by_their_own_timers() -> None:
    """Each of ten instances is done after its own time."""
    machine = Machine(REMINDER)

    async def main() -> list[float]:
        began, ended = anyio.current_time(), []
        async with Host() as host:
            for days in range(1, 11):
                actions = Actions(activities={"tell": tell}, timers={"pause": days * DAY_S})
                instance = host.start(machine, actions=actions)
                await instance.wait_for("done")
                ended.append(anyio.current_time() - began)
        return ended

    ended, real_s = run(main)

    assert ended == pytest.approx([sum(range(2, n + 2)) * DAY_S for n in range(1, 11)])
    assert real_s < 60.0
