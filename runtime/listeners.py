"""Listeners of records: functions that are called, and streams that are read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeAlias, TypeVar
from weakref import WeakSet, finalize

import anyio

from .arguments import require_count, require_function
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


class _Inbox(Generic[R]):
    """Records that one stream has not yielded yet.

    Args:
        limit: Number of records; further ones displace the oldest.
        is_closed: No record follows.

    Attributes:
        records: The records.
        is_closed: No record follows.
        wake: Set when there is a record, or none follows.
    """

    def __init__(self, limit: int, *, is_closed: bool) -> None:
        self.records: deque[R] = deque(maxlen=limit)
        self.is_closed = is_closed
        self.wake: anyio.Event | None = None  # made when a reader waits: perhaps in another task

    def put(self, record: R) -> None:
        """Add *record*."""
        self.records.append(record)
        self._set()

    def close(self) -> None:
        """End the stream after the records that are waiting."""
        self.is_closed = True
        self._set()

    def _set(self) -> None:
        wake, self.wake = self.wake, None
        if wake is not None:
            wake.set()

    async def get(self) -> R:
        """Wait for the next record.

        Raises:
            StopAsyncIteration: None follows.
        """
        while not self.records:
            if self.is_closed:
                raise StopAsyncIteration
            if self.wake is None:
                self.wake = anyio.Event()
            await self.wake.wait()
        return self.records.popleft()


class RecordStream(AsyncIterator[R], Generic[R]):
    """Stream of the records from the moment at which it was made.

    A stream that is no longer referred to, or was closed, gets no more records.

    Args:
        inbox: Holds the records.
        remove: Ends the supply.
    """

    def __init__(self, inbox: _Inbox[R], remove: Callable[[], None]) -> None:
        self._inbox = inbox
        self._end = finalize(self, remove)
        self._end.atexit = False

    async def __anext__(self) -> R:
        """Wait for the next record."""
        return await self._inbox.get()

    async def aclose(self) -> None:
        """End the stream, for a reader that waits too."""
        self._end()
        self._inbox.records.clear()
        self._inbox.close()


class Listeners(Generic[R]):
    """Calls every listener with each record, such as a transition."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[R], None]] = []
        self._inboxes: WeakSet[_Inbox[R]] = WeakSet()
        self._is_closed = False

    def add(self, listener: Callable[[R], None]) -> Callable[[], None]:
        """Add *listener* and return a function that removes it; repeated calls do nothing.

        Raises:
            ConfigError: It is no function, or an async one.
        """
        require_function("listener", listener)
        return self._add(listener)

    def _add(self, listener: Callable[[R], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def remove() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return remove

    def events(self, limit: int) -> RecordStream[R]:
        """Return a stream of the records from this call on; see `RecordStream`.

        Raises:
            ConfigError: *limit* is no whole number >= 1.
        """
        require_count("limit", limit, 1)
        inbox: _Inbox[R] = _Inbox(limit, is_closed=self._is_closed)
        remove = self._add(inbox.put)
        self._inboxes.add(inbox)
        return RecordStream(inbox, remove)

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
        for inbox in list(self._inboxes):
            inbox.close()
