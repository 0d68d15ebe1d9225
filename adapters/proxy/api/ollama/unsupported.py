"""Routes that change models: a pull of a known model succeeds, all others respond 501.

Models are configured, and no file of a model is ever fetched, changed or deleted.
"""

from __future__ import annotations

from contextlib import suppress

from ....http1.asgi_types import Send
from ...body.errors import BodyTooLargeError
from ...body.model_name import quoted_name
from ...context import ProxyContext
from ...request import Request
from ...responses import ApiError, send_api_error, send_bytes, send_error, send_json
from . import bodies
from .bodies import NameBody
from .listing import known_model
from .responder import LINES_TYPE

_SMALL_BYTES = 1 << 16  # of a body that is read although it is refused
_STATUSES = ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")
_REASON = "models are defined in the configuration of swapchart"


async def pull(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Report success for a model that is configured; nothing is downloaded."""
    body = await bodies.read(proxy, request, send, NameBody)
    if body is None:
        return
    try:
        name = bodies.name_in(body)
        known_model(proxy, request, name)
    except ApiError as error:
        await send_api_error(request, send, _not_pulled(name) if error.status == 404 else error)
        return
    if body.stream is False:
        await send_json(send, {"status": "success"})
        return
    lines = "".join(f'{{"status":"{status}"}}\n' for status in _STATUSES)
    await send_bytes(send, 200, lines.encode(), LINES_TYPE)


def _not_pulled(name: str) -> ApiError:
    return ApiError(
        501,
        f"swapchart downloads no models, and {quoted_name(name)} is not configured: get its "
        "files yourself, and add it to `models` in the configuration",
    )


async def push(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to upload a model."""
    await _refuse(request, send, "swapchart uploads no models")


async def create(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to create a model."""
    message = f"swapchart creates no models by its API: {_REASON}, in `models`"
    await _refuse(request, send, message)


async def copy(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to copy a model."""
    message = f"swapchart copies no models: {_REASON}, where `aliases` gives one further names"
    await _refuse(request, send, message)


async def delete(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to delete a model."""
    message = (
        f"swapchart deletes no files of models: {_REASON}; take the model out of `models`, or "
        "unload it with a `keep_alive` of 0"
    )
    await _refuse(request, send, message)


async def blob(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Refuse to store or to look for a file."""
    await _refuse(request, send, "swapchart stores no files of models")


async def _refuse(request: Request, send: Send, message: str) -> None:
    with suppress(BodyTooLargeError):  # some servers close a connection with an unread body
        await request.body(_SMALL_BYTES)
    await send_error(request, send, 501, message)
