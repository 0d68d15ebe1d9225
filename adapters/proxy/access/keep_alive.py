"""Idle limit that a request sets for its model: X-Keep-Alive, or ``keep_alive`` of Ollama's API.

Source: the durations are those of ``keep_alive`` in the API of Ollama.
"""

from __future__ import annotations

import math
import re

from ...http1.asgi_types import Headers
from ...system.durations import seconds_of

NAME = b"x-keep-alive"
_LONGEST_BYTES = 32
_MOST_S = 1e9  # 31 years; a timer takes no more
_NUMBER = re.compile("[0-9]{1,32}(?:\\.[0-9]{0,32})?|\\.[0-9]{1,32}")


class KeepAliveError(Exception):
    """The value is not valid."""


def keep_alive_of(headers: Headers) -> float | None:
    """Return the idle limit in seconds that *headers* set; infinity is no limit.

    None means that there is no such header; of several the first counts.

    Raises:
        KeepAliveError: The value is neither a number nor a duration.
    """
    for name, value in headers:
        if name == NAME:
            return idle_limit("X-Keep-Alive", value.strip().decode("utf-8", "replace"))
    return None


def idle_limit(name: str, text: str) -> float:
    """Return the idle limit in seconds that *text*, the value of *name*, means; infinity is none.

    Raises:
        KeepAliveError: It is neither a number nor a duration.
    """
    seconds = _amount(text.removeprefix("-")) if len(text) <= _LONGEST_BYTES else None
    if seconds is None:
        shown = text if len(text) <= _LONGEST_BYTES else text[:_LONGEST_BYTES] + "..."
        message = (
            f"{name} is {shown!r}; expected seconds such as 300, a duration such as 5m or "
            "1h30m, 0 to unload after the response, or -1 for no idle timeout"
        )
        raise KeepAliveError(message)
    if text.startswith("-") and seconds > 0:
        return math.inf
    return min(seconds, _MOST_S)


def _amount(text: str) -> float | None:
    """Return the seconds of a number, or of a duration; None if it is neither."""
    return float(text) if _NUMBER.fullmatch(text) else seconds_of(text)
