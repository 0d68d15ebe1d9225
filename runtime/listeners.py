"""Listeners of transitions: functions that are called, and streams that are read."""

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
    """Calls every listener with each transition."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """Add *listener* and return a function that removes it; repeated calls do nothing."""
        self._listeners = [*self._listeners, listener]

        def remove() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return remove

    async def events(self, limit: int) -> AsyncIterator[Transition]:
        """Yield transitions from now on; a reader that is *limit* behind loses the oldest."""
        waiting: deque[Transition] = deque(maxlen=limit)
        wake = anyio.Event()

        def on_transition(record: Transition) -> None:
            waiting.append(record)
            wake.set()

        remove = self.add(on_transition)
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                wake = anyio.Event()
                await wake.wait()
        finally:
            remove()

    def notify(self, record: Transition) -> None:
        """Call all listeners with *record*; an exception of a listener is logged."""
        for listener in self._listeners:  # a copy: a listener may remove itself here
            try:
                listener(record)
            except Exception:
                log.exception("a listener failed on %s -> %s", record.source, record.target)
