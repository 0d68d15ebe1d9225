"""Value of the ``Date`` header (RFC 9110 5.6.7)."""

from __future__ import annotations

import time

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def http_date(at: float | None = None) -> bytes:
    """Return a time in seconds since 1970, now by default; email.utils takes 0.7 MB for that."""
    then = time.gmtime(at)
    day, month = _DAYS[then.tm_wday], _MONTHS[then.tm_mon - 1]
    clock = f"{then.tm_hour:02}:{then.tm_min:02}:{then.tm_sec:02}"
    return f"{day}, {then.tm_mday:02} {month} {then.tm_year:04} {clock} GMT".encode("ascii")
