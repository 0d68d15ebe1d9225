"""Public state of a model, derived from the active states of its chart."""

from __future__ import annotations

from collections.abc import Collection

from ....runtime import Lifecycle

_STATES = {  # our innermost states -> the words llama-swap's clients know
    "stopped": "stopped", "backoff": "stopped", "tripped": "stopped", "half_open": "stopped",
    "ready": "ready", "asleep": "sleeping", "suspending": "sleeping", "waking": "starting",
    "shut_down": "shutdown",
}  # fmt: skip


def public_state(life: Lifecycle) -> str:
    """Return the state of *life* in the words of llama-swap's API."""
    return public_state_of(life.state, life.configuration)


def public_state_of(state: str, configuration: Collection[str]) -> str:
    """Return the same for the innermost active *state* and all active states."""
    known = _STATES.get(state)
    if known is not None:
        return known
    return "stopping" if "stopping" in configuration else "starting"


def reported_state(life: Lifecycle) -> str:
    """Return the same, except for ``failed`` where requests are refused after failures."""
    return "failed" if life.state in ("tripped", "stuck") else public_state(life)
