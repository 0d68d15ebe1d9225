"""Models whose run has become ready: what stops after a failed start was never loaded."""

from __future__ import annotations

from ....runtime import Supervisor, Transition

_READY = frozenset({"ready", "asleep", "suspending"})
_STARTING = frozenset({"before_start", "launching", "adopting"})


class LoadedModels:
    """Names of models whose run, or whose last run, has become ready.

    Args:
        supervisor: Runs the models.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._names = {life.spec.name for life in supervisor.lifecycles() if life.state in _READY}

    def __contains__(self, name: str) -> bool:
        """Return True if the run of *name* has become ready."""
        return name in self._names

    def on_transition(self, record: Transition) -> None:
        """Follow one transition; for ``Supervisor.listen``."""
        if record.target in _READY:
            self._names.add(record.service)
        elif record.target in _STARTING:
            self._names.discard(record.service)
