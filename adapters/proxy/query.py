"""Numbers and times in paths, queries and headers."""

from __future__ import annotations

from datetime import datetime

_MAX_DIGITS = 20  # int() raises an error for more than 4,300; no number here needs 20

#: The largest number that the database holds.
LARGEST = 2**63 - 1


def whole_number(text: str, low: int, high: int) -> int | None:
    """Return the decimal number *text*, or None if it is not one from *low* to *high*."""
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS:
        return None
    number = int(text)
    return number if low <= number <= high else None


def parse_time(text: str) -> float:
    """Return an RFC 3339 time as seconds since 1970.

    Raises:
        ValueError: *text* is no such time, or has no offset from UTC.
    """
    found = datetime.fromisoformat(text.replace(" ", "+"))  # a + that the client did not escape
    if found.tzinfo is None:
        raise ValueError("no offset from UTC")
    return found.timestamp()
