"""Idle time of a server: runs background work once it has been idle for long enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


class IdleTime:
    """Idle time of one server, known from the ends of its requests; no timer runs without one.

    Args:
        is_idle: Returns True if no request is in flight or queued for the model.
    """

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        self._is_idle = is_idle
        self._wake = anyio.Event()
        self._ended = anyio.Event()
        self._ended_at = -1e9
        self._ends = 0
        self._is_over = False

    @property
    def is_idle(self) -> bool:
        """True if no request is in flight or queued, and the process is not about to stop."""
        return not self._is_over and self._is_idle()

    def note_end(self) -> None:
        """Note that a request has ended."""
        self._ends += 1
        self._ended_at = anyio.current_time()
        self._notify()

    def stop(self) -> None:
        """End `run` before its next piece of work; what is under way is completed."""
        self._is_over = True
        self._notify()

    def _notify(self) -> None:
        self._wake.set()
        ended, self._ended = self._ended, anyio.Event()
        ended.set()

    async def wait_idle(self, limit_s: float) -> None:
        """Wait until the server is idle or about to stop, at most for *limit_s* seconds."""
        with anyio.move_on_after(limit_s):
            while not (self._is_over or self._is_idle()):
                await self._ended.wait()

    async def wait_quiet(self, seconds: float) -> bool:
        """Wait until the server has been idle for *seconds*; False if a request came before."""
        ends = self._ends
        left = self._ended_at + seconds - anyio.current_time()
        if left > 0:
            await anyio.sleep(left)
        return self._ends == ends and self.is_idle

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Call *work* whenever requests have ended, until `stop`."""
        while not self._is_over:
            await self._wake.wait()
            self._wake = anyio.Event()
            if self.is_idle:
                await work()
