"""Pass-through routes: ``/upstream/<model>/<path>``, and ComfyUI."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ...http1.asgi_types import Send
from ..access.rights import missing_model, missing_scope
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..forwarding.forwarding import Forwarding
from ..models.catalog import LocalModel, PeerModel
from ..models.resolver import ResolvedModel
from ..options import Access, KeyScope
from ..request import Request
from ..responses import send_error, send_text, send_unknown_model
from .inference_paths import MODEL_PATHS, is_comfyui_use, is_inference

COMFYUI = "comfyui_auto"

#: What a request that is passed through may change.
LOADS_AND_ANYTHING = "loads the model, may evict others; what the model's server allows"
_UPSTREAM = b"/upstream/"
_WHOLE_PEER = (
    "forbidden: below /upstream this is about the whole peer, and the API key is for some models "
    "(`models` in `apiKeys`): ask at the path of the API, with the model's name in the body"
)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")


def bad_path(path: bytes) -> bool:
    """Return True if *path* has a malformed percent-encoding, or an encoded NUL."""
    return _BAD_ESCAPE.search(path) is not None


async def upstream(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Forward any request to a model's server; its percent-encoding stays as it is."""
    path, mark, query = request.target.partition(b"?")
    if bad_path(path):
        await send_error(request, send, 400, "the path has a malformed escape, or a NUL")
        return
    rest = path[len(_UPSTREAM) :]
    found = split_model(proxy, rest)
    if found is None:
        wanted = unquote_to_bytes(rest.partition(b"/")[0]).decode("utf-8", "replace")
        await send_unknown_model(request, send, wanted, proxy.catalog.closest(wanted))
        return
    resolved, remainder = found
    if not remainder:
        await redirect_to_slash(request, send, path, mark + query)
        return
    why_not = forbidden(request.access, path, resolved, remainder, request.method)
    if why_not:
        await send_error(request, send, 403, why_not)
        return
    if await _reject_visit(proxy, request, send, remainder):
        return
    target = resolved.target
    is_loaded = not isinstance(target, LocalModel) or _is_ready(proxy, target.definition.id)
    if not is_loaded and proxy.catalog.is_ignored(remainder):
        message = f"model {target.id} is not loaded; path matches upstream.ignorePaths"
        await send_error(request, send, 409, message)
        return
    await pass_on(proxy, request, send, resolved, remainder, mark + query)


async def comfyui_root(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Redirect to ComfyUI's folder."""
    _, mark, query = request.target.partition(b"?")
    await redirect_to_slash(request, send, b"/comfyui", mark + query)


async def comfyui(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Forward any request to the model ``comfyui_auto``; only its first page loads it."""
    path, mark, query = request.target.partition(b"?")
    if bad_path(path):
        await send_error(request, send, 400, "the path has a malformed escape, or a NUL")
        return
    target = proxy.catalog.local(COMFYUI)
    if target is None or target.definition.id != COMFYUI:
        await send_error(request, send, 404, f"there is no model {COMFYUI}", code="model_not_found")
        return
    if not request.access.allows_model(COMFYUI):
        await send_error(request, send, 403, missing_model(COMFYUI))
        return
    rest = path[len(b"/comfyui") :]
    if "admin" not in request.access.scopes and not is_comfyui_use(request.method, _text(rest)):
        why_not = missing_scope(("admin",), request.access.scopes)
        await send_error(request, send, 403, why_not)
        return
    if await _reject_visit(proxy, request, send, rest):
        return
    if rest != b"/" and not _is_ready(proxy, COMFYUI):
        message = f"model {COMFYUI} is not loaded; only /comfyui/ can start it"
        await send_error(request, send, 409, message)
        return
    await pass_on(proxy, request, send, ResolvedModel(target), rest, mark + query)


async def pass_on(
    proxy: ProxyContext,
    request: Request,
    send: Send,
    resolved: ResolvedModel,
    path: bytes,
    query: bytes,
) -> None:
    """Forward a request whose body is not read."""
    text = path.decode("latin-1")
    forwarding = Forwarding(proxy, request, resolved, text, path + query)
    forwarding.record.is_metered = request.method == "POST" and text in MODEL_PATHS
    forwarding.body = body = await request.body_or_stream()
    if isinstance(body, bytes):
        forwarding.record.body = body
    await forwarding.run(send)


def forbidden(
    access: Access, path: bytes, resolved: ResolvedModel, remainder: bytes, method: str = "GET"
) -> str:
    """Return why a key does not allow *remainder* of a model; empty if it does.

    Args:
        access: What the key allows.
        path: Path as sent; begins with ``/upstream/``.
        resolved: The model that *path* names.
        remainder: Part of *path* after the name.
        method: Method of the request; GET for a websocket.
    """
    target = resolved.target
    scope: KeyScope = "infer" if is_inference(method, _text(remainder)) else "admin"
    if scope not in access.scopes:
        return missing_scope((scope,), access.scopes)
    named = path[len(_UPSTREAM) : len(path) - len(remainder)]
    wanted = unquote_to_bytes(named).decode("utf-8", "replace")
    if not access.allows_model(wanted, target.requested_name, target.id):
        return missing_model(quoted_name(wanted))
    if access.models is not None and isinstance(target, PeerModel):
        return _WHOLE_PEER  # a peer may serve other models there, and its own API
    return ""


async def _reject_visit(
    proxy: ProxyContext, request: Request, send: Send, remainder: bytes
) -> bool:
    """Reject a click on another site's link, unless it opens a model's first page."""
    if not request.access.is_visit:
        return False
    if request.method in ("GET", "HEAD") and remainder == b"/":
        return False
    refusal = proxy.admission.cross_site(request.headers)
    await send_error(request, send, refusal.status, refusal.message, code=refusal.code)
    return True


def _text(path: bytes) -> str:
    return path.decode("latin-1")


def _is_ready(proxy: ProxyContext, name: str) -> bool:
    return proxy.supervisor.scheduler.services[name].phase == "ready"


async def redirect_to_slash(request: Request, send: Send, path: bytes, query: bytes) -> None:
    """Redirect to the same path with a slash at its end."""
    await redirect(request, send, path + b"/" + query)


async def redirect(request: Request, send: Send, location: bytes) -> None:
    """Redirect permanently to the target *location*; other methods than GET keep their body."""
    status = 301 if request.method in ("GET", "HEAD") else 308
    location = request.root_path + location
    await send_text(send, "see the location\n", status, [(b"location", location)])


def split_model(proxy: ProxyContext, rest: bytes) -> tuple[ResolvedModel, bytes] | None:
    """Split ``model/path`` after the longest prefix that names a model; None if none does.

    The prefix is decoded once, to look the name up; the rest stays as it is. No more segments are
    tried than the name with the most slashes has.
    """
    pins, targets = proxy.profiles.pins, proxy.catalog.targets
    segments = rest.split(b"/", proxy.catalog.most_slashes + 1)
    del segments[proxy.catalog.most_slashes + 1 :]
    for count in range(len(segments), 0, -1):
        prefix = b"/".join(segments[:count])
        public = unquote_to_bytes(prefix).decode("utf-8", "replace")
        name = pins.get(public, public)
        if not name and public in pins:
            return None
        target = targets.get(name or "")
        if target is not None:
            return ResolvedModel(target), rest[len(prefix) :]
    return None
