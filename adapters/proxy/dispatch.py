"""The way of a request to a model: make it ready, relay, release; every outcome is answered.

For a ready model it is short on purpose: two dictionary look-ups, one step of the chart, one
exchange with the upstream. Nothing is logged or stored on it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

from ...runtime import RequestError
from ..headers import HeaderError
from ..upstream import UpstreamError, UpstreamTimeout
from .asgi_types import Send
from .auth import CREDENTIALS
from .model_field import BadBodyError, model_of
from .relay import Exchange, relay
from .request import BodyTooLargeError, Request
from .respond import send_error, send_unknown_model
from .state import Proxy

log = logging.getLogger(__name__)

_NOTHING: frozenset[bytes] = frozenset()


async def json_request(proxy: Proxy, request: Request, send: Send) -> None:
    """Serve a route whose body names the model."""
    assert request.route is not None, "reached by its route"
    try:
        body = await request.body(proxy.options.json_limit_bytes)
        wanted, _ = model_of(body)
    except BodyTooLargeError as error:
        await send_error(request, send, 413, str(error), headers=[(b"connection", b"close")])
        return
    except BadBodyError as error:
        await send_error(request, send, 400, str(error))
        return
    if not wanted:
        message = "no model id could be identified: `model` is missing"
        await send_error(request, send, 400, message)
        return
    catalogue = proxy.catalogue
    name = catalogue.real_name(wanted)
    if name is None:
        await send_unknown_model(request, send, wanted, catalogue.closest(wanted))
        return
    if not request.access.allows_model(wanted, name):
        await send_forbidden_model(request, send, wanted)
        return
    body = catalogue.rewrite(name, wanted, body)
    cut, target = request.route.cut, request.target
    await serve(proxy, request, send, name, target.removeprefix(cut) if cut else target, body)


async def send_forbidden_model(request: Request, send: Send, wanted: str) -> None:
    """Say that the key of *request* is not good for model *wanted*."""
    await send_error(request, send, 403, f"forbidden: this API key is not good for {wanted!r}")


async def serve(
    proxy: Proxy, request: Request, send: Send, name: str, target: bytes,
    body: bytes | AsyncIterator[bytes] | None,
) -> None:  # fmt: skip
    """Make model *name* ready, relay, release; every outcome is answered."""
    exchange = Exchange(name, request.path, perf_counter())
    supervisor = proxy.supervisor
    request.watch()
    try:
        if not supervisor.acquire_nowait(name):
            await supervisor.acquire(name, priority=proxy.catalogue.priority(name))
    except RequestError as error:
        await send_refused(request, send, error)
        return
    try:
        exchange.admitted = perf_counter()
        await relay(
            request, send, proxy.upstream_of(name), target, body, exchange,
            strip=_NOTHING if proxy.gate.ring.is_empty else CREDENTIALS,
            header_timeout_s=proxy.catalogue.header_timeout_s(name),
            stall_s=proxy.catalogue.cards[name].stall_s,
            trust_forwarded=proxy.options.trust_forwarded,
        )  # fmt: skip
    except HeaderError as error:
        await send_error(request, send, 400, str(error))
        exchange.status = 400
    except UpstreamError as error:
        if exchange.status:
            if isinstance(error, UpstreamTimeout) and name in supervisor:
                supervisor[name].note_stall()
            log.warning("%s broke off after %d bytes: %s", name, exchange.sent_bytes, error)
            raise
        status = 504 if isinstance(error, UpstreamTimeout) else 502
        message = f"the server of {name} failed: {error}"
        await send_error(request, send, status, message, code=f"upstream_{error.stage}")
        exchange.status = status
    finally:
        supervisor.release(name)
        if proxy.on_finished is not None:
            proxy.on_finished(exchange)


async def send_refused(request: Request, send: Send, error: RequestError) -> None:
    """Say why a request was not admitted."""
    details: dict[str, Any] = {"log": list(error.log_tail)} if error.log_tail else {}
    await send_error(
        request, send, error.status_hint, str(error), code=error.code,
        retry_after_s=error.retry_after_s, details=details,
    )  # fmt: skip
