"""Numbers that clients write into paths, queries and header fields."""

from __future__ import annotations

from datetime import datetime

_MOST_DIGITS = 20  # Python refuses to read 4,300; nothing that is counted here needs as many


LARGEST = 2**63 - 1
"""The largest number that the database holds."""


def whole_number(text: str, low: int, high: int) -> int | None:
    """Return the decimal number *text*, or None if it is none or not within *low* and *high*."""
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    return number if low <= number <= high else None


def parse_time(text: str) -> float:
    """Return an RFC 3339 time as seconds since 1970.

    Raises:
        ValueError: It is none, or has no offset.
    """
    found = datetime.fromisoformat(text.replace(" ", "+"))  # a + that was not escaped
    if found.tzinfo is None:
        raise ValueError("no offset from UTC")
    return found.timestamp()
