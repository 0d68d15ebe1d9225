"""Consequences of a request for its model: how long it stays, and whether it still responds."""

from __future__ import annotations

from ...http1.client.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from ..context import ProxyContext
from ..models.catalog import LocalModel
from ..request import Request


def release_model(context: ProxyContext, request: Request, local: LocalModel) -> None:
    """Release *local* after *request*, which may say how long it stays when idle."""
    cached = request.cached_headers
    release_kept(context, local, None if cached is None else cached.keep_alive_s)


def release_kept(context: ProxyContext, local: LocalModel, keep_s: float | None) -> None:
    """Release *local*, which stays for *keep_s* seconds when idle; None leaves it its own limit."""
    supervisor, name = context.supervisor, local.definition.id
    if keep_s is not None and name in supervisor:
        supervisor[name].keep_for(keep_s)
    supervisor.release(name)


def note_failure(context: ProxyContext, local: LocalModel, error: UpstreamError) -> None:
    """Report to the lifecycle of *local* that a request failed, if that says something about it.

    Its node may be lost long before the launcher notices: a request notices at once.
    """
    if isinstance(error, UpstreamTimeout):
        note_timeout(context, local, error)
    is_ours = isinstance(error, UpstreamBroken) and error.is_local
    if not is_ours and local.definition.id in context.supervisor:
        context.supervisor[local.definition.id].note_unreachable(str(error))


def note_timeout(context: ProxyContext, local: LocalModel, error: UpstreamTimeout) -> None:
    """Report to the lifecycle of *local* that a response stalled, or has not begun in time.

    ``timeouts.responseHeader`` alone says nothing about the model.
    """
    supervisor, name = context.supervisor, local.definition.id
    if name not in supervisor:
        return
    if error.stage == "body":
        supervisor[name].note_stall()
    elif error.stage == "head":
        limits = context.upstreams.of_model(local.definition).limits
        limit_s = limits.first_byte_s
        if limit_s is not None and (limits.header_s is None or limit_s <= limits.header_s):
            supervisor[name].note_stall(f"a response had not begun after {limit_s:g} s")
