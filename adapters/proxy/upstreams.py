"""One upstream: where a model or a peer is reached, and its connection pool."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from ..http1.client.pool import ConnectionPool
from .models.definitions import UpstreamTimeouts

_DEFAULT_CONNECT_S = 30.0


class Upstream:
    """One upstream by its base URL: a pool, and a prefix for paths.

    Args:
        endpoint: Such as ``http://127.0.0.1:5800/base``; a path is put before each target.
        limits: How long things may take.
    """

    __slots__ = ("endpoint", "header_timeout_s", "host", "limits", "pool", "prefix", "stall_s")

    def __init__(self, endpoint: str, limits: UpstreamTimeouts) -> None:
        url = urlsplit(endpoint)
        host, port = url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80)
        context = ssl.create_default_context() if url.scheme == "https" else None
        self.endpoint, self.limits = endpoint, limits
        self.host = url.netloc.rpartition("@")[2].encode()
        self.prefix = url.path.rstrip("/").encode()
        self.header_timeout_s, self.stall_s = limits.header_s, limits.stall_s
        self.pool = ConnectionPool(
            host, port, ssl=context, connect_timeout_s=limits.connect_s or _DEFAULT_CONNECT_S
        )
