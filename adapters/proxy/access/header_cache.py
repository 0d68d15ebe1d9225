"""What was found out about the heads of requests that came before.

A client says the same in each of its requests, but for the length of the body: what follows from
its fields (whether it may pass, what of it goes upstream) is worked out once and kept for a while.
Nothing is kept beyond a change of the configuration, and little of a client that says endless
different things.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from ...http1.asgi_types import Headers, Scope

if TYPE_CHECKING:
    from .admission import Allowed, Denied

_KEPT = 512
_LONGEST_BYTES = 1 << 12  # a longer head is worked out each time


class CachedHeaders:
    """The fields of a request, and what follows from them.

    Attributes:
        content_type: Its Content-Type field, or None.
        verdicts: Identity of a route -> whether the request may pass to it.
        lines: Host of an upstream -> the fields as they go there, without the body's length.
        log_prefix: What the last request with it was, and how a line of the log about it begins
            and ends.
    """

    __slots__ = ("content_type", "lines", "log_prefix", "verdicts")

    def __init__(self, headers: Headers) -> None:
        kinds = (value for name, value in headers if name == b"content-type")
        self.content_type: bytes | None = next(kinds, None)
        self.verdicts: dict[int, Allowed | Denied] = {}
        self.lines: dict[bytes, bytes] = {}
        self.log_prefix: tuple[tuple[str, bytes, str], str, str] | None = None


class HeaderCache:
    """The heads that came lately."""

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, ...], CachedHeaders] = {}

    def of(self, scope: Scope) -> CachedHeaders:
        """Return the head of the request with that ASGI scope."""
        headers: Headers = scope["headers"]
        client, server = scope.get("client"), scope.get("server")
        key = (
            client and client[0], server and server[0],
            *[field for field in headers if field[0] != b"content-length"],
        )  # fmt: skip
        found = self._known.get(key)
        return self._add(key, headers) if found is None else found

    def _add(self, key: tuple[Hashable, ...], headers: Headers) -> CachedHeaders:
        head = CachedHeaders(headers)
        if sum(len(name) + len(value) for name, value in headers) <= _LONGEST_BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = head
        return head
