"""State that all handlers share: supervisor, models as clients see them, and options."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ...runtime import LogRing, Supervisor, SwapchartError, Transition
from ..store.activity import ActivityStore
from ..store.timeline import TimelineStore
from .access.admission import AdmissionControl, Allowed
from .access.api_keys import NO_KEYS, ApiKeys
from .access.header_cache import HeaderCache
from .access.origins import ProxyTrust
from .access.refusal_log import RefusalLog
from .access.visible_models import View
from .accounting.accounting import Accounting
from .accounting.request_record import InFlightRequests, RequestRecord
from .body.turns import Turns
from .event_bus import EventBus
from .formatting import plain_names
from .listener_limits import ListenerLimits
from .models.catalog import LocalModel, ModelCatalog, Target
from .models.failed_starts import FailedStarts
from .models.loaded_models import LoadedModels
from .models.profiles import Profiles
from .models.resolver import Resolver
from .monitoring.event_loop import LoopWatch
from .options import Access, ProxyOptions
from .request import Request
from .tracing.port import Tracing
from .upstreams import UpstreamRegistry

_REJECTION_REPEAT_S = 60.0  # time until an equal line about a rejected request is logged again


class History(Protocol):
    """Past transitions of models."""

    def __call__(self, name: str, /, *, limit: int) -> Awaitable[list[dict[str, Any]]]:
        """Return the last transitions of model *name*, the newest first."""
        ...


class ChangePublisher(Protocol):
    """Publishes changes on the event bus; see ``api.events.EventPublisher``."""

    def look(self) -> None:
        """Note that a client has subscribed."""
        ...

    def models_changed(self) -> None:
        """Publish the state of all models."""
        ...

    def profile_changed(self) -> None:
        """Publish which profile is active, if any."""
        ...


class AssignedRequest(Protocol):
    """A request whose slot at the server was chosen.

    Attributes:
        body: Body to forward.
    """

    body: bytes

    def finish(self, record: RequestRecord, /) -> tuple[str, float]:
        """Note its end; return the origin of its reused tokens, and the cost in milliseconds."""
        ...


class Conversations(Protocol):
    """Chooses the slots of requests, by the conversations in them; see ``kv.manager``."""

    def __call__(
        self, model: str, path: str, body: bytes | None, namespace: str, /
    ) -> Awaitable[AssignedRequest | None]:
        """Return a request to *model* with its slot; None leaves it unchanged. Never fails."""
        ...


class SavedCaches(Protocol):
    """Saved prompt caches of models; see ``kv.listing.overview``."""

    def describe(
        self, model: str, limit: int, *, shows_words: bool
    ) -> Awaitable[dict[str, Any]]:  # fmt: skip
        """Return settings, sizes and the *limit* conversations that were used last."""
        ...

    def purge(self, model: str) -> Awaitable[int | None]:
        """Remove all that is kept of *model*; None means that nothing is managed.

        Raises:
            OSError: The disk is full or read-only.
        """
        ...


#: Id of a model -> more about it for ``/running``, or None.
Detail: TypeAlias = Callable[[str], Mapping[str, Any] | None]


class ConfigControl(Protocol):
    """The configuration in force, and its reload."""

    def facts(self) -> dict[str, Any]:
        """Return its files and the outcome of the last reload."""
        ...

    def settings(self, model: str) -> list[dict[str, Any]]:
        """Return the settings of *model*, each with its key, value, file and line."""
        ...

    async def plan(self) -> dict[str, Any]:
        """Read the configuration again and return what a reload would change.

        Raises:
            SwapchartError: The configuration has errors; see `problems`.
        """
        ...

    def problems(self, error: SwapchartError) -> list[dict[str, Any]]:
        """Return the problems in an error that `plan` raised."""
        ...

    async def reload(self, why: str) -> dict[str, Any]:
        """Read the configuration again and apply it.

        Returns:
            The outcome; ``ok`` is False, and nothing was changed, if the configuration has errors.

        Raises:
            SwapchartError: The proxy is shutting down.
        """
        ...


class ProxyContext:
    """State that all handlers share.

    Attributes:
        supervisor: Runs the models.
        catalog: The models as clients see them.
        options: Behavior towards clients.
        admission: Decides whether a request is admitted.
        refusals: Log of requests that were denied for their key, Host or Origin.
        rejections: Log of requests that the scheduler or a model's lifecycle rejected.
        header_cache: Decisions that depend only on request headers.
        trusts: Client address -> whether its X-Forwarded-* headers are trusted.
        config: The configuration in force; None means it cannot be reloaded.
        loop_watch: Delays of the event loop; None means they are not measured.
        conversations: Chooses the slots of requests; None means that servers do.
        saved_caches: What is kept of prompt caches; None means that nothing is.
        send_in_slot: Sends and relays a ``Forwarding`` to a model with a library; set by
            `ProxyApp`, as ``conversation_slot`` is above this layer.
        details: Name -> returns further details of a model for ``/running``.
        history: None means transitions are not stored.
        run: Short id of this run of the proxy, as transitions have it; empty if none are stored.
        swap_history: Returns the transitions of a swap; None means they are not stored.
        timeline: Store of the timeline; None means that there is none.
        on_finished: Called with the record of every finished request; None means nothing is.
        profiles: The profiles, and which one is active.
        resolver: Finds models by name.
        upstreams: Connections to the servers of models and to peers.
        in_flight: Requests in flight.
        loaded: Models whose run has become ready.
        failed_starts: Requests whose model failed to start a moment ago.
        turns: Shares the event loop among long work of requests.
        event_bus: Passes events to subscribed clients.
        listeners: Limits the number of clients that stream events and logs.
        change_publisher: Publishes changes on the event bus.
        accounting: Metrics, captures, activity and access log.
        own_log: Log of the proxy itself.
        log: Logger of handlers.
        server: Name of the HTTP server in front, for metrics.
        tracing: Makes spans of requests; None means that nothing is traced.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: ModelCatalog, options: ProxyOptions, *,
        history: History | None = None,
        on_finished: Callable[[RequestRecord], None] | None = None, own_log: LogRing | None = None,
        activity: ActivityStore | None = None, tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self.supervisor, self.catalog, self.options = supervisor, catalogue, options
        self.admission = AdmissionControl(options)
        self.refusals = RefusalLog()
        self.rejections = RefusalLog(_REJECTION_REPEAT_S)
        self.header_cache = HeaderCache()
        self.trusts = ProxyTrust(options.trusted_proxies).allows
        self.config: ConfigControl | None = None
        self.loop_watch: LoopWatch | None = None
        self.conversations: Conversations | None = None
        self.saved_caches: SavedCaches | None = None
        self.send_in_slot: Callable[[Any, LocalModel], Awaitable[None]] | None = None
        self.details: dict[str, Detail] = {}
        self.history = history
        self.run = ""
        self.swap_history: Callable[[str], Awaitable[list[dict[str, Any]]]] | None = None
        self.timeline: TimelineStore | None = None
        self.on_finished = on_finished
        self.profiles = Profiles(catalogue.profiles)
        self.resolver = Resolver(supervisor, catalogue, self.profiles)
        self.in_flight = InFlightRequests()
        self.failed_starts = FailedStarts(self.now)
        self.loaded = LoadedModels(supervisor)
        self.turns = Turns()
        self.event_bus = EventBus()
        self.listeners = ListenerLimits(options.listeners, options.listeners_per_key)
        self.change_publisher: ChangePublisher | None = None
        self._closing = asyncio.Event()
        self._renewed = asyncio.Event()  # set, and replaced, by each configuration
        self.own_log = own_log if own_log is not None else LogRing()
        self.log = logging.getLogger("swapchart.proxy")
        self.server = "asgi"
        self.tracing = tracing
        self.accounting = Accounting(activity, self.event_bus, self.own_log, options.capture_bytes)
        self.accounting.recorder.session_headers = plain_names(options.session_headers)
        if tracing is not None:
            self.accounting.recorder.counters = tracing.counting(self.accounting.metrics)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.upstreams = UpstreamRegistry(supervisor, catalogue.models, catalogue.peers)

    def configure(self, catalogue: ModelCatalog, options: ProxyOptions) -> None:
        """Use other models and options from now on; requests in flight are not affected.

        The active profile stays active if there still is one of that name, and selectors keep
        their counts of requests.
        """
        active = self.profiles.active
        self.catalog, self.options = catalogue, options
        self.failed_starts.clear()
        self.admission = AdmissionControl(options)
        self._renewed.set()
        self._renewed = asyncio.Event()
        self.header_cache = HeaderCache()
        self.trusts = ProxyTrust(options.trusted_proxies).allows
        self.accounting.captures.resize(options.capture_bytes)
        self.accounting.recorder.session_headers = plain_names(options.session_headers)
        self.listeners.limit_to(options.listeners, options.listeners_per_key)
        self.profiles = Profiles(catalogue.profiles)
        if active is not None and active in self.profiles:
            self.profiles.activate(active)
        self.resolver.renew(catalogue, self.profiles)
        self.upstreams.configure(catalogue.models, catalogue.peers)

    def record(self, records: Sequence[RequestRecord]) -> None:
        """Record finished requests to models, and pass them on; never waits."""
        self.accounting.recorder.record_all(records)
        if self.on_finished is None:
            return
        for record in records:
            try:
                self.on_finished(record)
            except Exception:
                name = record.model
                self.log.exception("the callback for a finished request to %s failed", name)

    def activate_profile(self, name: str | None) -> None:
        """Make profile *name* the active one; None means no profile is active.

        Raises:
            KeyError: There is no such profile.
        """
        self.profiles.activate(name)
        if self.change_publisher is not None:
            self.change_publisher.profile_changed()

    def removed_keys(self, target: Target) -> ApiKeys:
        """Return the API keys to remove from requests to *target*."""
        is_passed = isinstance(target, LocalModel) and target.definition.passes_keys
        return NO_KEYS if is_passed else self.admission.keys

    def request_behind(self, record: Transition) -> str:
        """Return the id of the request that *record* is for, if a request caused it; else "".

        That is the oldest one in flight for the model that starts.
        """
        name = record.service
        swaps = self.supervisor.scheduler.swaps.items()
        target = next((target for target, evicted in swaps if name in evicted), None)
        if target is None and record.event != "request":
            return ""
        found = self.in_flight.first_of(target or name)
        return "" if found is None else found.request.request_id.decode()

    def view(self, access: Access) -> View:
        """Return what a request with *access* may see of the models."""
        return View(access, self.catalog)

    def now(self) -> float:
        """Return the time on the clock of the scheduler; seconds."""
        return asyncio.get_running_loop().time()

    # ---- ending
    @property
    def is_closing(self) -> bool:
        """True if streams that have no end of their own are to end."""
        return self._closing.is_set()

    async def wait_ended(self, request: Request) -> None:
        """Wait until an endless stream must end: at shutdown, or when its key has lost rights."""
        while not self.is_closing and self._may_go_on(request):
            await self._renewed.wait()

    async def wait_renewed(self, request: Request) -> bool:
        """Wait for another configuration; return False if an endless stream must end then."""
        if not self.is_closing:
            await self._renewed.wait()
        return not self.is_closing and self._may_go_on(request)

    def _may_go_on(self, request: Request) -> bool:
        verdict = self.admission.admit(request.scope, request.route)
        return isinstance(verdict, Allowed) and verdict.access == request.access

    def end_streams(self) -> None:
        """End the streams of logs and events, which have no end of their own."""
        self._closing.set()
        self._renewed.set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run *work* in the background, until it ends or the proxy does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("a background task failed", exc_info=error)

    async def aclose(self) -> None:
        """Cancel background tasks, and close all connections to upstreams."""
        self.end_streams()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upstreams.aclose()
