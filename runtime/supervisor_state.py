"""State of a supervisor: its parts, look-ups of its services, listeners of transitions."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..machine import Compiled, Document
from ..machine import lifecycle as shipped_chart
from .arguments import (
    require_count,
    require_function,
    require_items,
    require_kind,
    require_methods,
    require_seconds,
)
from .chart_check import require_chart
from .checked_policy import checked_policy
from .engine import HostStateError
from .leaving import is_kept
from .lifecycle import Lifecycle
from .listeners import Listener, Listeners
from .log_ring import LogRing
from .memory_ledger import MemoryLedger
from .memory_watch import MemoryWatch
from .memory_yielding import MemoryYielding
from .ports import HttpClient, Launcher, MemoryMeter
from .scheduler import Scheduler
from .scheduling import EvictionPolicy, QueueLimits, one_at_a_time
from .service_table import ServiceTable
from .service_updater import ServiceUpdater
from .shielded_tasks import ShieldedTasks
from .spec import ServiceSpec
from .swaps import SwapLedger
from .transition import Transition

if TYPE_CHECKING:
    from ..machine import Report

_LOG_BYTES = 1 << 20


@cache
def _compiled() -> Compiled:
    return Compiled(shipped_chart())


class SupervisorState:
    """The state of a supervisor, without what changes it; see `Supervisor`."""

    def __init__(
        self, launcher: Launcher, services: Iterable[ServiceSpec] = (), *,
        http: HttpClient | None = None, policy: EvictionPolicy = one_at_a_time,
        queue: QueueLimits | None = None, chart: Document | None = None,
        checked: Report | None = None,
        stop_limit_s: float = 60.0, hook_limit: int | None = 8, rng: random.Random | None = None,
        memory: MemoryLedger | None = None, meter: MemoryMeter | None = None,
    ) -> None:  # fmt: skip
        require_methods("launcher", launcher, ("start", "run"), "a Launcher")
        specs = require_items("services", services, ServiceSpec)
        if http is not None:
            require_methods("http", http, ("call",), "an HttpClient or None")
        require_function("policy", policy)
        require_kind("queue", queue, QueueLimits, "QueueLimits", or_none=True)
        require_seconds("stop_limit_s", stop_limit_s)
        require_count("hook_limit", hook_limit, 1, or_none=True)
        require_kind("rng", rng, random.Random, "a random.Random", or_none=True)
        require_kind("memory", memory, MemoryLedger, "a MemoryLedger", or_none=True)
        if meter is not None:
            require_methods("meter", meter, ("read",), "a MemoryMeter or None")
        require_chart("chart", chart, checked)
        self._launcher, self._http = launcher, http
        self._meter = meter
        self.memory_watch: MemoryWatch | None = None
        self.memory_yielding: MemoryYielding | None = None
        self._specs = list(specs)
        self.has_own_chart = chart is not None
        self._compiled = _compiled() if chart is None else Compiled(chart)
        self.stop_limit_s = stop_limit_s
        self._hook_limit = hook_limit
        self._rng = rng or random.Random()
        self.log = LogRing(_LOG_BYTES)
        self.scheduler = Scheduler(policy=checked_policy(policy), limits=queue, memory=memory)
        self.swaps = SwapLedger()
        self._services = ServiceTable()
        self._lifecycles = self._services.lifecycles
        self._listeners: Listeners[Transition] = Listeners()
        self._updater: ServiceUpdater | None = None
        self._shelter = ShieldedTasks()
        self._left: frozenset[str] = frozenset()  # services whose processes outlive this supervisor

    # ---- lookup
    def __getitem__(self, name: str) -> Lifecycle:
        """Return the lifecycle of *name*.

        Raises:
            UnknownServiceError: There is no such service; a `KeyError` too.
        """
        self._entered()
        return self._services.lookup(name)

    def get(self, name: str) -> Lifecycle | None:
        """Return the lifecycle of *name*, or None if there is no such service."""
        return self._lifecycles.get(name) if isinstance(name, str) else None

    def __contains__(self, name: object) -> bool:
        """Return True if there is a service of that name."""
        return isinstance(name, str) and name in self._lifecycles

    def lifecycles(self) -> Sequence[Lifecycle]:
        """Return all lifecycles, in the order in which they were added."""
        return list(self._lifecycles.values())

    # ---- transitions
    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with every transition, at once; it must not wait.

        Events that it posts are processed right after that transition. An exception of the
        listener is logged.

        Returns:
            A function that removes the listener; calling it again does nothing.
        """
        return self._listeners.add(listener)

    def events(self, *, limit: int = 1024) -> AsyncIterator[Transition]:
        """Yield transitions from this call on; a reader that is *limit* behind loses the oldest.

        Raises:
            ConfigError: *limit* is no whole number >= 1.
        """
        return self._listeners.events(limit)

    def _entered(self) -> ServiceUpdater:
        if self._updater is None:
            raise HostStateError("the supervisor has not begun: enter `async with` first")
        return self._updater

    def _leaving(self) -> dict[str, Lifecycle]:
        return {name: each for name, each in self._lifecycles.items() if not is_kept(each)}
