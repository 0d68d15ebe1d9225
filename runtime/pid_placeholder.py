"""The placeholder ``${PID}`` of commands and hooks.

No other module fills it in.
"""

from __future__ import annotations

from typing import AnyStr

_PLACEHOLDER = "${PID}"


def fill_pid(text: AnyStr, pid: int | None) -> AnyStr:
    """Return *text* with *pid* in place of each ``${PID}``; None removes the placeholder."""
    value = "" if pid is None else str(pid)
    if isinstance(text, bytes):
        return text.replace(_PLACEHOLDER.encode(), value.encode())
    return text.replace(_PLACEHOLDER, value)
