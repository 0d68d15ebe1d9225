"""Where websockets may go: below ``/upstream/<model>`` and ``/comfyui``."""

from __future__ import annotations

from ...http1.asgi_types import Receive, Scope, Send
from ...http1.server.client_stream import TUNNEL
from ..access.admission import Allowed, Denied
from ..access.keep_alive import KeepAliveError, keep_alive_of
from ..access.rights import missing_model
from ..body.errors import BadBodyError
from ..context import ProxyContext
from ..forwarding.start_rules import split_autoload
from ..forwarding.websocket import Client, HandshakeRejectedError, Opening, refusal, tunnel
from ..forwarding.websocket_stream import StreamClient
from ..models.catalog import LocalModel
from ..models.resolver import ResolvedModel
from ..request import Request
from ..responses import LOGGED_REFUSALS
from ..routing import Content, Operation, Route, RouteTable
from .passthrough import (
    COMFYUI,
    LOADS_AND_ANYTHING,
    bad_path,
    comfyui,
    forbidden,
    split_model,
    upstream,
)

_OPERATION = Operation(
    summary="Open a websocket to the model's server",
    responses=(Content(101, "The tunnel is open."),),
)

ROUTES = RouteTable(
    (
        Route(
            method="*", path="/upstream/*", handler=upstream, access="any", subject="models",
            changes=LOADS_AND_ANYTHING, operation=_OPERATION,
        ),
        Route(
            method="*", path="/comfyui/*", handler=comfyui, access="infer", subject="models",
            changes=LOADS_AND_ANYTHING, operation=_OPERATION,
        ),
    )
)  # fmt: skip


async def serve(proxy: ProxyContext, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one websocket, after the same checks as for a request."""
    client = await _client(scope, receive, send)
    try:
        opening = _opening(proxy, scope, receive)
    except HandshakeRejectedError as error:
        if error.status in LOGGED_REFUSALS:
            request = Request({**scope, "method": "GET"}, receive)
            proxy.refusals.write(
                error.code, str(error), request_id=request.request_id, client=request.client or ""
            )
        await client.refuse(error)
        client.close()
        return
    await tunnel(proxy, scope, client, opening)


async def _client(scope: Scope, receive: Receive, send: Send) -> Client:
    stream = (scope.get("extensions") or {}).get(TUNNEL)
    if stream is not None:
        return StreamClient(scope, stream)
    from ..forwarding.websocket_messages import MessageClient

    await receive()  # websocket.connect
    return MessageClient(scope, receive, send)


def _opening(proxy: ProxyContext, scope: Scope, receive: Receive) -> Opening:
    route, _ = ROUTES.find("GET", scope["path"])
    verdict = proxy.admission.admit(scope, route)
    if isinstance(verdict, Denied):
        raise refusal(verdict.status, verdict.message, verdict.code or None)
    if route is None:
        raise refusal(404, f"no such route for websockets: {scope['path']}")
    target = Request({**scope, "method": "GET"}, receive).target
    path, mark, query = target.partition(b"?")
    if bad_path(path):
        raise refusal(400, "the path has a malformed escape, or a NUL")
    try:
        keep_s = keep_alive_of(scope["headers"])
    except KeepAliveError as error:
        raise refusal(400, str(error)) from error
    resolved, rest = _find(proxy, path, verdict)
    local = resolved.target if isinstance(resolved.target, LocalModel) else None
    ignores = local is not None and local.definition.ignores_websockets
    target = proxy.removed_keys(resolved.target).target_without_keys(rest + mark + query)
    autoload = None
    if local is not None:  # a peer starts its models itself
        try:
            target, autoload = split_autoload(target)
        except BadBodyError as error:
            raise refusal(400, str(error)) from error
    shows = proxy.view(verdict.access).text
    may_start = autoload is not False
    return Opening(resolved, target, ignores, verdict.access.client, shows, keep_s, may_start)


def _find(proxy: ProxyContext, path: bytes, verdict: Allowed) -> tuple[ResolvedModel, bytes]:
    if path.startswith(b"/comfyui/"):
        local = proxy.catalog.local(COMFYUI)
        found = None if local is None else (ResolvedModel(local), path.removeprefix(b"/comfyui"))
        is_allowed = verdict.access.allows_model(COMFYUI)
        why_not = "" if is_allowed else missing_model(COMFYUI)
    else:
        found = split_model(proxy, path.removeprefix(b"/upstream/"))
        why_not = "" if found is None else forbidden(verdict.access, path, *found)
    if found is None:
        raise refusal(404, "model not found", "model_not_found")
    if why_not:
        raise refusal(403, why_not)
    return found
