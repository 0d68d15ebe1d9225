"""Route ``/models/sse`` of llama-server's router: the load status of each model when it changes.

Events have no name; their data is a JSON object with ``model``, ``event`` and ``data``. As in the
router, a client that connects gets nothing about the past: it reads ``GET /models`` first, and
again after the event ``models_reload``. That event is also sent to a client that was too slow for
the events of its models, in place of those it lost.

Source: llama.cpp, tools/server/README.md and server-models.cpp. In contrast to them, comments are
sent while nothing happens, and the progress of a load is not reported.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque

from ....runtime import Transition
from ...http1.asgi_types import Send
from ..access.visible_models import View
from ..context import ProxyContext
from ..listener_limits import send_too_many
from ..models.public_state import public_state, public_state_of
from ..options import Access
from ..request import Request
from .events import COMMENT, EVENT_STREAM
from .model_listing import ROUTER_STATES

_MOST_WAITING = 1024
_RELOAD = b'data: {"model":"*","event":"models_reload"}\n\n'
_UNKNOWN_EXIT = 1


async def stream(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send events until the client disconnects, its key loses rights, or the proxy shuts down."""
    with proxy.listeners.entered(request.access.client) as is_admitted:
        if not is_admitted:
            await send_too_many(request, send)
            return
        await request.body(1 << 16)
        request.watch()
        events = _StatusEvents(proxy, request.access)
        stop_listening = proxy.supervisor.listen(events.on_transition)
        following = asyncio.create_task(_follow_configuration(proxy, request, events))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            await send({"type": "http.response.body", "body": COMMENT, "more_body": True})
            while not events.has_ended:
                data = await events.take(proxy.options.heartbeat_s) or COMMENT
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            stop_listening()
            following.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _follow_configuration(
    proxy: ProxyContext, request: Request, events: _StatusEvents
) -> None:
    """Report each change of the list of models, and end the stream when it must end."""
    while True:
        catalog = proxy.catalog
        if not await proxy.wait_renewed(request):
            events.end()
            return
        if proxy.catalog is not catalog:
            events.reload()


class _StatusEvents:
    """Events that one client has not got yet.

    Attributes:
        has_ended: The client gets no further events.
    """

    def __init__(self, proxy: ProxyContext, access: Access) -> None:
        self.has_ended = False
        self._proxy, self._access = proxy, access
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._view: View = proxy.view(access)
        self._last = {
            name: ROUTER_STATES[public_state(proxy.supervisor[name])]
            for name in proxy.catalog.models
        }

    def on_transition(self, record: Transition) -> None:
        """Add an event if a model that the client may see has another status now."""
        name = record.service
        if name not in self._proxy.catalog.models or not self._view.shows(name):
            return
        state = public_state_of(record.target, record.configuration)
        status = ROUTER_STATES[state]
        # A model that stops keeps its status, which is loading if its start has failed.
        if state == "stopping" or self._last.get(name) == status:
            return
        self._last[name] = status
        data: dict[str, str | int] = {"status": status}
        if status == "unloaded":
            data["exit_code"] = self._exit_code(name)
        value = {"model": name, "event": "status_change", "data": data}
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        self._put(f"data: {text}\n\n".encode())

    def _exit_code(self, name: str) -> int:
        life = self._proxy.supervisor[name]
        if not life.failures:
            return 0
        code = None if life.last_exit is None else life.last_exit.code
        return code or _UNKNOWN_EXIT

    def _put(self, data: bytes) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.clear()
            data = _RELOAD
        self._waiting.append(data)
        self._wake.set()

    def reload(self) -> None:
        """Tell the client that the list of models has changed."""
        self._view = self._proxy.view(self._access)
        self._put(_RELOAD)

    def end(self) -> None:
        """End the stream."""
        self.has_ended = True
        self._wake.set()

    async def take(self, limit_s: float) -> bytes:
        """Wait up to *limit_s* seconds for events, and return them; empty if there are none."""
        if not self._waiting and not self.has_ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(limit_s):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data
