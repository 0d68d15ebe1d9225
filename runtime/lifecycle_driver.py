"""Lifecycle driver: steps the chart of one service and performs the effects of each step.

A step is synchronous: no ``await`` can land inside it, so a cancelled request can never break a
chart, and ``stop`` takes effect while a hook or a health check runs. What takes time is an
*activity*: a task that ends by posting an event, and whose event is dropped if the activity was
cancelled before.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias, assert_never

import anyio

from ..machine import (
    AdmitAll,
    AdmitWaiter,
    CancelActivity,
    CancelTimer,
    Compiled,
    Configuration,
    Document,
    Effect,
    KillProcess,
    NotHandledError,
    Notify,
    QueueWaiter,
    RejectAll,
    RejectWaiter,
    StartActivity,
    StartTimer,
    StopDone,
)
from .activities import Activities
from .activity import Activity, ActivityTasks, Body
from .adoption import RunFacts
from .engine import EndedError
from .engine.waits import check_states
from .errors import RequestError
from .lifecycle_requests import LifecycleRequests
from .lifecycle_timers import LifecycleTimers
from .ports import ProcessHandle
from .service_state import NO_DATA, ServiceState
from .spec import ServiceSpec
from .spec_diff import Difference, compare
from .transition import Transition
from .waiter import PendingRequest

log = logging.getLogger(__name__)


#: Event with its fields, the activity and the request that it is of, and its cause.
_Post: TypeAlias = tuple[
    str, Mapping[str, str | int | bool], Activity | None, PendingRequest | None, str
]


class LifecycleDriver:
    """The chart of one service, and whatever its effects act on.

    Args:
        service: The facts of the service.
        compiled: The chart.
        on_change: Called after each step that changed the configuration; must not raise.

    Attributes:
        machine: The chart, compiled.
        document: The document of the chart.
        stepper: The chart.
        timers: The timers of the chart.
        activities: The work of the activities.
        tasks: The running activities.
        requests: The requests that wait.
        served: Datum that counts the requests in flight.
        unhandled: Events that the chart did not expect, as (configuration, event): always empty
            unless the chart is wrong.
        is_stepping: A step is under way; events that are posted now are processed right after it.
    """

    __slots__ = (
        "_changed", "_health_failed", "_inbox", "_on_change", "_service", "activities", "document",
        "is_stepping", "machine", "requests", "served", "stepper", "tasks", "timers", "unhandled",
    )  # fmt: skip

    def __init__(
        self, service: ServiceState, compiled: Compiled, on_change: Callable[[], None]
    ) -> None:
        self.machine, self.document = compiled, compiled.document
        self.stepper = compiled.stepper(**self._parameters(service.spec))
        failures = compiled.failures
        counted = compiled.document.promises.requests
        self.served = "in_flight" if counted is None else counted.served
        self._health_failed = failures.get("health") or compiled.fired.get("start_limit", "")
        self.activities = Activities(
            service, self.tell, self.variable, self.apply_spec, self._health_failed
        )
        events = compiled.document.events.items()
        self.timers = LifecycleTimers(
            service, self.post, self.variable,
            {e.of: name for name, e in events if e.origin == "timer"},
        )  # fmt: skip
        self.tasks = ActivityTasks(service.runtime.tasks, self._activity_failed)
        self.requests = LifecycleRequests(service, self.stepper, self.timers)
        self.unhandled: list[tuple[Configuration, str]] = []
        self.is_stepping = False
        self._service, self._on_change = service, on_change
        self._inbox: deque[_Post] = deque()
        self._changed: anyio.Event | None = None

    def begin(self) -> None:
        """Perform the effects of the initial configuration; once, before any event."""
        for effect in self.stepper.begin():
            self._perform(effect, "", None)

    @property
    def is_quiet(self) -> bool:
        """True if there is no process, and none is being started or has just ended."""
        return self.stepper.configuration[-1] in self.document.promises.quiet

    @property
    def has_demand(self) -> bool:
        """True if the service should run: requests wait, or it restarts by itself."""
        return bool(self.requests.waiting or self.variable("wanted"))

    def variable(self, name: str) -> object:
        """Return one variable of the chart's data; None if it has no such variable."""
        return getattr(self.stepper.context, name, None)

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active; see `Lifecycle.wait_for`."""
        name = self._service.spec.name
        check_states(self.machine, name, states)
        while not set(states) & set(self.stepper.configuration):
            if self.stepper.is_final:
                raise EndedError(name, states, "the service was shut down")
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    def adopt(self, process: ProcessHandle, facts: RunFacts) -> None:
        """Take a process of an earlier supervisor; see `Lifecycle.adopt`."""
        self.activities.adopt(process, facts)
        self.tell("adopted", {"asleep": facts.is_asleep}, cause=f"pid {process.pid}, adopted")

    # ---- specification
    def apply_spec(self, spec: ServiceSpec) -> None:
        """Make *spec* the specification: without a process, or just before one is started."""
        self._service.adopt(spec)
        for name, value in self._parameters(spec).items():
            setattr(self.stepper.context, name, value)

    def update_spec(self, spec: ServiceSpec, cause: str) -> Difference:
        """Change the specification into *spec*; see `Lifecycle.update_spec`."""
        service = self._service
        difference = compare(service.spec, spec)
        self.timers.retime(spec)
        service.log.resize(spec.log_limit_bytes)
        if self.is_quiet:
            is_other = difference != "same" or service.next_spec is not None
            self.apply_spec(spec)
            if is_other and self.stepper.configuration[-1] != "stopped":
                self.tell("start" if self.has_demand else "stop", cause=cause)
            return difference
        service.next_spec = spec if difference in ("next_start", "restart") else None
        if difference == "restart":
            is_wanted = self.variable("wanted")
            self.post("stop", cause=cause)
            if is_wanted:  # by its restart policy: it restarts with the new specification
                self.tell("start", cause=cause)
        return difference

    def _parameters(self, spec: ServiceSpec) -> dict[str, str | int | bool]:
        return chart_parameters(spec, self.document)

    def count_in_flight(self, change: int) -> None:
        """Add *change* to the number of requests in flight if the chart counts them; >= 0."""
        present = self.variable(self.served)
        if isinstance(present, int):
            setattr(self.stepper.context, self.served, max(present + change, 0))

    # ---- steps
    def post(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        source: Activity | None = None, waiter: PendingRequest | None = None, cause: str = "",
    ) -> None:  # fmt: skip
        """Process *event*, now or, inside a step, right after it; see ``Lifecycle.post``."""
        inbox = self._inbox
        if self.is_stepping or inbox:
            inbox.append((event, data, source, waiter, cause))
            if self.is_stepping:
                return
            event, data, source, waiter, cause = inbox.popleft()
        self.is_stepping = True
        try:
            self._step(event, data, source, waiter, cause)
            while inbox:
                event, data, source, waiter, cause = inbox.popleft()
                self._step(event, data, source, waiter, cause)
        finally:
            self.is_stepping = False

    def tell(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        source: Activity | None = None, cause: str = "",
    ) -> bool:  # fmt: skip
        """Process *event* of the runtime itself if the chart declares it, with the declared fields.

        Returns:
            False if the chart declares no such event; see `require_events` for those that it must.
        """
        declared = self.document.events.get(event)
        if declared is None:
            return False
        known = {name: value for name, value in data.items() if name in declared.data}
        self.post(event, known, source=source, cause=cause)
        return True

    def _step(
        self, event: str, data: Mapping[str, str | int | bool], source: Activity | None,
        waiter: PendingRequest | None, cause: str,
    ) -> None:  # fmt: skip
        if source is not None and source.is_dead:
            return
        stepper = self.stepper
        if stepper.is_final:
            if waiter is not None:
                waiter.refuse(self.requests.shut_down())
            return
        before = stepper.configuration
        try:
            effects = stepper.step(event, data)
        except NotHandledError:
            self.unhandled.append((before, event))
            log.exception("%s: the chart does not handle %r", self._service.spec.name, event)
            if waiter is not None:
                waiter.refuse(RequestError("internal", "unexpected request", status_hint=500))
            return
        after = stepper.configuration
        has_moved = after is not before
        if has_moved or cause:
            self._note_cause(event, cause, before, has_moved)
        if has_moved:
            self._record(event, cause, before[-1], after)
        for effect in effects:
            self._perform(effect, event, waiter)
        if event == "kill":
            self.activities.expedite()
        next_spec = self._service.next_spec
        if next_spec is not None and self.is_quiet:
            self.apply_spec(next_spec)
            if stepper.configuration[-1] != "stopped" and not self.has_demand:
                self.post("stop")  # the failures were those of the earlier specification
                return  # reported after that stop: a request granted now would be refused by it
        if has_moved:
            self._on_change()

    def _note_cause(self, event: str, cause: str, before: Configuration, has_moved: bool) -> None:
        if event == "proc_exited" and "stopping" in before:
            return  # the reason of the stop matters longer than how the process then ended
        if cause:
            self._service.cause = cause
        elif has_moved and event == "request":
            self._service.cause = "requested"

    def _record(self, event: str, cause: str, source: str, after: Configuration) -> None:
        service = self._service
        now = service.runtime.timers.now()
        results = tuple(service.hook_results)
        # The list stays: a hook that this transition cancels adds its result once it has ended.
        service.hook_results.clear()
        service.hooks_s += sum(result.seconds for result in results)
        record = Transition(
            service=service.spec.name, at=now, event=event, cause=cause or service.cause,
            source=source, target=after[-1], configuration=after, seconds=now - service.since,
            incarnation=service.incarnation,
            pid=service.process.pid or None if service.process else None,
            exit=service.last_exit if event == "proc_exited" else None, hooks=results,
            node=service.node if service.process else "",
            swap=service.runtime.swaps.take(service.spec.name, event, after),
        )  # fmt: skip
        service.since = now
        log.debug("%s: %s -> %s (%s)", service.spec.name, source, after[-1], event)
        service.runtime.notify(record)
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    # ---- effects; none may wait or raise
    def _perform(self, effect: Effect, event: str, waiter: PendingRequest | None) -> None:
        match effect:
            case CancelTimer(timer=name):
                self.timers.disarm(name)
            case AdmitWaiter():
                self._waiter_of(event, waiter).admit()
            case StartTimer(timer=name):
                self.timers.arm(name)
            case QueueWaiter():
                self.requests.waiting[self._waiter_of(event, waiter)] = None
            case RejectWaiter():
                self._waiter_of(event, waiter).refuse(self.requests.error(event))
            case AdmitAll():
                self.requests.admit_all()
            case RejectAll():
                self.requests.refuse_all(event)
            case StartActivity(activity=name, point=point):
                self.tasks.start(name, partial(self._body, name, point))
            case CancelActivity(activity=name):
                self.tasks.cancel(name)
            case KillProcess():
                if self._service.process is not None:
                    self._service.process.kill()
            case StopDone():
                self.requests.end_stops()
            case Notify(name=name):
                self.activities.notified(name)
            case _:
                assert_never(effect)

    @staticmethod
    def _waiter_of(event: str, waiter: PendingRequest | None) -> PendingRequest:
        assert waiter is not None, f"{event or 'the initial configuration'} came without a waiter"
        return waiter

    def _body(self, name: str, point: str, activity: Activity) -> Body | None:
        return self.activities.body(activity, name, point)

    def _activity_failed(self, activity: Activity, error: Exception) -> None:
        name = self._service.spec.name
        log.error("%s: activity %s failed", name, activity.name, exc_info=error)
        event = self.machine.failures.get(activity.name, "")
        if activity.name == "health":
            event = self._health_failed
        self.tell(event, source=activity, cause="internal error; see the log")


def chart_parameters(spec: ServiceSpec, document: Document) -> dict[str, str | int | bool]:
    """Return the parameters of *document* that *spec* sets."""
    parameters: dict[str, str | int | bool] = {
        "intensity": spec.intensity, "restart": spec.restart, "abandon": spec.abandon,
        "drain": spec.drain, **spec.parameters,
    }  # fmt: skip
    return {k: v for k, v in parameters.items() if k in document.parameters}
