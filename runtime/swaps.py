"""Ledger of the swaps under way: which service is part of which.

A swap begins with the first eviction for a service, or with a start or a stop of its own, and ends
for each service when that one has come to rest. Bookkeeping alone; nothing here decides anything.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .request_wait import RequestWait, Swap, SwapCause

#: Cause of a swap that begins with this event where nothing else says it; else it is a failure.
_CAUSES: dict[str, SwapCause] = {
    "request": "request", "start": "autostart", "stop": "unload", "kill": "unload",
    "abandon": "request", "idle_expired": "idle", "doze_expired": "idle", "sleep": "idle",
    "asleep_expired": "idle", "shutdown": "shutdown", "adopted": "adoption",
}  # fmt: skip
_MOVING = frozenset({"starting", "stopping", "suspending", "waking", "adopting"})
_PAUSED = "backoff"  # between two starts of one swap


def is_at_rest(configuration: Iterable[str]) -> bool:
    """Return True if a service in *configuration* neither starts nor stops."""
    return _MOVING.isdisjoint(configuration)


class SwapLedger:
    """Ledger of the swaps of one supervisor.

    Ids are unique among all supervisors: a random prefix, and a number.
    """

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._swaps: dict[str, Swap] = {}
        self._cause: SwapCause | None = None
        self._wait: RequestWait | None = None

    def of(self, service: str) -> Swap | None:
        """Return the swap that *service* is part of at the moment, or None."""
        return self._swaps.get(service)

    def begin(self, cause: SwapCause, request_id: str = "") -> Swap:
        """Return a new swap."""
        return Swap(f"{self._prefix}-{next(self._numbers)}", cause, request_id)

    def join(self, service: str, swap: Swap) -> None:
        """Make *service* part of *swap*, whatever it was part of."""
        self._swaps[service] = swap

    def leave(self, service: str) -> None:
        """Forget the swap of *service*."""
        self._swaps.pop(service, None)

    @contextmanager
    def caused_by(self, cause: SwapCause) -> Iterator[None]:
        """Give *cause* to the swaps that begin in this block."""
        before, self._cause = self._cause, cause
        try:
            yield
        finally:
            self._cause = before

    @contextmanager
    def started_for(self, wait: RequestWait) -> Iterator[None]:
        """Let a start that begins in this block be part of the swap that *wait* is for."""
        before, self._wait = self._wait, wait
        try:
            yield
        finally:
            self._wait = before

    def take(self, service: str, event: str, configuration: tuple[str, ...]) -> Swap | None:
        """Return the swap that a transition of *service* is part of; None if it is of none.

        Args:
            service: Name of the service.
            event: Event of the transition.
            configuration: Active states after it.
        """
        swap = self._swaps.get(service)
        if is_at_rest(configuration):
            if swap is not None and configuration[-1] != _PAUSED:
                del self._swaps[service]
            return swap
        if swap is None:
            swap = self._swaps[service] = self._new(event)
        return swap

    def _new(self, event: str) -> Swap:
        wait = self._wait if event == "request" else None
        if wait is None:
            return self.begin(self._cause or _CAUSES.get(event, "failure"))
        return wait.swap or self.begin(wait.cause, wait.request_id)
