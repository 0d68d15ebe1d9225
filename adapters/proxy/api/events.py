"""``/api/events``: a stream of server-sent events with llama-swap's event types and our own."""

from __future__ import annotations

import asyncio
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ....runtime import LogRing, Transition
from ...http1.asgi_types import Send
from ..access.visible_models import View
from ..accounting.request_record import RequestRecord
from ..context import ProxyContext
from ..event_bus import Subscription
from ..listener_limits import send_too_many
from ..options import Access
from ..request import Request
from . import views
from .queue import queue_value

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
_COMMENT = b": nothing new\n\n"
_LOOK_S = 0.25  # between two looks at the requests in flight
_SETTLE_S = 0.05  # a model passes several states in a moment; one list is enough


async def stream(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send events until the client leaves or the proxy ends."""
    with proxy.listeners.entered(request.access.client) as is_let_in:
        if not is_let_in:
            await send_too_many(request, send)
            return
        await request.body(1 << 16)
        request.watch()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        seen = _Seen(proxy, request.access)
        feed = proxy.event_bus.open(None if request.access.models is None else seen.event)
        if proxy.change_publisher is not None:
            proxy.change_publisher.look()
        try:
            await _send_events(proxy, request, seen, feed, send)
        finally:
            proxy.event_bus.close(feed)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_events(
    proxy: ProxyContext, request: Request, seen: _Seen, feed: Subscription, send: Send
) -> None:
    async with _following(proxy, request, feed, seen, send):
        _put_state(proxy, feed)
        while not (proxy.is_closing or seen.has_ended):
            data = await feed.take(proxy.options.heartbeat_s)
            if feed.lost and feed.is_empty:
                feed.put("lost", {"events": feed.lost})
                feed.lost = 0
                _put_state(proxy, feed)
            body = data or _COMMENT
            await send({"type": "http.response.body", "body": body, "more_body": True})


class _Seen:
    """What of the events a listener may see, by the configuration that is in force.

    Attributes:
        has_ended: It may see nothing more.
    """

    def __init__(self, proxy: ProxyContext, access: Access) -> None:
        self.has_ended = False
        self._proxy, self._access = proxy, access
        self._catalogue, self._view = proxy.catalog, proxy.view(access)

    def view(self) -> View:
        if self._proxy.catalog is not self._catalogue:
            self._catalogue, self._view = self._proxy.catalog, self._proxy.view(self._access)
        return self._view

    def event(self, kind: str, value: Any) -> Any:
        return self.view().event(kind, value)


def _logs(proxy: ProxyContext, view: View) -> list[tuple[str, LogRing]]:
    """Return the logs that a listener follows: both, or those of the models that it may see."""
    if view.is_whole:
        return [("proxy", proxy.own_log), ("upstream", proxy.supervisor.log)]
    return [
        ("upstream", proxy.supervisor[name].log) for name in view.ids if name in proxy.catalog.cards
    ]


class _Log:
    """One log on its way to one listener, in pieces of some 64 KiB."""

    def __init__(self, source: str, ring: LogRing) -> None:
        self._source, self._ring, self._lines = source, ring, ring.stream()
        self._text = getincrementaldecoder("utf-8")("replace")

    async def send_kept(self, seen: _Seen, feed: Subscription, send: Send) -> None:
        """Send what is kept as fast as the client reads; it takes no memory for each listener."""
        left = sum(map(len, self._ring.pieces()))
        while left > 0 and not seen.has_ended:
            data = await anext(self._lines)
            left -= len(data)
            body = feed.framed("logData", self._value(data))
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})

    async def follow(self, feed: Subscription) -> None:
        """Add what comes, when there is room; what the listener is too slow for is told."""
        async for data in self._lines:
            await feed.wait_room()
            feed.put("logData", self._value(data))

    async def close(self) -> None:
        """Follow it no longer."""
        await self._lines.aclose()

    def _value(self, data: bytes) -> dict[str, str]:
        return {"source": self._source, "data": self._text.decode(data)}


@asynccontextmanager
async def _following(
    proxy: ProxyContext, request: Request, feed: Subscription, seen: _Seen, send: Send
) -> AsyncIterator[None]:
    """Send the logs that are kept, then follow them and the end of the stream in the block."""
    logs = [_Log(source, ring) for source, ring in _logs(proxy, seen.view())]
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_with, proxy, request, feed, seen)
            for log in logs:  # what is kept comes before anything else
                await log.send_kept(seen, feed, send)
            for log in logs:
                tasks.start_soon(log.follow, feed)
            yield
            tasks.cancel_scope.cancel()
    finally:
        for log in logs:
            await log.close()


async def _end_with(proxy: ProxyContext, request: Request, feed: Subscription, seen: _Seen) -> None:
    await proxy.wait_ended(request)
    seen.has_ended = True
    feed.offer(b"")


def _put_state(proxy: ProxyContext, feed: Subscription) -> None:
    """Tell a listener all that is the case now."""
    feed.put("modelStatus", views.model_status_views(proxy))
    session = {"session_id": list(proxy.options.session_headers)}
    feed.put("uiConfig", {"activity": session})
    feed.put("profileChanged", {"active": proxy.profiles.active})
    requests = [views.in_flight_view(proxy, exchange) for exchange in proxy.in_flight.open.values()]
    feed.put("inflight", {"operation": "snapshot", "requests": requests})
    feed.put("queue", queue_value(proxy.supervisor))
    if proxy.config is not None:
        feed.put("config", {"held_back": proxy.config.facts()["held_back"]})


class EventPublisher:
    """Publishes what changes, while anybody listens; costs nothing while nobody does."""

    def __init__(self, proxy: ProxyContext) -> None:
        self._proxy = proxy
        self._seen: dict[int, tuple[int, int, bool]] = {}
        self._queue: Any = None
        self._looking: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None

    def take(self, record: Transition) -> None:
        """Tell of a transition; for ``Supervisor.listen``."""
        hub = self._proxy.event_bus
        if not hub.is_heard:
            return
        hub.publish("transition", views.transition(record))
        self.models_changed()

    def models_changed(self) -> None:
        """Tell the states of all models, in a moment."""
        if self._settling is None and self._proxy.event_bus.is_heard:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(_SETTLE_S, self._tell_models)

    def _tell_models(self) -> None:
        self._settling = None
        self._proxy.event_bus.publish("modelStatus", views.model_status_views(self._proxy))

    def profile_changed(self) -> None:
        """Tell which profile is active."""
        self._proxy.event_bus.publish("profileChanged", {"active": self._proxy.profiles.active})
        self.models_changed()

    def look(self) -> None:
        """Begin to look at the requests in flight, until nobody listens any more."""
        if self._looking is None:
            self._seen = {key: _mark(item) for key, item in self._proxy.in_flight.open.items()}
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        hub = self._proxy.event_bus
        if not hub.is_heard:
            self._looking = None
            return
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now = dict(self._proxy.in_flight.open)
        for key in self._seen.keys() - now.keys():
            hub.publish("inflight", {"operation": "remove", "id": str(key)})
        seen = {}
        for key, exchange in now.items():
            seen[key] = _mark(exchange)
            if seen[key] != self._seen.get(key):
                value = {
                    "operation": "upsert",
                    "request": views.in_flight_view(self._proxy, exchange),
                }
                hub.publish("inflight", value)
        self._seen = seen
        queue = queue_value(self._proxy.supervisor)
        if queue != self._queue:
            self._queue = queue
            hub.publish("queue", queue)

    def close(self) -> None:
        """End the timers."""
        for timer in (self._looking, self._settling):
            if timer is not None:
                timer.cancel()


def _mark(exchange: RequestRecord) -> tuple[int, int, bool]:
    return exchange.status, exchange.sent_bytes, bool(exchange.admitted)
