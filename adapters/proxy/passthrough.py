"""Routes that pass anything on to one model's server: ``/upstream/<model>/<path>``."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from .asgi_types import Send
from .auth import KeyScope
from .catalogue import Catalogue
from .dispatch import send_forbidden_model, serve
from .model_routes import MODEL_PATHS
from .request import Request
from .respond import send_error, send_text, send_unknown_model
from .state import Proxy

_UPSTREAM = b"/upstream/"


async def upstream(proxy: Proxy, request: Request, send: Send) -> None:
    """Pass anything to a model's server, percent-encoding and all."""
    path, mark, query = request.target.partition(b"?")
    rest = path[len(_UPSTREAM) :]
    found = split_model(proxy.catalogue, rest)
    if found is None:
        wanted = unquote_to_bytes(rest.partition(b"/")[0]).decode("utf-8", "replace")
        await send_unknown_model(request, send, wanted, proxy.catalogue.closest(wanted))
        return
    name, remainder = found
    if not remainder:
        await redirect_to_slash(request, send, path, mark + query)
        return
    scope: KeyScope = "infer" if remainder.decode("latin-1") in MODEL_PATHS else "admin"
    if scope not in request.access.scopes:
        message = f"forbidden: this API key has no {scope} scope"
        await send_error(request, send, 403, message)
        return
    if not request.access.allows_model(name):
        await send_forbidden_model(request, send, name)
        return
    if not proxy.supervisor.scheduler.seats[name].is_open and proxy.catalogue.is_ignored(remainder):
        message = f"model {name} is not loaded; path matches upstream.ignorePaths"
        await send_error(request, send, 409, message)
        return
    body = await request.body_or_stream()
    await serve(proxy, request, send, name, remainder + mark + query, body)


async def redirect_to_slash(request: Request, send: Send, path: bytes, query: bytes) -> None:
    """Send the client to the same path with a slash at its end."""
    status = 301 if request.method in ("GET", "HEAD") else 308
    await send_text(send, "see the location\n", status, [(b"location", path + b"/" + query)])


def split_model(catalogue: Catalogue, rest: bytes) -> tuple[str, bytes] | None:
    """Split ``model/path`` at the longest prefix that names a model; bytes stay as they are."""
    segments = rest.split(b"/")
    for count in range(len(segments), 0, -1):
        head = b"/".join(segments[:count])
        name = catalogue.real_name(unquote_to_bytes(head).decode("utf-8", "replace"))
        if name is not None:
            return name, rest[len(head) :]
    return None
