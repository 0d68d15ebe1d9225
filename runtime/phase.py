"""Phase of a lifecycle, as the scheduler sees it."""

from __future__ import annotations

from .lifecycle import Lifecycle
from .scheduling import Ending, Phase


def phase_of(lifecycle: Lifecycle) -> Phase:
    """Return the phase of *lifecycle* for the scheduler."""
    configuration, state = lifecycle.configuration, lifecycle.state
    if state in ("ready", "asleep"):
        return "ready" if state == "ready" else "asleep"
    if "stopping" in configuration or state == "suspending":
        return "stopping"
    if "starting" in configuration or "sleeping" in configuration:
        return "starting"  # a request waits for the end of a further phase of sleep, or of waking
    if state == "backoff":
        return "starting" if lifecycle.has_demand else "stopped"  # restarts on demand only
    if state == "tripped":
        return "reviving" if lifecycle.has_demand else "failed"
    return "failed" if state == "shut_down" else "stopped"


def ending_of(lifecycle: Lifecycle) -> Ending:
    """Return how the stop of *lifecycle* ends, if it is stopping."""
    state = lifecycle.state
    return "sleep" if state == "suspending" else "stuck" if state == "stuck" else "stop"
