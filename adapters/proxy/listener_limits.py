"""Clients that listen without an end (events, logs): how many there may be.

Each takes a connection, some tasks and what it has not read yet. Their number is bounded for each
key and in all, so that nobody can fill the memory by opening many and reading none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..http1.asgi_types import Send
from .request import Request
from .responses import send_error

_RETRY_S = 5.0


class ListenerLimits:
    """Counts the clients that listen.

    Args:
        limit: Most at a time; >= 1.
        per_key: Most at a time with the same key, where there are keys; >= 1.
    """

    def __init__(self, limit: int, per_key: int) -> None:
        self._limit, self._per_key = limit, per_key
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count.total()

    def limit_to(self, limit: int, per_key: int) -> None:
        """Let in so many from now on; those that listen stay."""
        self._limit, self._per_key = limit, per_key

    @contextmanager
    def entered(self, client: str) -> Iterator[bool]:
        """Count one more while the block lasts; False when there are too many, and none is counted.

        Args:
            client: Tells the holders of keys apart; empty: no keys are needed.
        """
        if len(self) >= self._limit or (client and self._count[client] >= self._per_key):
            yield False
            return
        self._count[client] += 1
        try:
            yield True
        finally:
            self._count[client] -= 1
            if not self._count[client]:
                del self._count[client]


async def send_too_many(request: Request, send: Send) -> None:
    """Refuse one more listener."""
    message = (
        "too many clients listen to events and logs: close some, or raise `listeners.limit` "
        "or `listeners.perKey`"
    )
    await send_error(
        request, send, 429, message, code="too_many_listeners", retry_after_s=_RETRY_S
    )  # fmt: skip
