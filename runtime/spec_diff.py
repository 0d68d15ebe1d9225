"""Difference of two specifications of a service, and what it takes to apply it. Pure.

Some changes need nothing of the process, some take effect at its next start, and the others need a
restart. Hooks take effect at the next start: a running process keeps the hooks that it was started
with, so that each hook of a pair comes from the same specification.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from .spec import ServiceSpec

#: same: no change. live: takes effect at once. next_start: takes effect at the next start.
#: restart: the service drains and stops first, and requests wait for its next start.
Difference: TypeAlias = Literal["same", "live", "next_start", "restart"]

_LIVE = ("timings", "pinned", "autostart", "concurrency_limit", "log_limit_bytes", "memory")
_LOOPBACK = frozenset({"localhost", "::1", "0.0.0.0", "::"})


def compare(old: ServiceSpec, new: ServiceSpec) -> Difference:
    """Return what it takes to change a service from *old* to *new*."""
    if old == new:
        return "same"
    if (old.command, old.endpoint, old.chart) != (new.command, new.endpoint, new.chart):
        return "restart"
    return "live" if with_live(old, new) == new else "next_start"


def with_live(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """Return *old* with those parts of *new* that take effect at once."""
    return replace(old, **{name: getattr(new, name) for name in _LIVE})


def address(endpoint: str) -> str:
    """Return host and port of *endpoint*; all names of this machine become ``localhost``."""
    url = urlsplit(endpoint)
    host, port = url.hostname or "localhost", url.port or (443 if url.scheme == "https" else 80)
    is_here = host in _LOOPBACK or host.startswith("127.")
    return f"localhost:{port}" if is_here else f"{host}:{port}"
