"""Passes events to whoever listens: each listener has a bounded queue and can delay nobody.

Unlike llama-swap's, events are numbered, and a listener that
lost some is told so and given the whole state again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import to_builtins

_WAITING_MAX = 1024
_WAITING_BYTES = 1 << 19
_TAKEN_BYTES = 1 << 16


def format_sse(number: int, kind: str, value: object) -> bytes:
    """Return one server-sent event; its data is JSON that holds JSON, as llama-swap's does."""
    inner = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=to_builtins)
    outer = json.dumps({"type": kind, "data": inner}, ensure_ascii=False, separators=(",", ":"))
    return f"id:{number}\nevent:message\ndata:{outer}\n\n".encode()


#: (kind, value) -> the value as one listener may see it; None: it may not.
Shape: TypeAlias = Callable[[str, Any], Any]


class Subscription:
    """What one listener has still to get.

    Attributes:
        shape: Limits what it gets; None: it gets everything.
        lost: Events that were dropped since somebody looked; set it back to 0.
    """

    def __init__(self, numbers: Callable[[], int], shape: Shape | None = None) -> None:
        self._numbers = numbers
        self.shape = shape
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._size = 0
        self.lost = 0

    def put(self, kind: str, value: object) -> None:
        """Add an event for this listener alone, for which there is always room."""
        self._add(self.framed(kind, value))

    def framed(self, kind: str, value: object) -> bytes:
        """Return an event as this listener may see it; empty when it may not."""
        if self.shape is not None:
            value = self.shape(kind, value)
            if value is None:
                return b""
        return format_sse(self._numbers(), kind, value)

    def offer(self, data: bytes) -> None:
        """Add a whole frame, or count it as lost when there is no room."""
        if len(self._waiting) >= _WAITING_MAX or self._size > _WAITING_BYTES:
            self.lost += 1
        else:
            self._add(data)
        self._wake.set()

    def _add(self, data: bytes) -> None:
        if data:
            self._waiting.append(data)
            self._size += len(data)
        self._wake.set()

    @property
    def is_empty(self) -> bool:
        """Return True if nothing is left to take."""
        return not self._waiting

    async def wait_room(self) -> None:
        """Wait until little is left to get, for a sender that can wait."""
        while self._size > _TAKEN_BYTES:
            self._room.clear()
            await self._room.wait()

    async def take(self, limit_s: float) -> bytes:
        """Wait for events and return some 64 KiB of them; empty when none came in *limit_s*."""
        if not self._waiting and not self.lost:
            self._wake.clear()
            try:
                async with asyncio.timeout(limit_s):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        taken: list[bytes] = []
        size = 0
        while self._waiting and size <= _TAKEN_BYTES:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        self._size -= size
        self._room.set()
        return b"".join(taken)


class EventBus:
    """All listeners of a proxy."""

    def __init__(self) -> None:
        self._feeds: set[Subscription] = set()
        self._numbers = itertools.count(1)

    @property
    def is_heard(self) -> bool:
        """Tell whether anybody listens; if not, nothing need be put together."""
        return bool(self._feeds)

    def open(self, shape: Shape | None = None) -> Subscription:
        """Begin to listen, to what *shape* leaves of each event; pair with `close`."""
        feed = Subscription(self._number, shape)
        self._feeds.add(feed)
        return feed

    def close(self, feed: Subscription) -> None:
        """Listen no longer."""
        self._feeds.discard(feed)

    def publish(self, kind: str, value: Any) -> None:
        """Tell everybody."""
        if self._feeds:
            data = format_sse(self._number(), kind, value)
            for feed in self._feeds:
                if feed.shape is None:
                    feed.offer(data)
                else:
                    feed.offer(feed.framed(kind, value))

    def _number(self) -> int:
        return next(self._numbers)
