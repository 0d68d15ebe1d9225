"""What all handlers share: the supervisor, the models as clients see them, and how to behave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeAlias

from ...runtime import LogRing, Supervisor, SwapchartError
from ..store.activity import ActivityStore
from .access.admission import AdmissionControl, Allowed
from .access.header_cache import HeaderCache
from .access.origins import ProxyTrust
from .access.visible_models import View
from .accounting.accounting import Accounting
from .accounting.request_record import InFlightRequests, RequestRecord
from .body.turns import Turns
from .event_bus import EventBus
from .listener_limits import ListenerLimits
from .models.catalog import ModelCatalog
from .models.profiles import Profiles
from .models.resolver import Resolver
from .monitoring.event_loop import LoopWatch
from .options import Access, ProxyOptions
from .request import Request
from .upstreams import UpstreamRegistry


class History(Protocol):
    """Remembers transitions."""

    def __call__(self, name: str, /, *, limit: int) -> Awaitable[list[dict[str, Any]]]:
        """Return the last transitions of model *name*, the newest first."""
        ...


class ChangePublisher(Protocol):
    """Publishes what changes; see ``events.Reporter``."""

    def look(self) -> None:
        """Somebody has begun to listen."""
        ...

    def models_changed(self) -> None:
        """A model did."""
        ...

    def profile_changed(self) -> None:
        """Another profile is active, or none."""
        ...


#: Id of a model -> what is known of it, or None.
Detail: TypeAlias = Callable[[str], Mapping[str, Any] | None]


class ConfigControl(Protocol):
    """The configuration in force, and the way to another one."""

    def facts(self) -> dict[str, Any]:
        """Return where it came from, and how the last reload went."""
        ...

    async def plan(self) -> dict[str, Any]:
        """Read the configuration again and return what a reload would change.

        Raises:
            SwapchartError: It has an error; see `problems`.
        """
        ...

    def problems(self, error: SwapchartError) -> list[dict[str, Any]]:
        """Return all that an error of `plan` says, one by one."""
        ...

    async def reload(self, why: str) -> dict[str, Any]:
        """Read the configuration again and apply it.

        Returns:
            How it went; ``ok`` is False, and nothing was changed, if it has an error.

        Raises:
            SwapchartError: The proxy is ending.
        """
        ...


class ProxyContext:
    """What all handlers share.

    Attributes:
        supervisor: Runs the models.
        catalog: The models as clients see them.
        options: How to behave.
        admission: What every request passes first.
        trusts: Tells whether the client at an address is a proxy of ours.
        config: The configuration in force; None: there is none to be read again.
        loop_watch: How late the event loop runs; None: nobody looks.
        details: Name -> tells what else is known of a model, for ``/running``.
        history: None: nothing is remembered.
        profiles: Which of them is active.
        resolver: Finds models by name.
        upstreams: Connections to the servers of models and to peers.
        in_flight: Requests that are not over.
        turns: Long work of requests, in the event loop.
        event_bus: Tells events to who listens.
        listeners: How many do, to events and logs.
        change_publisher: Finds them.
        accounting: What is written down about requests.
        own_log: What the proxy itself has logged.
        log: Where handlers log to.
    """

    def __init__(
        self, supervisor: Supervisor, catalogue: ModelCatalog, options: ProxyOptions, *,
        history: History | None = None,
        on_finished: Callable[[RequestRecord], None] | None = None, own_log: LogRing | None = None,
        activity: ActivityStore | None = None,
    ) -> None:  # fmt: skip
        self.supervisor, self.catalog, self.options = supervisor, catalogue, options
        self.admission = AdmissionControl(options)
        self.header_cache = HeaderCache()
        self.trusts = ProxyTrust(options.trusted_proxies).allows
        self.config: ConfigControl | None = None
        self.loop_watch: LoopWatch | None = None
        self.details: dict[str, Detail] = {}
        self.history = history
        self.on_finished = on_finished
        self.profiles = Profiles(catalogue.profiles)
        self.resolver = Resolver(supervisor, catalogue, self.profiles)
        self.in_flight = InFlightRequests()
        self.turns = Turns()
        self.event_bus = EventBus()
        self.listeners = ListenerLimits(options.listeners, options.listeners_per_key)
        self.change_publisher: ChangePublisher | None = None
        self._closing = asyncio.Event()
        self._renewed = asyncio.Event()  # set, and replaced, by each configuration
        self.own_log = own_log if own_log is not None else LogRing()
        self.log = logging.getLogger("swapchart.proxy")
        self.accounting = Accounting(activity, self.event_bus, self.own_log, options.capture_bytes)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.upstreams = UpstreamRegistry(supervisor, catalogue.cards, catalogue.peers)

    def configure(self, catalogue: ModelCatalog, options: ProxyOptions) -> None:
        """Go by other models and other options from now on; what is under way goes on.

        The active profile stays active if there is still one of that name, and selectors keep
        count of the requests behind them.
        """
        active = self.profiles.active
        self.catalog, self.options = catalogue, options
        self.admission = AdmissionControl(options)
        self._renewed.set()
        self._renewed = asyncio.Event()
        self.header_cache = HeaderCache()
        self.trusts = ProxyTrust(options.trusted_proxies).allows
        self.accounting.captures.resize(options.capture_bytes)
        self.listeners.limit_to(options.listeners, options.listeners_per_key)
        self.profiles = Profiles(catalogue.profiles)
        if active is not None and active in self.profiles:
            self.profiles.activate(active)
        self.resolver.renew(catalogue, self.profiles)
        self.upstreams.configure(catalogue.cards, catalogue.peers)

    def activate_profile(self, name: str | None) -> None:
        """Make profile *name* the active one; None: none is.

        Raises:
            KeyError: There is no such profile.
        """
        self.profiles.activate(name)
        if self.change_publisher is not None:
            self.change_publisher.profile_changed()

    def view(self, access: Access) -> View:
        """Return what a request with *access* may see of the models."""
        return View(access, self.catalog)

    def now(self) -> float:
        """Return the time on the clock of the scheduler; seconds."""
        return asyncio.get_running_loop().time()

    # ---- ending
    @property
    def is_closing(self) -> bool:
        """Tell whether streams that have no end of their own are to end."""
        return self._closing.is_set()

    async def wait_ended(self, request: Request) -> None:
        """Wait until a stream without an end has to end: the proxy ends, or its key lost rights."""
        while not self.is_closing and self._may_go_on(request):
            await self._renewed.wait()

    def _may_go_on(self, request: Request) -> bool:
        verdict = self.admission.admit(request.scope, request.route)
        return isinstance(verdict, Allowed) and verdict.access == request.access

    def end_streams(self) -> None:
        """End the streams of logs and events: nobody could wait for their end."""
        self._closing.set()
        self._renewed.set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run *work* aside, until it ends or the proxy does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("work aside failed", exc_info=error)

    async def aclose(self) -> None:
        """End what runs aside, and close all connections to upstreams."""
        self.end_streams()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upstreams.aclose()
