"""Routes that load and unload models, activate profiles and cancel requests.

Models are unloaded in tasks of their own: no other request waits for that.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ....runtime import RequestError
from ...http1.asgi_types import Send
from ..body.errors import BodyTooLargeError
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..forwarding.failures import error_details, error_text
from ..query import LARGEST, whole_number
from ..request import Request
from ..responses import ApiError, model_forbidden, send_error
from .handler import ApiHandler
from .models import known_model
from .schema import control as schema

_BODY_LIMIT = 1 << 16  # bytes
_CAUSE = "unloaded by API"


@ApiHandler
async def health(proxy: ProxyContext, request: Request) -> str:
    """Return OK: the proxy responds, whatever the state of its models."""
    return "OK"


@ApiHandler
async def version(proxy: ProxyContext, request: Request) -> schema.Version:
    """Return the version of the program."""
    options = proxy.options
    return schema.Version(
        version=options.version, commit=options.commit, build_date=options.build_date
    )


# ---- loading and unloading
@ApiHandler
async def unload_all(proxy: ProxyContext, request: Request) -> schema.Done:
    """Unload all models, and respond when that is done."""
    proxy.failed_starts.clear()
    await proxy.supervisor.unload_all(_CAUSE)
    return schema.Done()


@ApiHandler
async def unload_all_text(proxy: ProxyContext, request: Request) -> str:
    """Do the same as `unload_all` for ``GET /unload``, whose response is text."""
    proxy.failed_starts.clear()
    await proxy.supervisor.unload_all(_CAUSE)
    return "OK"


@ApiHandler
async def unload(proxy: ProxyContext, request: Request) -> str:
    """Unload one model, and respond when that is done."""
    name = _service_named(proxy, request, request.path_suffix)
    proxy.failed_starts.forget(name)
    if not await proxy.supervisor.unload(name, _CAUSE):
        raise ApiError(409, f"model {name} is busy, and is configured not to be stopped then")
    return "OK"


@ApiHandler
async def load(proxy: ProxyContext, request: Request) -> str:
    """Load one model, and respond when it is ready; goes on if the client leaves."""
    name = _service_named(proxy, request, request.path_suffix)
    proxy.failed_starts.forget(name)
    try:
        await proxy.supervisor.load(name)
    except RequestError as error:
        text = proxy.view(request.access).text(error_text(error, request.access))
        raise ApiError(
            error.status_hint, text, code=error.code, details=error_details(error, request.access)
        ) from error
    return "OK"


@ApiHandler
async def pin(proxy: ProxyContext, request: Request) -> schema.Done:
    """Keep a loaded model until it is unloaded, whatever its idle limit."""
    return _keep(proxy, request, math.inf)


@ApiHandler
async def unpin(proxy: ProxyContext, request: Request) -> schema.Done:
    """Give a loaded model its own idle limit again."""
    return _keep(proxy, request, None)


def _keep(proxy: ProxyContext, request: Request, seconds: float | None) -> schema.Done:
    name = _service_named(proxy, request, request.path_suffix)
    life = proxy.supervisor[name]
    if life.process is None:
        raise ApiError(409, f"model {name} is not loaded")
    life.keep_for(seconds)
    if proxy.change_publisher is not None:
        proxy.change_publisher.models_changed()
    return schema.Done()


@ApiHandler
async def router_load(proxy: ProxyContext, request: Request) -> schema.Accepted:
    """Begin to load a model, as llama-server's router does, and respond at once."""
    name = await _service_in_body(proxy, request)
    if proxy.supervisor.scheduler.services[name].phase in ("ready", "starting"):
        raise ApiError(400, "model is already running")
    proxy.failed_starts.forget(name)
    proxy.spawn(_load(proxy, name))
    return schema.Accepted()


