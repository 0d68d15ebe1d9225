"""End of all services of a supervisor: orderly, then by SIGKILL."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import anyio

from .lifecycle import Lifecycle

log = logging.getLogger(__name__)

#: Time in seconds that processes get to end after SIGKILL.
_KILL_S = 15.0


def begin_shutdown(lifecycles: Mapping[str, Lifecycle], limit_s: float | None) -> None:
    """Begin to drain, run the stop hooks and terminate; see `shut_down`."""
    for lifecycle in lifecycles.values():
        lifecycle.end_within(limit_s)
        lifecycle.tell("shutdown", "shutting down")


async def shut_down(lifecycles: Mapping[str, Lifecycle], limit_s: float | None) -> None:
    """Drain, run the stop hooks and terminate; after *limit_s* seconds kill the rest.

    Args:
        lifecycles: Name -> lifecycle; services that are removed meanwhile leave it.
        limit_s: Limit in seconds; None means unlimited.
    """
    begin_shutdown(lifecycles, limit_s)
    with anyio.move_on_after(math.inf if limit_s is None else limit_s) as scope:
        await _wait_final(lifecycles)
    if scope.cancelled_caught:
        kill_all(lifecycles, "asked to kill")
        with anyio.move_on_after(_KILL_S):
            await _wait_final(lifecycles)
    for lifecycle in lifecycles.values():
        if not lifecycle.is_final:
            log.error("%s did not end: %s", lifecycle.spec.name, lifecycle.state)


def kill_all(lifecycles: Mapping[str, Lifecycle], cause: str) -> None:
    """Kill all processes (SIGKILL) and skip the remaining stop hooks."""
    for lifecycle in lifecycles.values():
        if not lifecycle.tell("kill", cause) and lifecycle.process is not None:
            lifecycle.process.kill()  # the chart sees an end like any other


def kill_processes(lifecycles: Mapping[str, Lifecycle]) -> None:
    """Kill all processes (SIGKILL) without a step of a chart: its tasks cannot run any more."""
    for lifecycle in lifecycles.values():
        if lifecycle.process is not None:
            lifecycle.process.kill()


async def _wait_final(lifecycles: Mapping[str, Lifecycle]) -> None:
    for lifecycle in list(lifecycles.values()):
        await lifecycle.wait_for("shut_down")
        await lifecycle.wait_activities()
