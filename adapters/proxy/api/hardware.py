"""``GET /api/hardware``."""

from __future__ import annotations

from ...http1.asgi_types import Send
from ...system import threads
from ..context import ProxyContext
from ..monitoring.hardware import HardwareProbe
from ..request import Request
from ..responses import send_json


async def hardware(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell what the machine is made of."""
    books = proxy.accounting
    if books.hardware is None:
        books.hardware = await threads.run(HardwareProbe().look)
    await send_json(send, books.hardware)
