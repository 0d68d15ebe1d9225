"""Mailbox: calls from other threads, run in order by one task of the host."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel

from .errors import HostStateError

log = logging.getLogger(__name__)

#: Calls that run without letting other tasks run.
_BATCH = 256

_Call: TypeAlias = tuple[Callable[[], Any], Future[Any]]


class Mailbox:
    """Takes calls from any thread; made inside the event loop, and `run` must be running there.

    ``deque.append`` and ``popleft`` are atomic, so there is no lock: a call is appended before the
    flag is read, and the task clears the flag before it looks for calls.
    """

    def __init__(self) -> None:
        self._calls: deque[_Call] = deque()
        self._is_woken = False
        self._is_closed = False
        self._wake = anyio.Event()
        self._soon = _scheduler()

    def put(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in the loop, after all calls that were put before; from any thread.

        Returns:
            A future of the result.

        Raises:
            HostStateError: The mailbox is closed.
        """
        future: Future[Any] = Future()
        if self._is_closed:
            raise HostStateError("the host has ended; nothing was changed")
        self._calls.append((call, future))
        if not self._is_woken:
            self._is_woken = True
            try:
                self._soon(self._ring)
            except RuntimeError:  # the loop has ended meanwhile
                self.close()
        if self._is_closed:  # perhaps after it was closed, when calls are no longer fetched
            self.close()
        return future

    def _ring(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Run calls until cancelled."""
        while True:
            self._wake = anyio.Event()
            self._is_woken = False
            count = 0
            while self._calls:
                self._run_one(*self._calls.popleft())
                count += 1
                if count % _BATCH == 0:
                    await anyio.lowlevel.checkpoint()
            await self._wake.wait()

    @staticmethod
    def _run_one(call: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - the thread gets it
            log.warning("an event of another thread was not taken: %r", error)
            future.set_exception(error)
        except BaseException as error:  # such as a KeyboardInterrupt
            future.set_exception(error)
            raise
        else:
            future.set_result(result)

    def close(self) -> None:
        """Refuse further calls, and fail those that wait."""
        self._is_closed = True
        while True:
            try:
                _, future = self._calls.popleft()
            except IndexError:  # none is left; threads may close it at the same time
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(HostStateError("the host ended before this call"))


def _scheduler() -> Callable[[Callable[[], object]], object]:
    """Return a function that runs a function in the present event loop, from any thread."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
