"""X-Keep-Alive: the idle limit that a request sets for its model.

Source: the durations are those of ``keep_alive`` in the API of Ollama.
"""

from __future__ import annotations

import math
import re

from ...http1.asgi_types import Headers

NAME = b"x-keep-alive"
_LONGEST_BYTES = 32
_MOST_S = 1e9  # 31 years; a timer takes no more
_UNITS_S = {
    "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9,
}  # fmt: skip
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(f"({_NUMBER})(h|ms|m|s|us|\u00b5s|ns)")
_VALUE = re.compile(f"(-?)(?:({_NUMBER})|((?:{_PART.pattern})+))")


class KeepAliveError(Exception):
    """The header is not valid."""


def keep_alive_of(headers: Headers) -> float | None:
    """Return the idle limit in seconds that *headers* set; infinity is no limit.

    None means that there is no such header; of several the first counts.

    Raises:
        KeepAliveError: The value is neither a number nor a duration.
    """
    for name, value in headers:
        if name == NAME:
            return _seconds(value.strip())
    return None


def _seconds(value: bytes) -> float:
    text = value.decode("utf-8", "replace")
    found = _VALUE.fullmatch(text) if len(value) <= _LONGEST_BYTES else None
    if found is None:
        shown = text if len(text) <= _LONGEST_BYTES else text[:_LONGEST_BYTES] + "..."
        message = (
            f"X-Keep-Alive is {shown!r}; expected seconds such as 300, a duration such as 5m or "
            "1h30m, 0 to unload after the response, or -1 for no idle timeout"
        )
        raise KeepAliveError(message)
    sign, number, parts = found[1], found[2], found[3]
    if number:
        seconds = float(number)
    else:
        seconds = sum(float(amount) * _UNITS_S[unit] for amount, unit in _PART.findall(parts))
    if sign and seconds > 0:
        return math.inf
    return min(seconds, _MOST_S)
