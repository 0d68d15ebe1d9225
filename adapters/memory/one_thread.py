"""A thread for calls that may hang: one at a time, each within a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, TypeVarTuple

import anyio

from ..system import threads

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class OneThread:
    """Calls of one kind; while one hangs, there is no further thread of that kind."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None
        self._blocking: threading.Thread | None = None

    async def call(self, function: Callable[[*Ts], T], *args: *Ts, limit_s: float) -> T:
        """Return the result of *function*.

        Raises:
            OSError: It failed so, has not ended within *limit_s* seconds, or the call before it
                has not ended yet.
        """
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        if self._limiter.available_tokens < 1:
            raise TimeoutError("the last reading has not ended")
        try:
            with anyio.fail_after(limit_s):
                return await threads.run_or_fail(function, *args, limiter=self._limiter)
        except TimeoutError as error:
            raise TimeoutError(f"no reading within {limit_s:g} s") from error
        except threads.NoThreadError as error:
            raise OSError(str(error)) from error

    def call_blocking(self, function: Callable[[*Ts], T], *args: *Ts, limit_s: float) -> T:
        """Do as `call` does, from a thread that may wait.

        Raises:
            OSError: As for `call`.
        """
        if self._blocking is not None and self._blocking.is_alive():
            raise TimeoutError("the last reading has not ended")
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001 - raised again by the caller
                future.set_exception(error)

        self._blocking = threading.Thread(target=work, daemon=True)
        try:
            self._blocking.start()
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._blocking.join(limit_s)
        if not future.done():
            raise TimeoutError(f"no reading within {limit_s:g} s")
        return future.result()
