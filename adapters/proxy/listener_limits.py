"""Limits on the number of clients that stream events and logs.

Each of them takes a connection, some tasks and a buffer. Their number is limited in total and for
each API key, so that many clients that read nothing cannot exhaust the memory.
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
    """Counts the clients that stream events and logs.

    Args:
        limit: Maximum at a time; >= 1.
        per_key: Maximum at a time for one API key, where keys are configured; >= 1.
    """

    def __init__(self, limit: int, per_key: int) -> None:
        self._limit, self._per_key = limit, per_key
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count.total()

    def limit_to(self, limit: int, per_key: int) -> None:
        """Set new limits; clients that are connected stay so."""
        self._limit, self._per_key = limit, per_key

    @contextmanager
    def entered(self, client: str) -> Iterator[bool]:
        """Count a client for the block; yield False, without counting it, if there are too many.

        Args:
            client: Identifies the API key; empty if no key is needed.
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
    """Reject a client that exceeds a limit."""
    message = (
        "too many clients listen to events and logs: close some, or raise `listeners.limit` "
        "or `listeners.perKey`"
    )
    await send_error(
        request, send, 429, message, code="too_many_listeners", retry_after_s=_RETRY_S
    )  # fmt: skip
