"""What a new declaration of a service means for the one that runs. Pure.

A process does not notice some changes, takes others at its next start, and must go for the rest.
Hooks belong to the second kind: a running incarnation keeps those of its own version, so that
what one of them began is ended by its own counterpart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from .spec import ServiceSpec

if TYPE_CHECKING:
    pass

#: same: nothing changes. live: at once, whatever it does. next_start: at the next start.
#: restart: it drains and stops first, and requests wait for its next start.
Difference: TypeAlias = Literal["same", "live", "next_start", "restart"]

_LIVE = ("timings", "pinned", "concurrency_limit", "log_limit_bytes")
_LOOPBACK = frozenset({"localhost", "::1", "0.0.0.0", "::"})


def compare(old: ServiceSpec, new: ServiceSpec) -> Difference:
    """Say what it takes to make a service that is *old* into *new*."""
    if old == new:
        return "same"
    if (old.command, old.endpoint) != (new.command, new.endpoint):
        return "restart"
    return "live" if with_live(old, new) == new else "next_start"


def with_live(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """Return *old* with everything of *new* that a process does not notice."""
    return replace(old, **{name: getattr(new, name) for name in _LIVE})


def address(endpoint: str) -> str:
    """Return what two services cannot have at a time: host and port; all of this machine is one."""
    url = urlsplit(endpoint)
    host, port = url.hostname or "localhost", url.port or (443 if url.scheme == "https" else 80)
    is_here = host in _LOOPBACK or host.startswith("127.")
    return f"localhost:{port}" if is_here else f"{host}:{port}"
