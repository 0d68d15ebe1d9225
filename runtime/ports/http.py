"""HTTP client: makes the calls of hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...dataclass import dataclass, field
from ..arguments import (
    require_count,
    require_kind,
    require_name,
    require_texts_by_name,
    require_url,
)
from ..errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One HTTP request of a hook.

    Attributes:
        method: HTTP method, such as ``POST``.
        url: Absolute ``http`` or ``https`` URL, from the configuration only.
        headers: Headers of the request, sent unchanged.
        body: Request body, or None.
        expect: Status codes that count as success; empty means any 2xx.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    expect: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check the fields; the URL must be absolute.

        Raises:
            ConfigError: A field has a wrong type or value.
        """
        require_name("call.method", self.method)
        require_url("call.url", self.url)
        require_texts_by_name("call.headers", self.headers)
        if not isinstance(self.body, (bytes, type(None))):
            found = type(self.body).__name__
            raise ConfigError("call.body", f"expected bytes or None, got a {found}")
        require_kind("call.expect", self.expect, (frozenset, set, list, tuple), "a set of statuses")
        for status in self.expect:
            require_count("an item of call.expect", status, 100)


class HttpClient(Protocol):
    """Makes the HTTP calls of hooks, without redirects, cookies or proxies of the environment."""

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Make *call* and return the status and at most 64 KiB of the body.

        Raises:
            OSError: The server was not reached, or did not respond in time.
        """
        ...
