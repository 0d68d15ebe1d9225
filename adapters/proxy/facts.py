"""Routes that tell what there is, what runs, and what happened."""

from __future__ import annotations

from urllib.parse import parse_qs

from ...runtime import SwapchartError
from . import listing
from .asgi_types import Send
from .drawn import chart_value
from .request import Request
from .respond import send_error, send_json, send_unknown_model
from .state import Proxy

_HISTORY_LIMIT = 10_000


async def models(proxy: Proxy, request: Request, send: Send) -> None:
    """List the models that the client's key is good for (section 5.9)."""
    await _send_models(proxy, request, send, listing.models(proxy))


async def router_models(proxy: Proxy, request: Request, send: Send) -> None:
    """As `models`, with what clients of llama-server's router look for."""
    await _send_models(proxy, request, send, listing.router_models(proxy))


async def _send_models(
    proxy: Proxy, request: Request, send: Send, records: list[listing.Record]
) -> None:
    allows = request.access.allows_model
    data = [record for record in records if allows(record["id"])]
    await send_json(send, {"object": "list", "data": data})


async def running(proxy: Proxy, request: Request, send: Send) -> None:
    """List what runs (section 5.10)."""
    await send_json(send, {"running": listing.running(proxy)})


async def chart(proxy: Proxy, request: Request, send: Send) -> None:
    """Tell the chart that a model runs by, and where in it the model is."""
    name = await _local_name(proxy, request, send)
    if name is not None:
        await send_json(send, chart_value(proxy.supervisor[name]))


async def history(proxy: Proxy, request: Request, send: Send) -> None:
    """Tell the last transitions of a model, the newest first."""
    if proxy.history is None:
        await send_error(request, send, 503, "nothing is remembered here")
        return
    name = await _local_name(proxy, request, send)
    if name is None:
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


async def _local_name(proxy: Proxy, request: Request, send: Send) -> str | None:
    """Return the id of the model in the path; None: the client has been told that there is none."""
    name = proxy.catalogue.real_name(request.rest)
    if name is None:
        closest = proxy.catalogue.closest(request.rest)
        await send_unknown_model(request, send, request.rest, closest)
    return name
