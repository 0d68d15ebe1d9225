"""Both back ends on a clock that jumps: asyncio in a virtual loop, trio with an autojump clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import trio.testing

from swapchart.machine import Machine, read
from swapchart.runtime.testing import run_virtual

T = TypeVar("T")

BACKENDS = ("asyncio", "trio")

WORKER = """
format: swapchart.chart/v1
name: Worker
data: {n: {initial: 0, values: [0, 1, 2, 3]}}
events:
  go: {data: {size: [1, 2]}}
  back: {}
  finish: {}
  done: {origin: activity, of: work}
  broke: {origin: activity, of: work, on: error}
  late: {origin: timer, of: limit}
actions:
  add: {set: {n: n + size}}
  work: {do: {effect: activity.start, activity: work}}
  stop_work: {do: {effect: activity.cancel, activity: work}}
  arm: {do: {effect: timer.start, timer: limit}}
  disarm: {do: {effect: timer.cancel, timer: limit}}
  tell: {do: {effect: notify, name: told}}
chart:
  states:
    idle:
      initial: true
      transitions:
        - {event: go, target: busy, "on": [add, tell]}
        - {event: finish, target: over}
    busy:
      enter: [work, arm]
      exit: [stop_work, disarm]
      transitions:
        - {event: done, target: idle}
        - {event: broke, target: broken}
        - {event: late, target: idle}
        - {event: back, target: idle}
    broken: {transitions: [{event: back, target: idle}]}
    over: {final: true}
"""
MUTE = WORKER.replace("  broke: {origin: activity, of: work, on: error}\n", "").replace(
    "        - {event: broke, target: broken}\n", "        - {event: late, target: broken}\n"
)


def worker() -> Machine:
    """Return the chart of a worker: one activity, one timer, one count."""
    return Machine(read(WORKER))


def run_on(backend: str, main: Callable[[], Awaitable[T]], seed: int | None = None) -> T:
    """Run *main* on *backend*, where waiting takes no time."""
    if backend == "asyncio":
        return run_virtual(main, seed=seed)
    options: dict[str, Any] = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return anyio.run(main, backend="trio", backend_options=options)


async def sleeper(point: str) -> str:
    """Work for ten seconds."""
    await anyio.sleep(10)
    return "done"
