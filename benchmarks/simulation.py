"""Speed of the core and longest wait of any request, on virtual time, without processes.

    python benchmarks/simulation.py [--lifecycles 10000] [--seeds 50]

First, whole lives one after the other: request, spawn, health check, ready, release, stop, sweep;
real seconds on one core. Then two models that exclude each other, and users who never let up
(open loop: they come whether or not they are served); the longest wait in virtual seconds, which
must keep within the bound that the scheduler promises.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import anyio

from swapchart.runtime import QueueLimits, Supervisor
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service

MOST_S_FOR_TEN_THOUSAND = 30.0
MAX_WAIT_S, LONGEST_HOLD_S, START_S, STOP_S = 30.0, 8.0, 5.0, 2.0
#: Readiness is probed at least so often.
PROBE_PAUSE_S = 0.5
BOUND_S = MAX_WAIT_S + LONGEST_HOLD_S + STOP_S + START_S + PROBE_PAUSE_S


def lives(count: int) -> tuple[float, float]:
    """Run *count* lives; returns real and virtual seconds."""
    launcher = ScriptedLauncher({"a": ServerScript(spawn_s=0.01, healthy_s=0.2, terminate_s=0.1)})

    async def main() -> float:
        began = anyio.current_time()
        async with Supervisor(launcher, [service("a")]) as supervisor:
            for _ in range(count):
                async with supervisor.lease("a"):
                    pass
                await supervisor.unload("a")
        launcher.assert_ended()
        return anyio.current_time() - began

    began = time.process_time()
    virtual_s = run_virtual(main, seed=0)
    return time.process_time() - began, virtual_s


def contention(seed: int) -> tuple[float, int, int]:
    """Let two models fight for one place; returns the longest wait, requests and swaps."""
    rng = random.Random(seed)
    script = ServerScript(healthy_s=START_S, terminate_s=STOP_S)
    launcher = ScriptedLauncher({"a": script, "b": script})
    waits: list[float] = []

    async def user(supervisor: Supervisor, name: str, hold_s: float) -> None:
        asked_at = anyio.current_time()
        await supervisor.acquire(name)
        waits.append(anyio.current_time() - asked_at)
        await anyio.sleep(hold_s)
        supervisor.release(name)

    async def main() -> None:
        favour = rng.uniform(0.1, 0.9)
        limits = QueueLimits(length=100_000, timeout_s=None, max_wait_s=MAX_WAIT_S)
        async with (
            Supervisor(launcher, [service("a"), service("b")], queue=limits) as supervisor,
            anyio.create_task_group() as users,
        ):
            end = anyio.current_time() + 600.0
            while anyio.current_time() < end:
                name = "a" if rng.random() < favour else "b"
                users.start_soon(user, supervisor, name, rng.uniform(0.1, LONGEST_HOLD_S))
                await anyio.sleep(rng.expovariate(1.0))

    run_virtual(main, seed=seed)
    return max(waits), len(waits), launcher.count("spawn")


def main() -> int:
    """Measure, print, and return 1 if a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lifecycles", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=50)
    options = parser.parse_args()

    real_s, virtual_s = lives(options.lifecycles)
    rate = options.lifecycles / real_s
    print(f"{options.lifecycles} lifecycles in {real_s:.2f} s of CPU: {rate:.0f} a second")
    print(f"  ({virtual_s:.0f} s of virtual time)")
    is_fast = real_s <= MOST_S_FOR_TEN_THOUSAND * options.lifecycles / 10_000

    results = [contention(seed) for seed in range(options.seeds)]
    longest = max(wait for wait, _, _ in results)
    requests = sum(count for _, count, _ in results)
    swaps = sum(count for _, _, count in results)
    print(f"{requests} requests, {swaps} starts over {options.seeds} seeds of contention:")
    print(f"  the longest wait was {longest:.1f} s; promised are {BOUND_S:.1f} s at most")
    return 0 if is_fast and longest <= BOUND_S else 1


if __name__ == "__main__":
    sys.exit(main())
