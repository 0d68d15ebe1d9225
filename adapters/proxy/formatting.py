"""Headers and times for display: secrets are redacted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ..http1.asgi_types import Headers

_SECRET = frozenset(
    {
        b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key",
        b"api-key", b"x-auth-token", b"x-goog-api-key",
    }
)  # fmt: skip


def redacted_headers(headers: Headers) -> dict[str, str]:
    """Return the first value of each header; names in the usual capitalization of HTTP/1.1."""
    found: dict[str, str] = {}
    for name, value in headers:
        text = REDACTED if name in _SECRET else value.decode("latin-1")
        found.setdefault(name.decode("latin-1").title(), text)
    return found


def plain_names(names: Iterable[str]) -> tuple[bytes, ...]:
    """Return *names* of headers in lower case, without those whose values are secret."""
    found = [name.lower().encode() for name in names]
    return tuple(name for name in found if name not in _SECRET)


def rfc3339(at: float) -> str:
    """Return *at*, in seconds since 1970, as RFC 3339 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


#: Replaces the value of a secret header.
REDACTED = "[REDACTED]"
