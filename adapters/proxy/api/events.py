"""Route ``/api/events``: a stream of server-sent events about models and requests.

The state of all models comes first, then the history of the logs, if they were asked for: on a slow
line that history takes minutes. Events are sent between its pieces.
"""

from __future__ import annotations

import asyncio
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qs

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
from ..responses import send_error
from . import views
from .host import coarse_memory, memory_view
from .queue import queue_view

#: Headers of a stream of events.
EVENT_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
#: Keeps an idle stream open.
COMMENT = b": nothing new\n\n"
#: Value of ``?logs=``: the logs that are sent; all of them by default.
Logs: TypeAlias = Literal["all", "none", "proxy", "upstream"]
_LOGS: dict[str, frozenset[str]] = {
    "all": frozenset({"proxy", "upstream"}), "none": frozenset[str](),
    "proxy": frozenset({"proxy"}), "upstream": frozenset({"upstream"}),
}  # fmt: skip
_POLL_S = 0.25  # between two comparisons of the requests in flight
_MEMORY_POLLS = 4  # polls from one look at memory to the next
_SETTLE_S = 0.05  # a model passes several states in a moment; one list of models is enough


async def stream(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send events until the client disconnects or the proxy shuts down."""
    sources = _LOGS.get(parse_qs(request.query.decode("latin-1")).get("logs", ["all"])[-1])
    if sources is None:
        known = ", ".join(_LOGS)
        await send_error(request, send, 400, f"logs: expected one of {known}")
        return
    with proxy.listeners.entered(request.access.client) as is_admitted:
        if not is_admitted:
            await send_too_many(request, send)
            return
        await request.body(1 << 16)
        request.watch()
        await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        visible = _VisibleEvents(proxy, request.access)
        subscription = proxy.event_bus.open(
            None if request.access.models is None else visible.event
        )
        if proxy.change_publisher is not None:
            proxy.change_publisher.look()
        try:
            await _send_events(proxy, request, visible, subscription, send, sources)
        finally:
            proxy.event_bus.close(subscription)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_events(
    proxy: ProxyContext,
    request: Request,
    visible: _VisibleEvents,
    subscription: Subscription,
    send: Send,
    sources: frozenset[str],
) -> None:
    _put_state(proxy, subscription)
    async with _following(proxy, request, subscription, visible, send, sources):
        while not (proxy.is_closing or visible.has_ended):
            data = await subscription.take(proxy.options.heartbeat_s)
            if subscription.lost and subscription.is_empty:
                subscription.put("lost", {"events": subscription.lost})
                subscription.lost = 0
                _put_state(proxy, subscription)
            body = data or COMMENT
            await send({"type": "http.response.body", "body": body, "more_body": True})


class _VisibleEvents:
    """Events as a subscriber's key may see them, by the configuration in force.

    Attributes:
        has_ended: The subscriber gets no further events.
    """

    def __init__(self, proxy: ProxyContext, access: Access) -> None:
        self.has_ended = False
        self._proxy, self._access = proxy, access
        self._catalog, self._view = proxy.catalog, proxy.view(access)

    def view(self) -> View:
        if self._proxy.catalog is not self._catalog:
            self._catalog, self._view = self._proxy.catalog, self._proxy.view(self._access)
        return self._view

    def event(self, kind: str, value: Any) -> Any:
        return self.view().event(kind, value)


def _logs(
    proxy: ProxyContext, view: View, sources: frozenset[str]
) -> list[tuple[str, LogRing]]:  # fmt: skip
    """Return those logs among *sources* that a subscriber may see."""
    if view.is_whole:
        both = (("proxy", proxy.own_log), ("upstream", proxy.supervisor.log))
        return [(source, ring) for source, ring in both if source in sources]
    return [
        ("upstream", proxy.supervisor[name].log)
        for name in view.ids
        if name in proxy.catalog.models and "upstream" in sources
    ]


class _Log:
    """One log on its way to one subscriber, in chunks of about 64 KiB."""

    def __init__(self, source: str, ring: LogRing) -> None:
        self._source, self._ring, self._lines = source, ring, ring.stream()
        self._text = getincrementaldecoder("utf-8")("replace")

    async def send_history(
        self, visible: _VisibleEvents, subscription: Subscription, send: Send
    ) -> None:
        """Send the history as fast as the client reads, with no copy for each subscriber."""
        left = sum(map(len, self._ring.pieces()))
        while left > 0 and not visible.has_ended:
            data = await anext(self._lines)
            left -= len(data)
            body = subscription.framed_log(self._source, self._text.decode(data))
            await _send_waiting(subscription, send)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0)  # many subscribers that come at once take turns

    async def follow(self, subscription: Subscription) -> None:
        """Queue new output when there is room; the stream reports what is dropped until then."""
        async for data in self._lines:
            await subscription.wait_room()
            subscription.put_log(self._source, self._text.decode(data))

    async def close(self) -> None:
        """Stop following the log."""
        await self._lines.aclose()


@asynccontextmanager
async def _following(
    proxy: ProxyContext,
    request: Request,
    subscription: Subscription,
    visible: _VisibleEvents,
    send: Send,
    sources: frozenset[str],
) -> AsyncIterator[None]:
    """Send the history of the logs, then follow the logs and the end of the stream in the block."""
    logs = [_Log(source, ring) for source, ring in _logs(proxy, visible.view(), sources)]
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_with, proxy, request, subscription, visible)
            await _send_waiting(subscription, send)
            for log in logs:
                await log.send_history(visible, subscription, send)
            for log in logs:
                tasks.start_soon(log.follow, subscription)
            yield
            tasks.cancel_scope.cancel()
    finally:
        for log in logs:
            await log.close()


async def _send_waiting(subscription: Subscription, send: Send) -> None:
    """Send the events that wait, without waiting for any."""
    while not subscription.is_empty:
        body = await subscription.take(0)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end_with(
    proxy: ProxyContext, request: Request, subscription: Subscription, visible: _VisibleEvents
) -> None:
    await proxy.wait_ended(request)
    visible.has_ended = True
    subscription.offer(b"")


def _put_state(proxy: ProxyContext, subscription: Subscription) -> None:
    """Queue events with the whole present state."""
    subscription.put("modelStatus", views.model_status_views(proxy))
    session = {"session_id": list(proxy.options.session_headers)}
    subscription.put("uiConfig", {"activity": session})
    subscription.put("profileChanged", {"active": proxy.profiles.active})
    requests = [views.in_flight_view(proxy, record) for record in proxy.in_flight.open.values()]
    subscription.put("inflight", {"operation": "snapshot", "requests": requests})
    subscription.put("queue", queue_view(proxy))
    subscription.put("memory", memory_view(proxy))
    if deadlines := views.unload_deadlines(proxy):
        subscription.put("unloadTimes", views.unload_times(proxy, deadlines))
    if proxy.config is not None:
        subscription.put("config", {"held_back": proxy.config.facts()["held_back"]})


class EventPublisher:
    """Publishes changes while the event bus has subscribers, and does nothing while it has none."""

    def __init__(self, proxy: ProxyContext) -> None:
        self._proxy = proxy
        self._seen: dict[int, tuple[int, int, str]] = {}
        self._queue: Any = None
        self._memory: Any = None
        self._deadlines: dict[str, float] = {}
        self._kept = frozenset[str]()
        self._full: set[str] = set()
        self._polls = 0
        self._poll_timer: asyncio.TimerHandle | None = None
        self._settle_timer: asyncio.TimerHandle | None = None

    def on_transition(self, record: Transition) -> None:
        """Publish a transition; for ``Supervisor.listen``."""
        bus = self._proxy.event_bus
        if not bus.is_heard:
            return
        bus.publish("transition", views.transition_view(record, self._proxy.request_behind(record)))
        self.models_changed()

    def models_changed(self) -> None:
        """Publish the states of all models after `_SETTLE_S` seconds."""
        if self._settle_timer is None and self._proxy.event_bus.is_heard:
            loop = asyncio.get_running_loop()
            self._settle_timer = loop.call_later(_SETTLE_S, self._publish_models)

    def _publish_models(self) -> None:
        self._settle_timer = None
        self._proxy.event_bus.publish("modelStatus", views.model_status_views(self._proxy))

    def profile_changed(self) -> None:
        """Publish the name of the active profile."""
        self._proxy.event_bus.publish("profileChanged", {"active": self._proxy.profiles.active})
        self.models_changed()

    def look(self) -> None:
        """Start to poll the requests in flight, until the last subscriber is gone."""
        if self._poll_timer is None:
            self._seen = {key: _progress(item) for key, item in self._proxy.in_flight.open.items()}
            self._poll_timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    def _poll(self) -> None:
        bus = self._proxy.event_bus
        if not bus.is_heard:
            self._poll_timer = None
            return
        self._poll_timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)
        now = dict(self._proxy.in_flight.open)
        for key in self._seen.keys() - now.keys():
            bus.publish("inflight", {"operation": "remove", "id": str(key)})
        seen = {}
        for key, record in now.items():
            seen[key] = _progress(record)
            if seen[key] != self._seen.get(key):
                value = {
                    "operation": "upsert",
                    "request": views.in_flight_view(self._proxy, record),
                }
                bus.publish("inflight", value)
        self._seen = seen
        queue = queue_view(self._proxy)
        if queue != self._queue:
            self._queue = queue
            bus.publish("queue", queue)
        deadlines = views.unload_deadlines(self._proxy)
        if deadlines != self._deadlines:
            self._deadlines = deadlines
            bus.publish("unloadTimes", views.unload_times(self._proxy, deadlines))
        kept = views.kept_models(self._proxy)
        if kept != self._kept:
            self._kept = kept
            self.models_changed()
        self._polls += 1
        if self._polls % _MEMORY_POLLS == 0:
            self._publish_memory()

    def _publish_memory(self) -> None:
        """Publish the memory pools if they have changed, and each pool that is too full since."""
        state = memory_view(self._proxy)
        coarse = coarse_memory(state)
        if coarse != self._memory:
            self._memory = coarse
            self._proxy.event_bus.publish("memory", state)
        full = {each.pool: each.text for each in state.notices if each.kind == "pressure"}
        for pool in full.keys() - self._full:
            self._proxy.event_bus.publish("pressure", {"pool": pool, "text": full[pool]})
        self._full = set(full)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._poll_timer, self._settle_timer):
            if timer is not None:
                timer.cancel()


def _progress(record: RequestRecord) -> tuple[int, int, str]:
    return record.status, record.sent_bytes, views.phase_of(record)
