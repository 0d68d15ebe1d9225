"""Event bus: publishes events to subscribers, each with a bounded queue.

A slow subscriber delays neither the publisher nor other subscribers. In contrast to llama-swap,
events are numbered, and a subscriber that lost events gets a notice and the complete state again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from msgspec import to_builtins

_WAITING_MAX = 1024
_WAITING_BYTES = 1 << 19
_TAKEN_BYTES = 1 << 16


def format_sse(number: int, kind: str, value: object) -> bytes:
    """Return a server-sent event; its data is JSON in a JSON string, as llama-swap sends it."""
    return b"id:%d\n%b" % (number, _format_message(kind, value))


def _format_message(kind: str, value: object) -> bytes:
    inner = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=to_builtins)
    outer = json.dumps({"type": kind, "data": inner}, ensure_ascii=False, separators=(",", ":"))
    return f"event:message\ndata:{outer}\n\n".encode()


@lru_cache(maxsize=16)
def _format_log(source: str, text: str) -> bytes:
    return _format_message("logData", {"source": source, "data": text})


def format_log(number: int, source: str, text: str) -> bytes:
    """Return a server-sent event with the *text* of a log.

    Subscribers read the same log in the same chunks of up to 64 KiB; what the last ones got is
    kept. To format a chunk takes 0.5 ms, and 256 subscribers may come at once.
    """
    return b"id:%d\n%b" % (number, _format_log(source, text))


#: (kind, value) -> the value as one subscriber may see it; None means it may not see the event.
Shape: TypeAlias = Callable[[str, Any], Any]


class Subscription:
    """Queue of one subscriber.

    Attributes:
        shape: Restricts the events; None means no restriction.
        lost: Number of dropped events; the subscriber sets it back to 0.
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
        """Add an event for this subscriber alone, even if its queue is full."""
        self._add(self.framed(kind, value))

    def framed(self, kind: str, value: object) -> bytes:
        """Return an event as this subscriber may see it; empty if it may not."""
        if self.shape is not None:
            value = self.shape(kind, value)
            if value is None:
                return b""
        return format_sse(self._numbers(), kind, value)

    def put_log(self, source: str, text: str) -> None:
        """Add the *text* of a log that this subscriber may see, even if its queue is full."""
        self._add(self.framed_log(source, text))

    def framed_log(self, source: str, text: str) -> bytes:
        """Return the event for the *text* of a log that this subscriber may see."""
        return format_log(self._numbers(), source, text)

    def offer(self, data: bytes) -> None:
        """Add a formatted event, or count it as lost if the queue is full."""
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
        """True if the queue is empty."""
        return not self._waiting

    async def wait_room(self) -> None:
        """Wait until the queue is short, for a publisher that can wait."""
        while self._size > _TAKEN_BYTES:
            self._room.clear()
            await self._room.wait()

    async def take(self, limit_s: float) -> bytes:
        """Wait up to *limit_s* seconds for events; return about 64 KiB of them, or none."""
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
    """All subscriptions of a proxy."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._numbers = itertools.count(1)

    @property
    def is_heard(self) -> bool:
        """True if there are subscribers; if not, events need not be built."""
        return bool(self._subscriptions)

    def open(self, shape: Shape | None = None) -> Subscription:
        """Subscribe, with *shape* as restriction; pair with `close`."""
        subscription = Subscription(self._number, shape)
        self._subscriptions.add(subscription)
        return subscription

    def close(self, subscription: Subscription) -> None:
        """Unsubscribe."""
        self._subscriptions.discard(subscription)

    def publish(self, kind: str, value: Any) -> None:
        """Publish an event to all subscribers."""
        if self._subscriptions:
            data = format_sse(self._number(), kind, value)
            for subscription in self._subscriptions:
                if subscription.shape is None:
                    subscription.offer(data)
                else:
                    subscription.offer(subscription.framed(kind, value))

    def _number(self) -> int:
        return next(self._numbers)
