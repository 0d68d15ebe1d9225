"""``/api/events``: what happens, as it happens, to whoever listens (llama-swap.md section 5.13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ...runtime import LogRing, Transition
from . import shown
from .asgi_types import Send
from .auth import Access
from .exchange import Exchange
from .hub import Feed
from .queue_facts import queue_value
from .request import Request
from .state import Proxy
from .views import View

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
_COMMENT = b": nothing new\n\n"
_LOOK_S = 0.25  # between two looks at the requests in flight
_SETTLE_S = 0.05  # a model passes several states in a moment; one list is enough


async def stream(proxy: Proxy, request: Request, send: Send) -> None:
    """Send events until the client leaves or the proxy ends."""
    await request.body(1 << 16)
    request.watch()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    seen = _Seen(proxy, request.access)
    feed = proxy.hub.open(None if request.access.models is None else seen.event)
    if proxy.watch is not None:
        proxy.watch.look()
    try:
        async with _following(proxy, request, feed, seen):
            _put_state(proxy, feed)
            while not (proxy.is_closing or seen.has_ended):
                data = await feed.take(proxy.options.heartbeat_s)
                if feed.lost:
                    feed.put("lost", {"events": feed.lost})
                    feed.lost = 0
                    _put_state(proxy, feed)
                body = data or _COMMENT
                await send({"type": "http.response.body", "body": body, "more_body": True})
    finally:
        proxy.hub.close(feed)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Seen:
    """What of the events a listener may see, by the configuration that is in force.

    Attributes:
        has_ended: It may see nothing more.
    """

    def __init__(self, proxy: Proxy, access: Access) -> None:
        self.has_ended = False
        self._proxy, self._access = proxy, access
        self._catalogue, self._view = proxy.catalogue, proxy.view(access)

    def view(self) -> View:
        if self._proxy.catalogue is not self._catalogue:
            self._catalogue, self._view = self._proxy.catalogue, self._proxy.view(self._access)
        return self._view

    def event(self, kind: str, value: Any) -> Any:
        return self.view().event(kind, value)


def _logs(proxy: Proxy, view: View) -> list[tuple[str, LogRing]]:
    """Return the logs that a listener follows: both, or those of the models that it may see."""
    if view.is_whole:
        return [("proxy", proxy.own_log), ("upstream", proxy.supervisor.log)]
    return [
        ("upstream", proxy.supervisor[name].log)
        for name in view.ids
        if name in proxy.catalogue.cards
    ]


@asynccontextmanager
async def _following(
    proxy: Proxy, request: Request, feed: Feed, seen: _Seen
) -> AsyncIterator[None]:
    """Follow the logs and the end of the stream, while the block lasts."""
    async with anyio.create_task_group() as tasks:
        for source, ring in _logs(proxy, seen.view()):
            lines = ring.stream()
            if ring.total_bytes:  # what is kept comes before anything else
                _put_log(feed, source, await anext(lines))
            tasks.start_soon(_follow, feed, source, lines)
        tasks.start_soon(_end_with, proxy, request, feed, seen)
        yield
        tasks.cancel_scope.cancel()


async def _follow(feed: Feed, source: str, lines: AsyncIterator[bytes]) -> None:
    async for data in lines:
        _put_log(feed, source, data)


def _put_log(feed: Feed, source: str, data: bytes) -> None:
    feed.put("logData", {"source": source, "data": data.decode("utf-8", "replace")})


async def _end_with(proxy: Proxy, request: Request, feed: Feed, seen: _Seen) -> None:
    await proxy.wait_ended(request)
    seen.has_ended = True
    feed.offer(b"")


def _put_state(proxy: Proxy, feed: Feed) -> None:
    """Tell a listener all that is the case now."""
    feed.put("modelStatus", shown.model_statuses(proxy))
    session = {"session_id": list(proxy.options.session_headers)}
    feed.put("uiConfig", {"activity": session})
    feed.put("profileChanged", {"active": proxy.profiles.active})
    requests = [shown.in_flight(proxy, exchange) for exchange in proxy.flights.open.values()]
    feed.put("inflight", {"operation": "snapshot", "requests": requests})
    feed.put("queue", queue_value(proxy.supervisor))
    if proxy.config is not None:
        feed.put("config", {"held_back": proxy.config.facts()["held_back"]})


class Reporter:
    """Publishes what changes, while anybody listens; costs nothing while nobody does."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._seen: dict[int, tuple[int, int, bool]] = {}
        self._queue: Any = None
        self._looking: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None

    def take(self, record: Transition) -> None:
        """Tell of a transition; for ``Supervisor.listen``."""
        hub = self._proxy.hub
        if not hub.is_heard:
            return
        hub.publish("transition", shown.transition(record))
        self.models_changed()

    def models_changed(self) -> None:
        """Tell the states of all models, in a moment."""
        if self._settling is None and self._proxy.hub.is_heard:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(_SETTLE_S, self._tell_models)

    def _tell_models(self) -> None:
        self._settling = None
        self._proxy.hub.publish("modelStatus", shown.model_statuses(self._proxy))

    def profile_changed(self) -> None:
        """Tell which profile is active."""
        self._proxy.hub.publish("profileChanged", {"active": self._proxy.profiles.active})
        self.models_changed()

    def look(self) -> None:
        """Begin to look at the requests in flight, until nobody listens any more."""
        if self._looking is None:
            self._seen = {key: _mark(item) for key, item in self._proxy.flights.open.items()}
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        hub = self._proxy.hub
        if not hub.is_heard:
            self._looking = None
            return
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now = dict(self._proxy.flights.open)
        for key in self._seen.keys() - now.keys():
            hub.publish("inflight", {"operation": "remove", "id": str(key)})
        seen = {}
        for key, exchange in now.items():
            seen[key] = _mark(exchange)
            if seen[key] != self._seen.get(key):
                value = {"operation": "upsert", "request": shown.in_flight(self._proxy, exchange)}
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


def _mark(exchange: Exchange) -> tuple[int, int, bool]:
    return exchange.status, exchange.sent_bytes, bool(exchange.admitted)
