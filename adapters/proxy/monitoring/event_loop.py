"""Watches the event loop: how late it runs what is due, and where it hangs when it does.

Everything here runs on one loop. Whatever blocks it, a function of ours or of a library's, holds
up every request and every deadline, and nothing that runs on it can tell. So a thread looks, too.
It costs two wakeups a second each.
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
    """Measures the lag of an event loop, and logs the stack of its thread when it is blocked.

    What holds Python's own lock, or stops the whole process, stops the looking thread as well:
    that is seen in the lag alone.

    Attributes:
        lags: How late each beat was, in seconds.
        blocked: How often the loop was late by more than a second.
    """

    def __init__(self) -> None:
        self.lags = Histogram(_LATE_S)
        self.blocked = 0
        self._due = 0.0
        self._over = threading.Event()
        self._watched = 0

    @contextmanager
    def watching(self) -> Iterator[LoopWatch]:
        """Watch the running loop for as long as the block lasts."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._over.clear()
        self._plan()
        thread = threading.Thread(target=self._look, name="swapchart-loop-watch", daemon=True)
        with suppress(RuntimeError, MemoryError):  # no thread can be made: only the lag is measured
            thread.start()
        try:
            yield self
        finally:
            self._beat_handle.cancel()
            self._over.set()
            if thread.is_alive():
                thread.join()

    def _plan(self) -> None:
        self._due = monotonic() + _BEAT_S
        self._beat_handle = self._loop.call_later(_BEAT_S, self._beat)

    def _beat(self) -> None:
        late_s = max(monotonic() - self._due, 0.0)
        self._plan()
        self.lags.add(late_s)
        if late_s > _BLOCKED_S:
            self.blocked += 1
            log.warning("the event loop ran nothing for %.1f s", late_s)

    def _look(self) -> None:
        told, looked_at = 0.0, monotonic()
        while not self._over.wait(_BEAT_S):
            now, due = monotonic(), self._due
            has_slept = now - looked_at > _BEAT_S + _BLOCKED_S  # we stood still as well
            looked_at = now
            if now - due > _BLOCKED_S and due != told and not has_slept:
                told = due
                log.warning("the event loop is blocked, in:\n%s", self._stack())

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
