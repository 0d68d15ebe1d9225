"""Thread that asks a proxy for its state at intervals, also while it does not respond."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

from ..remote.client import ApiError, Proxy
from .snapshot import Swaps, take


class Reader:
    """Latest state of a proxy; a context manager around the thread that reads it.

    Args:
        proxy: The proxy.
        interval_s: Time between two readings in seconds, > 0.
        first: State to begin with.
        swaps: Cache of last swaps.

    Attributes:
        latest: The last state that was read.
        problem: Why none could be read since; empty if one was.
        wake_fd: File descriptor that becomes readable when either has changed.
    """

    def __init__(
        self, proxy: Proxy, interval_s: float, first: dict[str, Any], swaps: Swaps
    ) -> None:
        self.latest, self.problem = first, ""
        self._proxy, self._interval_s, self._swaps = proxy, interval_s, swaps
        self.wake_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        os.set_blocking(self.wake_fd, False)
        self._is_due, self._is_over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread; one that waits for the proxy ends with the program."""
        self._is_over = True
        self._is_due.set()

    def read_now(self) -> None:
        """Read the state at once."""
        self._is_due.set()

    def wake(self) -> None:
        """Make `wake_fd` readable."""
        with suppress(BlockingIOError):  # it is full, so readable
            os.write(self._write_fd, b"x")

    def clear(self) -> None:
        """Make `wake_fd` not readable until the next change."""
        with suppress(BlockingIOError):
            os.read(self.wake_fd, 4096)

    def _run(self) -> None:
        while not self._is_over:
            self._is_due.wait(self._interval_s)
            self._is_due.clear()
            if self._is_over:
                return
            try:
                self.latest, self.problem = take(self._proxy, self._swaps), ""
            except ApiError as error:
                self.problem = _problem(self._proxy.url, error)
            self.wake()


def _problem(url: str, error: ApiError) -> str:
    if error.status:
        return f"retrying: {error}"
    why = str(error).removeprefix(f"no response from {url}: ").partition("; start one by")[0]
    return f"{url} is not reachable, retrying: {why}"
