"""Service updater: adds, changes and removes the services of a running supervisor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from ..machine import Compiled, Document
from .autostart import autostart
from .chart_check import require_spec
from .dispatcher import Dispatcher
from .errors import ConfigError
from .holds import Holds
from .host import ServiceHost
from .lifecycle import Lifecycle
from .log_ring import LogRing
from .retirement import Retirement
from .scheduler import Scheduler
from .scheduling import EvictionPolicy, QueueLimits, ServiceEntry
from .service_state import RuntimeContext
from .service_table import ServiceTable
from .spec import ServiceSpec
from .spec_diff import Difference, compare

#: Effect of a new set of specifications on one service.
Change: TypeAlias = Difference | Literal["added", "removed"]


class ServiceUpdater:
    """Applies specifications to the services of a supervisor; see the methods of `Supervisor`.

    Args:
        supervisor: Starts services and releases them.
        services: The services of the supervisor.
        scheduler: Gets an entry for each service.
        dispatcher: Gets each change of a lifecycle.
        compiled: The chart of every service that has none of its own.
        context: Shared by all lifecycles.
        log: Gets the output of all services.

    Attributes:
        holds: Uses of the services that are counted elsewhere.
    """

    def __init__(
        self, supervisor: ServiceHost, services: ServiceTable, scheduler: Scheduler,
        dispatcher: Dispatcher, compiled: Compiled, context: RuntimeContext, log: LogRing,
    ) -> None:  # fmt: skip
        self.holds = Holds(supervisor, context.timers)
        self._supervisor = supervisor
        self._services, self._scheduler, self._dispatcher = services, scheduler, dispatcher
        self._compiled, self._context, self._log = compiled, context, log

    def add(self, spec: ServiceSpec) -> Lifecycle:
        """Add a service."""
        lifecycles = self._services.lifecycles
        self._services.check_open()
        if spec.name in lifecycles:
            raise ConfigError(spec.name, "expected a new name, found one that exists")
        require_spec(spec, self._compiled.document)
        compiled = self._compiled if spec.chart is None else Compiled(spec.chart)
        self._enter(spec)
        lifecycle = Lifecycle(
            spec, compiled, self._context, on_change=self._on_change, log_to=self._log
        )
        lifecycles[spec.name] = lifecycle
        if spec.autostart:
            now = self._context.timers.now()
            self._context.tasks.start_soon(autostart, self._supervisor, spec.name, now)
        return lifecycle

    def _on_change(self, lifecycle: Lifecycle) -> None:
        self.holds.on_change(lifecycle)
        self._dispatcher.on_change(lifecycle)

    def _enter(self, spec: ServiceSpec) -> ServiceEntry:
        """Add *spec* to the scheduler, or change its entry there."""
        return self._scheduler.add(
            spec.name, limit=spec.concurrency_limit, is_pinned=spec.pinned, need=spec.memory
        )

    def update(self, spec: ServiceSpec, cause: str) -> Difference:
        """Change the service of that name into *spec*."""
        lifecycle = self._services.lookup(spec.name)
        require_spec(spec, self._compiled.document)
        retirement = self._services.retiring.get(spec.name)
        if retirement is not None:
            retirement.successor = spec
            return "restart"
        if lifecycle.spec.chart != spec.chart:
            self.retire(spec.name, cause, spec)
            return "restart"
        with self._dispatcher.batch():
            difference = compare(lifecycle.spec, spec)
            is_other = difference != "same" or lifecycle.next_spec is not None
            if difference == "restart" or (is_other and lifecycle.is_quiet):
                self._dispatcher.requeue_waiters(lifecycle, cause)
            lifecycle.update_spec(spec, cause)
            entry = self._enter(spec)
            entry.closed_reason = ""
            is_stopping = "stopping" in lifecycle.configuration and lifecycle.state != "stuck"
            if lifecycle.next_spec is not None and is_stopping:
                entry.closed_reason = f"{spec.name} stops first, since {cause}"
        return difference

    def apply(
        self, services: Iterable[ServiceSpec], policy: EvictionPolicy | None,
        queue: QueueLimits | None, cause: str,
    ) -> dict[str, Change]:  # fmt: skip
        """Replace all services by *services*."""
        specs = list(services)
        check_specs(specs, self._compiled.document)
        self._services.check_open()
        lifecycles, retiring = self._services.lifecycles, self._services.retiring
        changes: dict[str, Change] = {}
        with self._dispatcher.batch():
            self._dispatcher.policy = policy or self._dispatcher.policy
            self._scheduler.limits = queue or self._scheduler.limits
            for name in lifecycles.keys() - {spec.name for spec in specs}:
                if name not in retiring:
                    changes[name] = "removed"
                self.retire(name, "removed")
            for spec in specs:
                if spec.name in lifecycles:
                    is_back = spec.name in retiring
                    difference = self.update(spec, cause)
                    if difference != "same":
                        changes[spec.name] = "added" if is_back else difference
                else:
                    self.add(spec)
                    changes[spec.name] = "added"
        return changes

    def retire(self, name: str, cause: str, successor: ServiceSpec | None = None) -> Retirement:
        """Begin to remove *name*, whose name goes to *successor* then."""
        services = self._services
        lifecycle, retirement = services.lookup(name), services.retiring.get(name)
        if retirement is not None:
            retirement.successor = successor
            return retirement
        retirement = services.retiring[name] = Retirement(successor=successor)
        with self._dispatcher.batch():
            for request in self._scheduler.clear(name):
                request.waiter.refuse(services.removed(name))
            lifecycle.retire(services.removed(name), cause)
        if self._scheduler.services[name].granted == 0:
            retirement.released.set()
        self._context.tasks.start_soon(self._complete, lifecycle, retirement)
        return retirement

    async def _complete(self, lifecycle: Lifecycle, retirement: Retirement) -> None:
        name = lifecycle.spec.name
        try:
            await lifecycle.wait_for("shut_down")
            await lifecycle.wait_activities()
            await retirement.released.wait()
            if not self._services.is_closing:  # else the end of the supervisor waits for all
                self._replace(name, retirement.successor)
        finally:
            retirement.completed.set()

    def _replace(self, name: str, successor: ServiceSpec | None) -> None:
        self._services.forget(name)
        with self._dispatcher.batch():
            self._dispatcher.remove(name)
            if successor is not None:
                self.add(successor)


def check_specs(specs: Sequence[ServiceSpec], default: Document) -> None:
    """Check that all names differ, and the charts and parameters; see `require_spec`.

    Raises:
        ConfigError: Two of *specs* have one name, or a parameter is wrong.
        ChartError: A chart breaks a promise.
    """
    known: set[str] = set()
    for spec in specs:
        if spec.name in known:
            raise ConfigError(spec.name, "expected different names, got this one twice")
        known.add(spec.name)
    for spec in specs:
        require_spec(spec, default)
