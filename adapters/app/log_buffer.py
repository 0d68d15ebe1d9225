"""Ring buffer with the proxy's own log, for clients of `/logs`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...runtime import LogRing

_LOGGER = "swapchart"
_LINE = "%(asctime)s [%(levelname)s] %(message)s"
_BYTES = 1 << 20
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127)}


class RingHandler(logging.Handler):
    """Writes log records into a ring, one line each; control characters are escaped.

    Rings belong to the thread of the event loop, so records of other threads are handed over to
    the loop in which the handler was made.
    """

    def __init__(self, ring: LogRing) -> None:
        super().__init__(logging.INFO)
        self.ring = ring
        self._home = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self.setFormatter(logging.Formatter(_LINE))

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; never raises."""
        try:
            text = self.format(record).translate(_CONTROL)
        except Exception:  # noqa: BLE001 - a log line must not end what it reports
            self.handleError(record)
            return
        line = text.replace("\n", "\n    ")
        if self._loop is None or threading.get_ident() == self._home:
            self.ring.line(line)
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.ring.line, line)


@contextmanager
def keeping_log(ring: LogRing | None = None) -> Iterator[LogRing]:
    """Collect the log of our modules in a ring for the duration of the block; yields the ring."""
    handler = RingHandler(ring or LogRing(_BYTES))
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield handler.ring
    finally:
        logger.removeHandler(handler)