@ApiHandler
async def router_unload(proxy: ProxyContext, request: Request) -> schema.Accepted:
    """Begin to unload a model, as llama-server's router does, and respond at once."""
    name = await _service_in_body(proxy, request)
    if proxy.supervisor.scheduler.services[name].phase == "stopped":
        raise ApiError(400, "model is not running")
    proxy.failed_starts.forget(name)
    proxy.spawn(proxy.supervisor.unload(name, _CAUSE))
    return schema.Accepted()


@ApiHandler
async def router_add(proxy: ProxyContext, request: Request) -> schema.Accepted:
    """Accept the download of a model that is there; llama-server's router downloads others."""
    name = await _name_in_body(request)
    target = proxy.catalog.targets.get(name)
    if target is not None:
        names: tuple[str, ...] = (name, target.requested_name, target.id)
    elif name in proxy.catalog.selectors or proxy.profiles.pins.get(name):
        names = (name,)
    else:
        raise ApiError(
            501,
            f"swapchart downloads no models, and {quoted_name(name)} is not configured: get its "
            "files yourself, and add it to `models` in the configuration",
        )
    if not request.access.allows_model(*names):
        raise model_forbidden(name)
    return schema.Accepted()


async def router_remove(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to delete a model, as llama-server's router does with those of a preset."""
    message = (
        "swapchart deletes no files of models: take the model out of `models` in the "
        "configuration, or unload it with POST /models/unload"
    )
    await send_error(request, send, 501, message)


async def _load(proxy: ProxyContext, name: str) -> None:
    try:
        await proxy.supervisor.load(name)
    except RequestError as error:
        proxy.log.warning("model %s could not be loaded: %s", name, error)


async def _service_in_body(proxy: ProxyContext, request: Request) -> str:
    return _service_named(proxy, request, await _name_in_body(request))


async def _name_in_body(request: Request) -> str:
    name = (await _json_object(request)).get("model")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "expected the name of a model as `model`")
    return name


def _service_named(proxy: ProxyContext, request: Request, name: str) -> str:
    if proxy.catalog.real_name(name) is None and name in proxy.catalog.targets:
        raise ApiError(404, "no local server found for requested model")
    return known_model(proxy, request, name)


# ---- profiles
@ApiHandler
async def profiles(proxy: ProxyContext, request: Request) -> schema.Profiles:
    """Return the profiles and the name of the active one."""
    found = [
        schema.Profile(
            id=item.id, description=item.description,
            pins={name: target or "" for name, target in item.pins.items()},
        )
        for item in proxy.profiles.definitions
    ]  # fmt: skip
    return schema.Profiles(active=proxy.profiles.active, profiles=found)


@ApiHandler
async def activate_profile(proxy: ProxyContext, request: Request) -> schema.ActiveProfile:
    """Activate a profile, or deactivate the active one."""
    name = (await _json_object(request)).get("name", 0)
    if name is not None and not isinstance(name, str):
        raise ApiError(400, "expected `name`: a profile, or null for none")
    if name and name not in proxy.profiles:
        raise ApiError(404, f"no such profile: {quoted_name(name)}")
    proxy.activate_profile(name or None)
    return schema.ActiveProfile(active=proxy.profiles.active)


# ---- requests in flight
@ApiHandler
async def cancel(proxy: ProxyContext, request: Request) -> schema.Done:
    """Cancel a request; its client gets an error."""
    number = whole_number(request.path_suffix, 1, LARGEST)
    record = None if number is None else proxy.in_flight.open.get(number)
    if record is None or not proxy.view(request.access).shows(record.model):
        message = f"no request in flight has the id {quoted_name(request.path_suffix)}"
        raise ApiError(404, message)
    record.cancel("the API")
    return schema.Done()


async def _json_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the request's body.

    Raises:
        ApiError: The body is too large or no JSON object.
    """
    try:
        value = msgspec.json.decode(await request.body(_BODY_LIMIT))
    except BodyTooLargeError as error:
        raise ApiError(413, str(error), headers=[(b"connection", b"close")]) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "expected a JSON object")
    return value
