"""Starts, stops, kills and clients in every order, on virtual time: each call ends, one tree lives.

Each seed is one scenario; a failure prints its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Exit, RequestError, Timings
from swapchart.runtime.testing import CommandScript, ServerScript, service

#: How many stories each test tells; docs/reliability.md says how many were told once.
STORIES = int(os.environ.get("SWAPCHART_STORIES", "1000"))
BATCHES = 10
PAUSES_S = (0.0, 0.0, 0.001, 0.4, 1.0, 2.5, 7.0, 12.0, 30.0)
POINTS = ("beforeStart", "afterStart", "afterHealthy", "beforeStop", "afterStop")


def servers(rng: random.Random) -> ServerScript:
    """Return a process that takes its time for everything, and may not live long."""
    return ServerScript(
        spawn_s=rng.choice((0.0, 0.5)),
        healthy_s=rng.choice((0.0, 1.0, 3.0)),
        terminate_s=rng.choice((0.0, 2.0, None)),
        kill_s=rng.choice((0.0, 0.5)),
        leaves=rng.choice((0, 0, 2)),
    )


def commands(rng: random.Random) -> dict[str, CommandScript]:
    """Return hooks that take their time, hang or fail."""
    return {
        point: CommandScript(
            takes_s=rng.choice((0.0, 1.0, 1.0, None)), exit=Exit(code=rng.choice((0, 0, 1)))
        )
        for point in POINTS
    }


class Calls:
    """Calls of the supervisor under way, and how they ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begun = 0
        self.ended: list[str] = []

    def begin(self, call: Callable[[], Awaitable[object]]) -> None:
        self.begun += 1
        self._world.spawn(self._run, call)

    async def _run(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except RequestError as error:
            self.ended.append(error.code)
        else:
            self.ended.append("ok")

    async def all_ended(self) -> None:
        with anyio.fail_after(1000.0):
            while len(self.ended) < self.begun:  # noqa: ASYNC110  (virtual time)
                await anyio.sleep(0.25)


@pytest.mark.parametrize("batch", range(BATCHES))
@row("A42")
def test_lifecycle_last_of_any_orders_decides(batch: int) -> None:
    """Loads and unloads at any moment of a start or a stop: all end, and the last one is obeyed."""
    for seed in range(batch, STORIES, BATCHES):
        rng = random.Random(seed)
        orders = [rng.choice(("load", "unload")) for _ in range(rng.randint(2, 7))]
        pauses = [rng.choice(PAUSES_S) for _ in orders]

        async def scenario(
            world: World, orders: list[str] = orders, pauses: list[float] = pauses
        ) -> None:
            calls = Calls(world)
            for order, pause_s in zip(orders, pauses, strict=True):
                run = world.supervisor.load if order == "load" else world.supervisor.unload
                calls.begin(partial(run, "a"))
                await anyio.sleep(pause_s)
            await calls.all_ended()
            if orders[-1] == "unload":
                await world.until("a", "stopped")
            else:
                await world.until("a", "ready")
            assert len(world.launcher.of("a")) == (orders[-1] == "load")

        hooks = {point: (hook(point, timeout_s=4.0),) for point in POINTS if rng.random() < 0.5}
        try:
            run_scenario(
                scenario, service("a", hooks=hooks), servers={"a": servers(rng)},
                commands=commands(rng), seed=seed,
            )  # fmt: skip
        except BaseException as error:
            error.add_note(f"seed {seed}: {list(zip(orders, pauses, strict=True))}")
            raise


@pytest.mark.parametrize("batch", range(BATCHES))
@row("A42", "B10", "D12")
def test_lifecycle_any_event_at_any_moment_ends_in_order(batch: int) -> None:
    """Kills, crashes, clients that leave: never two trees, and in the end no request waits."""
    for seed in range(batch, STORIES, BATCHES):
        rng = random.Random(seed)

        async def scenario(world: World, rng: random.Random = rng) -> None:
            calls = Calls(world)
            for _ in range(rng.randint(4, 12)):
                name = rng.choice("ab")
                match rng.randrange(7):
                    case 0:
                        calls.begin(partial(world.supervisor.load, name))
                    case 1:
                        calls.begin(partial(world.supervisor.unload, name))
                    case 2:
                        calls.begin(world.supervisor.unload_all)
                    case 3:
                        world.launcher.crash(name)
                    case 4:
                        world[name].post("kill")
                    case _:
                        client = world.client(name, hold_s=rng.choice((0.0, 1.0, 20.0)))
                        if rng.random() < 0.4:
                            await anyio.sleep(rng.choice(PAUSES_S))
                            client.leave()
                await anyio.sleep(rng.choice(PAUSES_S))
                world.launcher.assert_sound()
                assert len(world.launcher.of("a")) + len(world.launcher.of("b")) <= 2
            await calls.all_ended()
            for client in world.clients:
                client.leave()
            await world.moment()
            await world.supervisor.unload_all()
            await world.moment()
            assert "waiting" not in world.outcomes()

        hooks = {point: (hook(point, timeout_s=4.0),) for point in POINTS if rng.random() < 0.5}
        timings = Timings(drain_limit=5.0, idle_limit=rng.choice((None, 6.0)))
        specs = [service(name, hooks=hooks, timings=timings) for name in "ab"]
        try:
            run_scenario(
                scenario, *specs, servers={name: servers(rng) for name in "ab"},
                commands=commands(rng), seed=seed,
            )  # fmt: skip
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
