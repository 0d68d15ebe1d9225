"""Routes about the configuration: what is in force, what a reload would change, and to reload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....runtime import SwapchartError
from ...http1.asgi_types import Send
from ..context import ProxyContext
from ..request import Request
from ..responses import send_error, send_json

_BODY_LIMIT = 1 << 16


async def show(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell where the configuration came from, and how the last reload went."""
    if proxy.config is None:
        await _no_config(request, send)
        return
    await send_json(send, proxy.config.facts())


async def plan(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Read the configuration again and tell what a reload would change; nothing is changed."""
    await request.body(_BODY_LIMIT)
    if proxy.config is None:
        await _no_config(request, send)
        return
    try:
        value = await proxy.config.plan()
    except SwapchartError as error:
        await _wrong(request, send, proxy.config.problems(error))
        return
    await send_json(send, value)


async def reload(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Read the configuration again and apply it; answers when that is done.

    A reload that is under way is followed by another: what was saved before this request counts.
    """
    await request.body(_BODY_LIMIT)
    if proxy.config is None:
        await _no_config(request, send)
        return
    try:
        report = await proxy.config.reload("asked by API")
    except SwapchartError as error:
        await send_error(request, send, 503, str(error), code="shutting_down")
        return
    if report["ok"]:
        await send_json(send, report)
    else:
        await _wrong(request, send, report["problems"])


async def _no_config(request: Request, send: Send) -> None:
    await send_error(request, send, 503, "there is no configuration to read again")


async def _wrong(request: Request, send: Send, problems: Sequence[dict[str, Any]]) -> None:
    errors = [problem for problem in problems if problem["severity"] == "error"]
    count = f"{len(errors)} error{'' if len(errors) == 1 else 's'}"
    message = f"nothing was changed: {count}: {'; '.join(p['text'] for p in errors)}"
    details = {"problems": list(problems)}
    await send_error(request, send, 400, message, code="config_invalid", details=details)
