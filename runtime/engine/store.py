"""Port of a store that keeps instances beyond the process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ...machine import Snapshot


class Store(Protocol):
    """Keeps the last snapshot of each instance.

    A host saves each step before its effects are performed and before `Instance.post` returns. If
    `save` raises, the step is undone; an event of an activity or a timer is delivered again, after
    0.5 s at first and at most every 60 s. Calls come from the thread of the host and must be short.
    """

    def save(self, snapshot: Snapshot) -> None:
        """Keep *snapshot* in place of an earlier one of that id; it is kept when this returns.

        Raises:
            SnapshotError: A payload is of a kind that cannot be kept; the event that brought it is
                not delivered again.
        """
        ...

    def load(self) -> Iterable[Snapshot]:
        """Return all snapshots, in the order in which their instances were first saved.

        One that is damaged is left out, reported, and neither changed nor removed.
        """
        ...

    def has(self, name: str) -> bool:
        """Return True if there is a snapshot of instance *name*, damaged or not."""
        ...

    def forget(self, name: str) -> None:
        """Remove the snapshot of instance *name*; a no-op if there is none."""
        ...
