"""Routes that show logs."""

from __future__ import annotations

from .asgi_types import Send
from .request import Request
from .respond import send_error
from .state import Proxy


async def stream(proxy: Proxy, request: Request, send: Send) -> None:
    """Stream a model's log, or all models' together, until the client leaves."""
    wanted = request.rest.strip("/")
    if wanted in ("", "upstream"):
        ring = proxy.supervisor.log
    else:
        name = proxy.catalogue.real_name(wanted)
        if name is None:
            message = f"invalid log id: {wanted!r} is no model"
            await send_error(request, send, 400, message)
            return
        ring = proxy.supervisor[name].log
    await request.body(1 << 16)
    request.watch()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async for data in ring.stream(history=b"no-history" not in request.query):
        await send({"type": "http.response.body", "body": data, "more_body": True})
