"""Fields and times as they are shown: to people, so without secrets."""

from __future__ import annotations

from datetime import UTC, datetime

from ..http1.asgi_types import Headers

_SECRET = frozenset(
    {
        b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key",
        b"api-key", b"x-auth-token", b"x-goog-api-key",
    }
)  # fmt: skip


def shown_headers(headers: Headers) -> dict[str, str]:
    """Return the first value of each field, names as HTTP/1.1 usually writes them."""
    found: dict[str, str] = {}
    for name, value in headers:
        text = REDACTED if name in _SECRET else value.decode("latin-1")
        found.setdefault(name.decode("latin-1").title(), text)
    return found


def shown_time(at: float) -> str:
    """Return *at*, in seconds since 1970, as RFC 3339 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


#: Stands for a secret where fields are shown.
REDACTED = "[REDACTED]"
