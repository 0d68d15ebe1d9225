"""Durations in Go's notation, such as ``1h30m``: in the configuration and in headers."""

from __future__ import annotations

import re

_UNITS_S = {
    "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6,
    "ns": 1e-9,
}  # fmt: skip
_PART = re.compile("([0-9]{1,32}(?:\\.[0-9]{0,32})?|\\.[0-9]{1,32})(h|ms?|s|[un\u00b5\u03bc]s)")


def seconds_of(text: str) -> float | None:
    """Return the seconds of a duration without sign; None if *text* is not one."""
    seconds, at = 0.0, 0
    while (part := _PART.match(text, at)) is not None:
        seconds += float(part[1]) * _UNITS_S[part[2]]
        at = part.end()
    return seconds if text and at == len(text) else None
