"""How much memory all bodies that are read whole may take together.

One large body is bounded by itself; a hundred of them at once are not. Beyond the budget a
request waits for its turn, unread, so that its client is slowed down and nothing is stored; then
it is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque


class BodyBudgetError(Exception):
    """There was no room for the body within the time that it may wait.

    Attributes:
        wait_s: How long it waited; also when another try makes sense.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            f"too many large request bodies at once: there was no room for this one in {wait_s:g} s"
        )
        self.wait_s = wait_s


class BodyBudget:
    """Bytes that are taken and given back; whoever asks first is served first.

    Args:
        limit_bytes: Taken together at one time. A single body beyond it gets through alone.
        wait_s: How long one may wait.

    Attributes:
        used_bytes: Taken now.
    """

    def __init__(self, limit_bytes: int, wait_s: float) -> None:
        self._limit, self._wait_s = limit_bytes, wait_s
        self.used_bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def take(self, size: int) -> None:
        """Take *size* bytes, when there is room.

        Raises:
            BodyBudgetError: There was none in time.
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
                self.give_back(size)  # granted and interrupted at the same instant
            else:
                self._queue = deque(item for item in self._queue if item[1] is not granted)
                self._grant()  # a smaller one behind it may fit
            if isinstance(error, TimeoutError):
                raise BodyBudgetError(self._wait_s) from error
            raise

    def give_back(self, size: int) -> None:
        """Give *size* bytes back."""
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
