"""Log of refused requests: denied for their key, Host or Origin, or rejected by the scheduler.

An operator learns from it which key or name to add to the configuration, or why requests do not get
through. A client could send any number of names, so each line is logged once an hour for each
client, and the number of lines in a minute is limited.
"""

from __future__ import annotations

import logging
import time

from ...system.log_facts import log_event

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
        self._logged_at: dict[tuple[str, str], float] = {}
        self._window = -_WINDOW_S
        self._count = 0  # in this window

    def write(
        self, code: str, message: str, *, request_id: bytes, client: str = "", model: str = ""
    ) -> None:
        """Log a refusal unless it was logged a short time ago.

        Args:
            code: Reason for programs.
            message: Reason for people.
            request_id: Id of the request.
            client: Address of the client, if the line is for one of them.
            model: Name of the model, if the refusal is about one.
        """
        now = time.monotonic()
        if now - self._window >= _WINDOW_S:
            self._window = now
            self._logged_at = {
                line: at for line, at in self._logged_at.items() if now - at < self._repeat_s
            }
            self._count = 0
        if (message, client) in self._logged_at or self._count >= _MAX_LINES:
            return
        self._count += 1
        self._logged_at[message, client] = now
        reason = message if message.startswith(f"{code}:") else f"{code}: {message}"
        facts = {
            "event": "refused", "reason": code, "model": model, "client": client,
            "request": request_id.decode("ascii"),
        }  # fmt: skip
        unshown = ("event", "reason", "model")
        log_event(log, logging.WARNING, f"request refused: {reason}", facts, unshown=unshown)
