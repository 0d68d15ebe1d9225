"""Virtual time on trio: its own mock clock drives hosts and players."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from swapchart.machine import Machine, read
from swapchart.runtime import Actions, Hook, Host, Player, RunAction, Supervisor, Timings
from swapchart.runtime.testing import (
    CommandScript,
    ScriptedLauncher,
    ServerScript,
    run_virtual,
    service,
)

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


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_scripted_processes_follow_their_script_on_both_backends(backend: str) -> None:
    """Output, a crash, a restart, a hook, a stubborn process, and a shutdown, at the same times."""
    servers = {
        "a": [ServerScript(healthy_s=30.0, exit_s=DAY_S, output=((5.0, b"loading"),)),
              ServerScript(healthy_s=30.0, terminate_s=None)],
    }  # fmt: skip
    launcher = ScriptedLauncher(servers, {"tidy": CommandScript(takes_s=4.0)})
    tidy = Hook(action=RunAction(argv=("tidy",)))
    spec = service(
        "a", restart="permanent", hooks={"afterStop": (tidy,)}, timings=Timings(backoff=1.0)
    )

    async def main() -> float:
        began = anyio.current_time()
        async with Supervisor(launcher, [spec], rng=random.Random(1)) as supervisor:
            await supervisor.load("a")
            assert b"loading" in supervisor["a"].log.history()
            await supervisor["a"].wait_for("backoff")
            await supervisor["a"].wait_for("ready")
        launcher.assert_ended()
        return anyio.current_time() - began

    taken_s = run(main)[0] if backend == "trio" else run_virtual(main)

    kinds = [record.what for record in launcher.records if record.name == "a"]
    assert (kinds.count("spawned"), kinds.count("exit"), kinds.count("kill")) == (2, 2, 1)
    assert launcher.programs() == ["tidy", "tidy"]
    assert DAY_S + 30.0 < taken_s < DAY_S + 100.0
