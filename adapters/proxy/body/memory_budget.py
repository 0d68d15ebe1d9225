"""Memory budget for all request bodies that are buffered.

A size limit bounds one body, but not a hundred at once. Beyond the budget a body waits unread, so
that its client is slowed down; after a timeout the request is rejected.
"""

from __future__ import annotations

import asyncio
from collections import deque


class BodyBudgetError(Exception):
    """The budget had no room for the body within the timeout.

    Attributes:
        wait_s: How long the body waited in seconds; also when a retry makes sense.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            f"too many large request bodies at once: there was no room for this one in {wait_s:g} s"
        )
        self.wait_s = wait_s


class BodyBudget:
    """Bytes that are reserved and released, first come, first served.

    Args:
        limit_bytes: Maximum of reserved bytes. A larger body is admitted while it is the only one.
        wait_s: Timeout of a reservation in seconds.

    Attributes:
        used_bytes: Bytes that are reserved now.
    """

    def __init__(self, limit_bytes: int, wait_s: float) -> None:
        self._limit, self._wait_s = limit_bytes, wait_s
        self.used_bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Number of bodies that wait."""
        return len(self._queue)

    async def take(self, size: int) -> None:
        """Reserve *size* bytes as soon as there is room.

        Raises:
            BodyBudgetError: There was no room within the timeout.
        """
        if not self._queue and self._has_room(size):
            self.used_bytes += size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, granted))
        try:
            async with asyncio.timeout(self._wait_s):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.give_back(size)  # granted and cancelled at the same moment
            else:
                self._queue = deque(item for item in self._queue if item[1] is not granted)
                self._grant()  # a smaller one after it may fit
            if isinstance(error, TimeoutError):
                raise BodyBudgetError(self._wait_s) from error
            raise

    def give_back(self, size: int) -> None:
        """Release *size* bytes."""
        self.used_bytes -= size
        self._grant()

    def _grant(self) -> None:
        while self._queue and self._has_room(self._queue[0][0]):
            size, granted = self._queue.popleft()
            if not granted.done():
                self.used_bytes += size
                granted.set_result(None)

    def _has_room(self, size: int) -> bool:
        return self.used_bytes + size <= self._limit or not self.used_bytes
