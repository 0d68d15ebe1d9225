"""Log of refused requests: denied because of their Host or Origin, or rejected by the scheduler.

An operator learns from it which name to add to the configuration, or why requests do not get
through. A client could send any number of names, so each line is logged once an hour, and the
number of lines in a minute is limited.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger("swapchart.proxy")

_MAX_BYTES = 200
_REPEAT_S = 3600.0
_WINDOW_S = 60.0
_MAX_LINES = 20  # in a window


def quoted(value: bytes) -> str:
    """Return the *value* of a header in quotes, on one line and truncated."""
    text = value[:_MAX_BYTES].decode("latin-1")
    more = "..." if len(value) > _MAX_BYTES else ""
    return '"' + text.encode("ascii", "backslashreplace").decode().translate(_PLAIN) + more + '"'


_PLAIN = {code: f"\\x{code:02x}" for code in (*range(32), 34, 92, 127)}


class RefusalLog:
    """Logs each refusal once in a while, and at most 20 lines a minute.

    Args:
        repeat_s: Time in seconds until an equal line is logged again, > 0.
    """

    def __init__(self, repeat_s: float = _REPEAT_S) -> None:
        self._repeat_s = repeat_s
        self._logged_at: dict[str, float] = {}
        self._window = -_WINDOW_S
        self._count = 0  # in this window

    def write(self, code: str, message: str) -> None:
        """Log *message* unless it was logged a short time ago."""
        now = time.monotonic()
        if now - self._window >= _WINDOW_S:
            self._window = now
            self._logged_at = {
                text: at for text, at in self._logged_at.items() if now - at < self._repeat_s
            }
            self._count = 0
        if message in self._logged_at or self._count >= _MAX_LINES:
            return
        self._count += 1
        self._logged_at[message] = now
        log.warning("request refused: %s: %s", code, message)
