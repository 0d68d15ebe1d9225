"""Routes that tell what there is and runs, and that stop it."""

from __future__ import annotations

from urllib.parse import parse_qs

from ...runtime import SwapchartError
from . import listing
from .asgi_types import Send
from .request import Request
from .respond import send_error, send_json, send_text, send_unknown_model
from .state import Proxy

_HISTORY_LIMIT = 10_000


async def health(proxy: Proxy, request: Request, send: Send) -> None:
    """Say that the proxy answers; nothing about models."""
    await send_text(send, "OK")


async def models(proxy: Proxy, request: Request, send: Send) -> None:
    """List the models that the client's key is good for (section 5.9)."""
    value = listing.models(proxy.catalogue, proxy.supervisor)
    allows = request.access.allows_model
    value["data"] = [record for record in value["data"] if allows(record["id"])]
    await send_json(send, value)


async def running(proxy: Proxy, request: Request, send: Send) -> None:
    """List what runs (section 5.10)."""
    await send_json(send, listing.running(proxy.catalogue, proxy.supervisor))


async def unload_all(proxy: Proxy, request: Request, send: Send) -> None:
    """Stop all models; answers when they are gone."""
    await proxy.supervisor.unload_all("unloaded by API")
    await send_json(send, {"msg": "ok"})


async def unload_all_text(proxy: Proxy, request: Request, send: Send) -> None:
    """As `unload_all`, in the words of ``GET /unload``."""
    await proxy.supervisor.unload_all("unloaded by API")
    await send_text(send, "OK")


async def unload(proxy: Proxy, request: Request, send: Send) -> None:
    """Stop one model; answers when it is gone."""
    name = proxy.catalogue.real_name(request.rest)
    if name is None:
        closest = proxy.catalogue.closest(request.rest)
        await send_unknown_model(request, send, request.rest, closest)
        return
    await proxy.supervisor.unload(name, "unloaded by API")
    await send_text(send, "OK")


async def history(proxy: Proxy, request: Request, send: Send) -> None:
    """Tell the last transitions of a model, the newest first."""
    if proxy.history is None:
        await send_error(request, send, 503, "nothing is remembered here")
        return
    name = proxy.catalogue.real_name(request.rest)
    if name is None:
        closest = proxy.catalogue.closest(request.rest)
        await send_unknown_model(request, send, request.rest, closest)
        return
    limit = parse_qs(request.query.decode("latin-1")).get("limit", ["100"])[-1]
    if not limit.isdecimal() or not 1 <= int(limit) <= _HISTORY_LIMIT:
        message = f"limit: expected 1 to {_HISTORY_LIMIT}, got {limit!r}"
        await send_error(request, send, 400, message)
        return
    try:
        rows = await proxy.history(name, limit=int(limit))
    except SwapchartError as error:
        await send_error(request, send, 503, str(error))
        return
    await send_json(send, {"model": name, "data": rows})
