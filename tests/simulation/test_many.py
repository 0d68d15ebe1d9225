"""Ten thousand services under one supervisor, on virtual time."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import anyio
from tools.rows import row

from swapchart.runtime import Supervisor
from swapchart.runtime.testing import ScriptedLauncher, run_virtual, service
from swapchart.runtime.virtual_clock import VirtualLoop

COUNT = 10_000
MOST_BYTES_EACH = 10 << 10


@row("A39")
def test_ten_thousand_idle_services_take_little_memory_and_no_time() -> None:
    """A service takes at most 10 KiB, and in an hour none of them wakes the loop."""

    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        specs = [service(f"service {number}") for number in range(COUNT)]
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            async with Supervisor(ScriptedLauncher(), specs):
                await anyio.sleep(1.0)
                gc.collect()
                used = tracemalloc.get_traced_memory()[0] - before
                turns = loop.turns
                await anyio.sleep(3600.0)
                return used / COUNT, loop.turns - turns
        finally:
            tracemalloc.stop()

    bytes_each, turns = run_virtual(main)

    assert bytes_each <= MOST_BYTES_EACH
    assert turns <= 2  # before and after the sleep of an hour


@row("A39")
def test_ten_thousand_services_run_and_stop() -> None:
    """Each is requested, started, held, unloaded and swept, and no process is left."""
    launcher = ScriptedLauncher()
    ends: list[str] = []

    async def main() -> None:
        specs = [service(f"service {number}") for number in range(COUNT)]
        async with Supervisor(launcher, specs) as supervisor:
            supervisor.listen(
                lambda step: ends.append(step.service) if step.target == "stopped" else None
            )
            for spec in specs:
                async with supervisor.lease(spec.name):
                    pass
                await supervisor.unload(spec.name)
            assert supervisor.scheduler.running() == frozenset()
            assert all(lifecycle.state == "stopped" for lifecycle in supervisor.lifecycles())

    run_virtual(main, seed=39)

    launcher.assert_sound()
    launcher.assert_ended()
    assert ends == [f"service {number}" for number in range(COUNT)]
    assert launcher.count("spawned") == launcher.count("swept") == COUNT
