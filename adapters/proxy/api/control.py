"""Routes that stop, start and choose models, and that cancel requests.

Models are stopped aside: nothing else waits for it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ....runtime import RequestError
from ...http1.asgi_types import Send
from ..body.errors import BodyTooLargeError
from ..body.model_name import shown_name
from ..context import ProxyContext
from ..request import Request
from ..responses import send_error, send_json, send_not_good_for, send_text, send_unknown_model
from .query import LARGEST, whole_number

_BODY_BYTES = 1 << 16
_CAUSE = "unloaded by API"


async def health(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Say that the proxy answers; nothing about models."""
    await send_text(send, "OK")


async def version(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Say which program this is."""
    given = proxy.options
    value = {"version": given.version, "commit": given.commit, "build_date": given.build_date}
    await send_json(send, value)


# ---- stopping and starting
async def unload_all(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Stop all models; answers when they are gone."""
    await proxy.supervisor.unload_all(_CAUSE)
    await send_json(send, {"msg": "ok"})


async def unload_all_text(proxy: ProxyContext, request: Request, send: Send) -> None:
    """As `unload_all`, in the words of ``GET /unload``."""
    await proxy.supervisor.unload_all(_CAUSE)
    await send_text(send, "OK")


async def unload(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Stop one model; answers when it is gone."""
    name = await _named(proxy, request, send, request.path_suffix)
    if name is None:
        return
    if await proxy.supervisor.unload(name, _CAUSE):
        await send_text(send, "OK")
    else:
        message = f"model {name} is busy, and is configured not to be stopped then"
        await send_error(request, send, 409, message)


async def router_load(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Begin to load a model, as llama-server's router does; answers at once."""
    name = await _router_model(proxy, request, send)
    if name is None:
        return
    if proxy.supervisor.scheduler.services[name].phase in ("ready", "starting"):
        await send_error(request, send, 400, "model is already running")
        return
    proxy.spawn(_load(proxy, name))
    await send_json(send, {"success": True})


async def router_unload(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Begin to unload a model, as llama-server's router does; answers at once."""
    name = await _router_model(proxy, request, send)
    if name is None:
        return
    if proxy.supervisor.scheduler.services[name].phase == "stopped":
        await send_error(request, send, 400, "model is not running")
        return
    proxy.spawn(proxy.supervisor.unload(name, _CAUSE))
    await send_json(send, {"success": True})


async def _load(proxy: ProxyContext, name: str) -> None:
    try:
        await proxy.supervisor.load(name)
    except RequestError as error:
        proxy.log.warning("%s was to be loaded: %s", name, error)


async def _router_model(proxy: ProxyContext, request: Request, send: Send) -> str | None:
    body = await json_body(request, send)
    if body is None:
        return None
    wanted = body.get("model")
    if not isinstance(wanted, str) or not wanted:
        await send_error(request, send, 400, "expected the name of a model as `model`")
        return None
    return await _named(proxy, request, send, wanted)


async def _named(proxy: ProxyContext, request: Request, send: Send, wanted: str) -> str | None:
    """Return the id of the model called *wanted*; None: the client has been told that none is."""
    name = proxy.catalog.real_name(wanted)
    if name is not None:
        if proxy.view(request.access).shows(name):
            return name
        await send_not_good_for(request, send, wanted)
        return None
    if wanted in proxy.catalog.targets:
        await send_error(request, send, 404, "no local server found for requested model")
        return None
    await send_unknown_model(request, send, wanted, proxy.catalog.closest(wanted))
    return None


# ---- profiles
async def profiles(proxy: ProxyContext, request: Request, send: Send) -> None:
    """List the profiles, and tell which is active."""
    await send_json(send, proxy.profiles.listing())


async def activate_profile(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Make a profile the active one, or none."""
    body = await json_body(request, send)
    if body is None:
        return
    name = body.get("name", 0)
    if name is not None and not isinstance(name, str):
        message = "expected `name`: a profile, or null for none"
        await send_error(request, send, 400, message)
        return
    if name and name not in proxy.profiles:
        await send_error(request, send, 404, f"no such profile: {shown_name(name)}")
        return
    proxy.activate_profile(name or None)
    await send_json(send, {"active": proxy.profiles.active})


# ---- requests in flight
async def cancel(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Cancel a request; its client is told."""
    number = whole_number(request.path_suffix, 1, LARGEST)
    exchange = None if number is None else proxy.in_flight.open.get(number)
    if exchange is None or not proxy.view(request.access).shows(exchange.model):
        message = f"no request in flight has the id {shown_name(request.path_suffix)}"
        await send_error(request, send, 404, message)
        return
    exchange.cancel("the API")
    await send_json(send, {"msg": "ok"})


async def json_body(request: Request, send: Send) -> dict[str, Any] | None:
    """Return the request's JSON object; None: the client has been told what is wrong with it."""
    try:
        value = msgspec.json.decode(await request.body(_BODY_BYTES))
    except BodyTooLargeError as error:
        await send_error(request, send, 413, str(error), headers=[(b"connection", b"close")])
        return None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        await send_error(request, send, 400, f"the body is not valid JSON: {error}")
        return None
    if isinstance(value, dict):
        return value
    await send_error(request, send, 400, "expected a JSON object")
    return None
