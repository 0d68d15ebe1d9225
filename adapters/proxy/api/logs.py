"""Routes for logs: of the proxy, of all models together, and of each model."""

from __future__ import annotations

from urllib.parse import parse_qs

import anyio

from ....runtime import LogRing
from ...http1.asgi_types import Send
from ..body.model_name import quoted_name
from ..context import ProxyContext
from ..listener_limits import send_too_many
from ..query import LARGEST, whole_number
from ..request import Request
from ..responses import closest_hint, send_error, send_model_forbidden, send_text

_CHUNKS = 32  # of the log that are sent at a time; most have about 2 KiB
_TEXT = b"text/plain; charset=utf-8"


async def history(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send the history of all logs; redirect a browser to the UI."""
    if b"text/html" in (request.header(b"accept") or b""):
        location = [(b"location", request.root_path + b"/ui/")]
        await send_text(send, "see the location\n", 302, location)
        return
    await _send_kept(_rings(proxy, ""), send)


async def _send_kept(rings: list[LogRing], send: Send, start: int | None = None) -> None:
    chunks = [
        chunk
        for ring in rings
        for chunk in (ring.pieces() if start is None else ring.section(start) or ())
    ]
    headers = [(b"content-type", _TEXT), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(chunks), _CHUNKS):  # as the client reads, without a copy of all
        body = b"".join(chunks[start : start + _CHUNKS])
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def stream(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Stream a log until the client disconnects; report lines that it was too slow for.

    With ``no-history`` only later lines are sent, with ``no-follow`` only those that are kept, with
    ``start`` only those of one start of a model, and the response ends with it.
    """
    requested = request.path_suffix.strip("/")
    name = proxy.catalog.real_name(requested)
    if request.access.models is not None and not (
        name is not None and proxy.view(request.access).shows(name)
    ):
        await send_model_forbidden(request, send, requested)
        return
    rings = _rings(proxy, requested)
    if not rings:
        hint = closest_hint(request, proxy.catalog.closest(requested))
        message = f"invalid log id: {quoted_name(requested)} is no model{hint}"
        await send_error(request, send, 400, message)
        return
    start = parse_qs(request.query.decode("latin-1")).get("start", [""])[-1]
    number = _section(proxy, rings, start) if start else None
    if start and number is None:
        message = f"the log of start {quoted_name(start)} is not kept, or there is no such start"
        await send_error(request, send, 404, message)
        return
    if b"no-follow" in request.query:
        await _send_kept(rings, send, number)
        return
    with proxy.listeners.entered(request.access.client) as is_admitted:
        if is_admitted:
            await _stream(proxy, rings, request, send, number)
        else:
            await send_too_many(request, send)


async def _stream(
    proxy: ProxyContext, rings: list[LogRing], request: Request, send: Send, section: int | None
) -> None:
    await request.body(1 << 16)
    request.watch()
    headers = [
        (b"content-type", _TEXT),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    has_history = b"no-history" not in request.query
    lock = anyio.Lock()

    async def follow(ring: LogRing) -> None:
        async for data in ring.stream(history=has_history, section=section):
            async with lock:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        tasks.cancel_scope.cancel()  # the section has ended

    async with anyio.create_task_group() as tasks:
        for ring in rings:
            tasks.start_soon(follow, ring)
        await proxy.wait_ended(request)
        tasks.cancel_scope.cancel()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _section(proxy: ProxyContext, rings: list[LogRing], start: str) -> int | None:
    """Return the section that *start*, the id of a start, means; None if it is not known."""
    run, _, text = start.rpartition(".")
    number = whole_number(text, 0, LARGEST)
    if number is None or run != proxy.run or len(rings) != 1 or rings[0].section(number) is None:
        return None
    return number


def _rings(proxy: ProxyContext, log_id: str) -> list[LogRing]:
    """Return the logs that *log_id* names; empty if there is no such log."""
    upstream = proxy.supervisor.log
    if log_id == "":
        return [proxy.own_log, upstream]
    if log_id == "proxy":
        return [proxy.own_log]
    if log_id == "upstream":
        return [upstream]
    name = proxy.catalog.real_name(log_id)
    return [] if name is None else [proxy.supervisor[name].log]
