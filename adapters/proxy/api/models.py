"""Routes that tell what there is, what runs, and what happened."""

from __future__ import annotations

from urllib.parse import parse_qs

from ....runtime import SwapchartError
from ...http1.asgi_types import Send
from ..body.model_name import shown_name
from ..context import ProxyContext
from ..request import Request
from ..responses import send_error, send_json, send_not_good_for, send_unknown_model
from . import model_listing
from .chart_view import chart_view
from .query import whole_number

_HISTORY_LIMIT = 10_000


async def models(proxy: ProxyContext, request: Request, send: Send) -> None:
    """List the models that the client's key is good for."""
    await _send_models(send, model_listing.models(proxy, request.access))


async def router_models(proxy: ProxyContext, request: Request, send: Send) -> None:
    """As `models`, with what clients of llama-server's router look for."""
    await _send_models(send, model_listing.router_models(proxy, request.access))


async def _send_models(send: Send, records: list[model_listing.Record]) -> None:
    await send_json(send, {"object": "list", "data": records})


async def running(proxy: ProxyContext, request: Request, send: Send) -> None:
    """List what runs."""
    rows = proxy.view(request.access).rows(model_listing.running(proxy))
    await send_json(send, {"running": rows})


async def chart(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell the chart that a model runs by, and where in it the model is."""
    name = await _local_name(proxy, request, send)
    if name is not None:
        await send_json(send, chart_view(proxy.supervisor[name]))


async def history(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell the last transitions of a model, the newest first."""
    if proxy.history is None:
        await send_error(request, send, 503, "nothing is remembered here")
        return
    name = await _local_name(proxy, request, send)
    if name is None:
        return
    limit = parse_qs(request.query.decode("latin-1")).get("limit", ["100"])[-1]
    count = whole_number(limit, 1, _HISTORY_LIMIT)
    if count is None:
        message = f"limit: expected 1 to {_HISTORY_LIMIT}, got {shown_name(limit)}"
        await send_error(request, send, 400, message)
        return
    try:
        rows = await proxy.history(name, limit=count)
    except SwapchartError as error:
        await send_error(request, send, 503, str(error))
        return
    view = proxy.view(request.access)
    await send_json(send, {"model": name, "data": [view.row(row) for row in rows]})


async def _local_name(proxy: ProxyContext, request: Request, send: Send) -> str | None:
    """Return the id of the model in the path; None: the client has been told why there is none."""
    name = proxy.catalog.real_name(request.path_suffix)
    if name is None:
        closest = proxy.catalog.closest(request.path_suffix)
        await send_unknown_model(request, send, request.path_suffix, closest)
    elif not proxy.view(request.access).shows(name):
        await send_not_good_for(request, send, request.path_suffix)
        return None
    return name
