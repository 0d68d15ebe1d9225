"""Durations of chart documents: ``2d``, ``1h30m``, ``500ms``, or a number of seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = r"\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d|w)"
#: Pattern of a duration in words, for the JSON Schema too.
PATTERN = rf"^(?:{_PART}){{1,6}}$"
_WHOLE = re.compile(PATTERN)
_AMOUNT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d|w)")
EXAMPLES = "2d, 1h30m or 500ms"
#: No duration is that long: some 30,000 years.
MOST_S = 1e12


def seconds_of(value: object) -> float | None:
    """Return the seconds of *value*, a text or a number >= 0; None if it is no duration."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < MOST_S else None
    if not isinstance(value, str) or not _WHOLE.match(value):
        return None
    found = sum(float(number) * _UNITS[unit] for number, unit in _AMOUNT.findall(value))
    return found if found < MOST_S else None
