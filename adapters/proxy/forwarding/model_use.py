"""Consequences of a request for its model: how long it stays, and whether it still responds."""

from __future__ import annotations

from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..request import Request


def release_model(context: ProxyContext, request: Request, local: LocalModel) -> None:
    """Release *local* after *request*, which may say how long it stays when idle."""
    supervisor, name = context.supervisor, local.definition.id
    cached = request.cached_headers
    if cached is not None and cached.keep_alive_s is not None and name in supervisor:
        supervisor[name].keep_for(cached.keep_alive_s)
    supervisor.release(name)
