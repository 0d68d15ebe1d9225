"""Whoever wants to hear of transitions: functions that are called, and streams that are read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import anyio

from .transition import Transition

log = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[Transition], None]


class Listeners:
    """Tells every listener of each transition."""

    def __init__(self) -> None:
        self._all: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* from now on; returns a function that ends it, as often as called."""
        self._all = [*self._all, listener]

        def end() -> None:
            self._all = [each for each in self._all if each is not listener]

        return end

    async def events(self, limit: int) -> AsyncIterator[Transition]:
        """Yield transitions from now on; a reader that is *limit* behind loses the oldest."""
        waiting: deque[Transition] = deque(maxlen=limit)
        wake = anyio.Event()

        def take(record: Transition) -> None:
            waiting.append(record)
            wake.set()

        end = self.add(take)
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                wake = anyio.Event()
                await wake.wait()
        finally:
            end()

    def tell(self, record: Transition) -> None:
        """Call them all; an exception of one is logged and goes no further."""
        for listener in self._all:  # replaced, never changed: one may end itself here
            try:
                listener(record)
            except Exception:
                log.exception("a listener failed on %s -> %s", record.source, record.target)
