"""The proxy's own log as clients may read it: a ring beside whatever else logging writes to."""

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
    """Writes records into a ring, one line each; what would break or paint lines is escaped.

    What another thread logs is written by the thread of the loop that it was made in: rings
    belong to that.
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
        except Exception:  # noqa: BLE001 - a log line must not end what it tells about
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
    """Keep what our modules log, while the block lasts; gives the ring."""
    handler = RingHandler(ring or LogRing(_BYTES))
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield handler.ring
    finally:
        logger.removeHandler(handler)
