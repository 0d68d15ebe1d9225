"""State of a lifecycle: what others read of it, without what changes it; see `Lifecycle`."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..machine import Compiled, Configuration, Document
from .arguments import require_text
from .errors import RequestError
from .hook_actions import HookContext
from .hooks import HookRunner
from .lifecycle_driver import LifecycleDriver
from .log_ring import LogRing
from .ports import Exit, ProcessHandle
from .service_state import ServiceState
from .spec import ServiceSpec
from .swaps import is_at_rest
from .waiter import PendingRequest


class LifecycleState:
    """The state of one service. To decide on a write by it is a bug: post an event instead.

    Args:
        service: The facts of the service.
        compiled: The chart.
        on_change: Called after each step that changed the configuration; must not raise.

    Attributes:
        unhandled: Events that the chart did not expect, as (configuration, event): always empty
            unless the chart is wrong.
    """

    __slots__ = ("_driver", "_service", "unhandled")

    def __init__(
        self, service: ServiceState, compiled: Compiled, on_change: Callable[[], None]
    ) -> None:
        self._service = service
        self._driver = LifecycleDriver(service, compiled, on_change)
        self.unhandled = self._driver.unhandled
        self._driver.begin()

    @property
    def service(self) -> ServiceState:
        """State of the service beside its chart."""
        return self._service

    @property
    def spec(self) -> ServiceSpec:
        """Specification of the service; of its process, if there is one."""
        return self._service.spec

    @property
    def next_spec(self) -> ServiceSpec | None:
        """Specification from the next start on; None means the same."""
        return self._service.next_spec

    @property
    def log(self) -> LogRing:
        """Output of the service and of its hooks."""
        return self._service.log

    @property
    def process(self) -> ProcessHandle | None:
        """The running process, or None."""
        return self._service.process

    @property
    def endpoint(self) -> str:
        """Base URL at which its process is reached, or that of the specification."""
        return self._service.endpoint

    @property
    def node(self) -> str:
        """Node of its process; empty if there is none, or its launcher knows no nodes."""
        return self._service.node if self._service.process is not None else ""

    @property
    def incarnation(self) -> int:
        """Number of launches; the first one is 1."""
        return self._service.incarnation

    @property
    def is_kept(self) -> bool:
        """True if a request or a command has removed the idle limit of this incarnation."""
        service = self._service
        return service.process is not None and service.kept == (service.incarnation, math.inf)

    @property
    def last_exit(self) -> Exit | None:
        """How the last process ended, or None."""
        return self._service.last_exit

    @property
    def cause(self) -> str:
        """Reason of the last transition, in words."""
        return self._service.cause

    @property
    def since(self) -> float:
        """Time of the last transition, in seconds on the loop's clock."""
        return self._service.since

    @property
    def hooks_s(self) -> float:
        """Duration of all hooks that have ended by the last transition, in seconds."""
        return self._service.hooks_s

    @property
    def is_at_rest(self) -> bool:
        """True if it neither starts nor stops, nor falls asleep or wakes."""
        return is_at_rest(self.configuration)

    @property
    def hooks(self) -> HookRunner:
        """Runs the hooks of the present specification."""
        return self._service.hooks

    @property
    def after_healthy(self) -> str:
        """Outcome of the ``afterHealthy`` hooks of this incarnation; ``none`` before they ran."""
        return self._service.after_healthy

    def context(self, point: str) -> HookContext:
        """Return the context of the hooks of *point* at this moment."""
        return self._service.context(point)

    @property
    def document(self) -> Document:
        """Document of the chart."""
        return self._driver.document

    @property
    def configuration(self) -> Configuration:
        """All active states, outermost first."""
        return self._driver.stepper.configuration

    @property
    def state(self) -> str:
        """Innermost active state, such as ``health_checking``."""
        return self._driver.stepper.configuration[-1]

    @property
    def is_final(self) -> bool:
        """True after a shutdown."""
        return self._driver.stepper.is_final

    @property
    def is_stepping(self) -> bool:
        """True during a step: events that are posted now are processed right after it."""
        return self._driver.is_stepping

    @property
    def is_quiet(self) -> bool:
        """True if there is no process, and none is being started or has just ended."""
        return self._driver.is_quiet

    @property
    def has_demand(self) -> bool:
        """True if the service should run: requests wait, or it restarts by itself."""
        return self._driver.has_demand

    @property
    def waiting(self) -> int:
        """Number of requests that wait for the start."""
        return len(self._driver.requests.waiting)

    @property
    def waiters(self) -> tuple[PendingRequest, ...]:
        """Requests that wait for the start, in order of arrival."""
        return tuple(self._driver.requests.waiting)

    @property
    def in_flight(self) -> int:
        """Number of requests that were admitted and have not finished."""
        return int(getattr(self._driver.stepper.context, self._driver.served, 0))

    @property
    def failures(self) -> int:
        """Number of failures in a row, as the chart counts them."""
        return int(getattr(self._driver.stepper.context, "attempts", 0))

    @property
    def refusal(self) -> RequestError | None:
        """Error of the last failure, or None."""
        return self._driver.requests.last_failure

    def refusal_now(self) -> RequestError:
        """Return the error for a request that is refused at this moment."""
        return self._driver.requests.error()

    def variable(self, name: str) -> object:
        """Return one variable of the chart's data; None if it has no such variable."""
        require_text("name", name)
        return self._driver.variable(name)

    def deadline(self, timer: str) -> float | None:
        """Return when *timer* fires in seconds on the loop's clock; None if it is not armed."""
        require_text("timer", timer)
        return self._driver.timers.deadline(timer)
