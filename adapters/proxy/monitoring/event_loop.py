"""Event loop monitor: measures the lag of the loop and logs where it is blocked.

The proxy runs on one event loop. A function that blocks it delays every request and every
deadline, and no code on the loop can report that while it lasts. So a thread observes the loop
as well. Loop and thread each wake up twice a second for this.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from ..histogram import Histogram

log = logging.getLogger("swapchart.loop")

_BEAT_S = 0.5
_BLOCKED_S = 1.0
_LATE_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_FRAMES = 12


class LoopWatch:
    """Measures the lag of an event loop, and logs the stack of its thread while it is blocked.

    Code that holds the interpreter lock, or a stop of the whole process, stops the observing
    thread as well: only the lag shows these.

    Attributes:
        lags: Delays of a timer that is due every half second, in seconds.
        blocked: Number of delays of more than a second.
    """

    def __init__(self) -> None:
        self.lags = Histogram(_LATE_S)
        self.blocked = 0
        self._due = 0.0
        self._is_over = threading.Event()
        self._thread_id = 0

    @contextmanager
    def watching(self) -> Iterator[LoopWatch]:
        """Watch the running event loop until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._is_over.clear()
        self._schedule()
        thread = threading.Thread(target=self._observe, name="swapchart-loop-watch", daemon=True)
        with suppress(RuntimeError, MemoryError):  # without a thread only the lag is measured
            thread.start()
        try:
            yield self
        finally:
            self._beat_handle.cancel()
            self._is_over.set()
            if thread.is_alive():
                thread.join()

    def _schedule(self) -> None:
        self._due = monotonic() + _BEAT_S
        self._beat_handle = self._loop.call_later(_BEAT_S, self._beat)

    def _beat(self) -> None:
        late_s = max(monotonic() - self._due, 0.0)
        self._schedule()
        self.lags.add(late_s)
        if late_s > _BLOCKED_S:
            self.blocked += 1
            log.warning("the event loop was blocked for %.1f s", late_s)

    def _observe(self) -> None:
        reported, observed_at = 0.0, monotonic()
        while not self._is_over.wait(_BEAT_S):
            now, due = monotonic(), self._due
            is_suspended = now - observed_at > _BEAT_S + _BLOCKED_S  # this thread stood still, too
            observed_at = now
            if now - due > _BLOCKED_S and due != reported and not is_suspended:
                reported = due
                log.warning("the event loop is blocked, in:\n%s", self._stack())

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread_id)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
