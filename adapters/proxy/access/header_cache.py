"""Cache of decisions derived from request headers.

A client sends the same headers with each of its requests, except for the length of the body and
the id of the request. So admission and the headers to forward are computed once and kept until the
configuration changes. The cache is bounded: it is cleared when it is full, and long headers are not
cached.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import TYPE_CHECKING

from ...http1.asgi_types import Headers, Scope
from ...http1.request_id import FIELD as REQUEST_ID_FIELD
from .keep_alive import KeepAliveError, keep_alive_of

if TYPE_CHECKING:
    from .admission import Allowed, Denied

_VARYING = frozenset({b"content-length", REQUEST_ID_FIELD})
_MAX_ENTRIES = 512
_MAX_HOSTS = 16  # upstreams for which the lines of one set of headers are kept
_MAX_BYTES = 1 << 12  # longer headers are not cached
_generations = itertools.count(1)


class CachedHeaders:
    """Decisions derived from the headers of a request.

    Attributes:
        content_type: Value of Content-Type, or None.
        keep_alive_s: Idle limit in seconds that X-Keep-Alive sets, infinity for none; None without
            the header.
        keep_alive_error: What is wrong with that header; empty if nothing is.
        verdicts: Identity of a route -> whether the request is admitted.
        lines: Host of an upstream -> the headers to forward, without the body's length
            and the id of the request.
        lines_with_keys: The same for models that get the API keys of clients.
        session: Session of the client, or ""; None before it was looked for.
        log_prefix: Method, path and HTTP version of the last request with these headers, and the
            beginning and the end of its line in the access log.
    """

    __slots__ = (
        "content_type", "keep_alive_error", "keep_alive_s", "lines", "lines_with_keys",
        "log_prefix", "session", "verdicts",
    )  # fmt: skip

    def __init__(self, headers: Headers) -> None:
        kinds = (value for name, value in headers if name == b"content-type")
        self.content_type: bytes | None = next(kinds, None)
        self.keep_alive_s: float | None = None
        self.keep_alive_error = ""
        try:
            self.keep_alive_s = keep_alive_of(headers)
        except KeepAliveError as error:
            self.keep_alive_error = str(error)
        self.verdicts: dict[int, Allowed | Denied] = {}
        self.lines: dict[bytes, bytes] = {}
        self.lines_with_keys: dict[bytes, bytes] = {}
        self.session: str | None = None
        self.log_prefix: tuple[tuple[str, bytes, str], bytes, bytes] | None = None

    def add_lines(self, host: bytes, lines: bytes, *, passes_keys: bool) -> None:
        """Keep *lines* for requests to the upstream *host*."""
        known = self.lines_with_keys if passes_keys else self.lines
        if len(known) >= _MAX_HOSTS:
            known.clear()
        known[host] = lines


class HeaderCache:
    """The headers of recent requests, with the decisions derived from them.

    Attributes:
        generation: Number of the cache; a later one has a greater number.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Hashable, ...], CachedHeaders] = {}
        self.generation = next(_generations)

    def of(self, scope: Scope) -> CachedHeaders:
        """Return the entry for the headers of the request with that ASGI scope."""
        headers: Headers = scope["headers"]
        client, server = scope.get("client"), scope.get("server")
        key = (
            client and client[0], server and server[0],
            *[field for field in headers if field[0] not in _VARYING],
        )  # fmt: skip
        found = self._known.get(key)
        return self._add(key, headers) if found is None else found

    def _add(self, key: tuple[Hashable, ...], headers: Headers) -> CachedHeaders:
        entry = CachedHeaders(headers)
        if sum(len(name) + len(value) for name, value in headers) <= _MAX_BYTES:
            if len(self._known) >= _MAX_ENTRIES:
                self._known.clear()
            self._known[key] = entry
        return entry
