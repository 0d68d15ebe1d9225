"""Listeners of records: functions that are called, and streams that are read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

import anyio

from .transition import Transition

log = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[Transition], None]


class Record(Protocol):
    """Records that listeners are called with."""

    @property
    def source(self) -> object:
        """State or configuration before."""
        ...

    @property
    def target(self) -> object:
        """State or configuration after."""
        ...


R = TypeVar("R", bound=Record)


class Listeners(Generic[R]):
    """Calls every listener with each record, such as a transition."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[R], None]] = []
        self._wakes: list[Callable[[], None]] = []
        self._is_closed = False

    def add(self, listener: Callable[[R], None]) -> Callable[[], None]:
        """Add *listener* and return a function that removes it; repeated calls do nothing."""
        self._listeners = [*self._listeners, listener]

        def remove() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return remove

    async def events(self, limit: int) -> AsyncIterator[R]:
        """Yield records from now on; a reader that is *limit* behind loses the oldest.

        Ends after `close`.
        """
        waiting: deque[R] = deque(maxlen=limit)
        wake = anyio.Event()

        def on_record(record: R) -> None:
            waiting.append(record)
            wake.set()

        def on_close() -> None:
            wake.set()

        remove = self.add(on_record)
        self._wakes.append(on_close)
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                if self._is_closed:
                    return
                wake = anyio.Event()
                await wake.wait()
        finally:
            remove()
            self._wakes.remove(on_close)

    def notify(self, record: R) -> None:
        """Call all listeners with *record*; an exception of a listener is logged."""
        for listener in self._listeners:  # a copy: a listener may remove itself here
            try:
                listener(record)
            except Exception:
                log.exception("a listener failed on %s -> %s", record.source, record.target)

    def close(self) -> None:
        """End all streams, each after the records that wait in it."""
        self._is_closed = True
        for wake in list(self._wakes):
            wake()
