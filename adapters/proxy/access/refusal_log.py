"""The log of requests that were refused for their Host or Origin.

Whoever runs the proxy learns from it which name to add. A client could send endless names, so each
line is logged once in a while, and few lines altogether.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger("swapchart.proxy")

_SHOWN_BYTES = 200
_AGAIN_S = 3600.0
_WINDOW_S = 60.0
_LINES = 20  # in a window


def shown(value: bytes) -> str:
    """Return a header field's *value* on one line and shortened, in quotes."""
    text = value[:_SHOWN_BYTES].decode("latin-1")
    more = "..." if len(value) > _SHOWN_BYTES else ""
    return '"' + text.encode("ascii", "backslashreplace").decode().translate(_PLAIN) + more + '"'


_PLAIN = {code: f"\\x{code:02x}" for code in (*range(32), 34, 92, 127)}


class RefusalLog:
    """Logs each refusal once an hour, and at most 20 lines a minute."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._window = -_WINDOW_S
        self._count = 0  # in this window

    def take(self, code: str, message: str) -> None:
        """Log *message* unless it was logged lately."""
        now = time.monotonic()
        if now - self._window >= _WINDOW_S:
            self._window = now
            self._told = {text: at for text, at in self._told.items() if now - at < _AGAIN_S}
            self._count = 0
        if message in self._told or self._count >= _LINES:
            return
        self._count += 1
        self._told[message] = now
        log.warning("request refused: %s: %s", code, message)
