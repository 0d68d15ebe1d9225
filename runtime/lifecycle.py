"""Drives the chart of one service: takes events, performs effects, and nothing waits in between.

A step is synchronous: no ``await`` can land inside it, so a cancelled request can never break a
chart, and ``stop`` is answered while a hook or a health check runs. What takes time is an
*activity*: a task that ends by posting an event, and whose event is dropped if it was cancelled
before.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

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
from .activity import Activity
from .errors import RequestError
from .hook_actions import HookContext
from .hooks import HookRunner
from .lifecycle_timers import LifecycleTimers
from .log_ring import LogRing
from .ports import Exit, ProcessHandle
from .service_state import NO_DATA, RuntimeContext, ServiceState
from .spec import ServiceSpec
from .spec_diff import Difference, compare
from .transition import Transition
from .waiter import PendingRequest

log = logging.getLogger(__name__)

_TAIL_LINES = 20


@dataclass(slots=True)
class _Post:
    event: str
    data: Mapping[str, str | int | bool]
    source: Activity | None
    waiter: PendingRequest | None
    cause: str


class Lifecycle:
    """One service: its chart, its process while there is one, and those who wait for it.

    Attributes:
        refusal: Why requests were refused last.
        unhandled: Events that the chart did not expect, as (configuration, event): always empty
            unless the chart is wrong.
    """

    def __init__(
        self, spec: ServiceSpec, compiled: Compiled, world: RuntimeContext, *,
        on_change: Callable[[Lifecycle], None] | None = None, log_to: LogRing | None = None,
    ) -> None:  # fmt: skip
        self._service = ServiceState(spec, world, LogRing(spec.log_limit_bytes, forward=log_to))
        self.refusal: RequestError | None = None
        self.unhandled: list[tuple[Configuration, str]] = []
        self._document = compiled.document
        self._stepper = compiled.stepper(**self._parameters(spec))
        self._activities = Activities(self._service, self.post, self.variable, self.apply_spec)
        self._started: dict[str, Activity] = {}
        events = compiled.document.events.items()
        self._limits = LifecycleTimers(
            self._service, self.post, self.variable,
            {e.of: name for name, e in events if e.origin == "timer"},
        )  # fmt: skip
        self._queued: dict[PendingRequest, None] = {}
        self._stoppers: list[PendingRequest] = []
        self._shutdown_error: RequestError | None = None
        self._inbox: deque[_Post] = deque()
        self._is_stepping = False
        self._changed: anyio.Event | None = None
        self._on_change = on_change
        self._perform_all(self._stepper.begin(), None)

    # ---- what others may read; a read that gates a write is a bug: post an event instead
    @property
    def spec(self) -> ServiceSpec:
        """What the service is; of the incarnation, where there is one."""
        return self._service.spec

    @property
    def next_spec(self) -> ServiceSpec | None:
        """What it is from its next start on; None: the same."""
        return self._service.next_spec

    @property
    def log(self) -> LogRing:
        """Its output, hooks included."""
        return self._service.log

    @property
    def process(self) -> ProcessHandle | None:
        """The running incarnation, or None."""
        return self._service.process

    @property
    def incarnation(self) -> int:
        """Count of launches; the first is 1."""
        return self._service.incarnation

    @property
    def last_exit(self) -> Exit | None:
        """How the last incarnation ended."""
        return self._service.last_exit

    @property
    def cause(self) -> str:
        """Why the lifecycle is where it is, in words."""
        return self._service.cause

    @property
    def since(self) -> float:
        """When the current configuration was entered; seconds on the loop's clock."""
        return self._service.since

    @property
    def hooks(self) -> HookRunner:
        """Runs the hooks of the present incarnation's declaration."""
        return self._service.hooks

    @property
    def after_healthy(self) -> str:
        """How the ``afterHealthy`` hooks of this incarnation ended; ``none`` before."""
        return self._service.after_healthy

    def context(self, point: str) -> HookContext:
        """Return what the hooks of *point* get to know now."""
        return self._service.context(point)

    def end_within(self, limit_s: float | None) -> None:
        """Note that the supervisor ends, and kills after *limit_s* seconds; None takes it back.

        A drain then leaves time for hooks and grace, but need not give up more than half.
        """
        self._service.end_limit_s = limit_s

    @property
    def document(self) -> Document:
        """The chart that it runs by."""
        return self._document

    @property
    def configuration(self) -> Configuration:
        """All active states, outermost first."""
        return self._stepper.configuration

    @property
    def state(self) -> str:
        """The innermost active state, such as ``health_checking``."""
        return self._stepper.configuration[-1]

    @property
    def is_final(self) -> bool:
        """Tell whether it has shut down for good."""
        return self._stepper.is_final

    @property
    def is_stepping(self) -> bool:
        """Tell whether it is within a step: what is posted now is taken right after it."""
        return self._is_stepping

    @property
    def is_quiet(self) -> bool:
        """Tell whether there is no process, and none is about to be or has just been."""
        return self.state in self._document.promises.quiet

    @property
    def has_demand(self) -> bool:
        """Tell whether it shall run: somebody waits, or it comes back by itself."""
        return bool(self._queued or self.variable("wanted"))

    @property
    def waiting(self) -> int:
        """How many requests wait here."""
        return len(self._queued)

    @property
    def waiters(self) -> tuple[PendingRequest, ...]:
        """The requests that wait here."""
        return tuple(self._queued)

    @property
    def in_flight(self) -> int:
        """How many requests were admitted and have not finished."""
        return int(getattr(self._stepper.context, "in_flight", 0))

    @property
    def failures(self) -> int:
        """How many failures in a row the chart counts."""
        return int(getattr(self._stepper.context, "attempts", 0))

    def variable(self, name: str) -> object:
        """Return one variable of the chart's data, or None when it has no such variable."""
        return getattr(self._stepper.context, name, None)

    def deadline(self, timer: str) -> float | None:
        """When *timer* fires; seconds on the loop's clock, or None when it is not armed."""
        return self._limits.deadline(timer)

    def why_fired(self, timer: str) -> str:
        """Say in words why the event of *timer* comes."""
        return self._service.why_fired(timer)

    # ---- what others may ask for
    def request(self, waiter: PendingRequest) -> None:
        """Admit, queue or refuse *waiter*; never waits."""
        self.post("request", waiter=waiter)

    def withdraw(self, waiter: PendingRequest, cause: str = "the client left") -> None:
        """Take back a request that waits, or finish it if it was just admitted."""
        if waiter.admitted is None:
            self._queued.pop(waiter, None)
            self.post("abandon", cause=cause)
        elif waiter.admitted:
            self.post("finish")

    def finish(self) -> None:
        """One admitted request has ended, however it did."""
        self.post("finish")

    async def acquire(self) -> None:
        """Wait until the service is ready and hold it; pair with `finish`.

        Raises:
            RequestError: It was refused.
        """
        waiter = PendingRequest()
        self.request(waiter)
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            self.withdraw(waiter)
            raise

    def start(self, cause: str = "asked to start") -> None:
        """Bring the service up though nobody waits."""
        self.post("start", cause=cause)

    def stop_nowait(self, cause: str = "asked to stop") -> None:
        """Begin a stop: drain, hooks, terminate, kill."""
        self.post("stop", cause=cause)

    def evict(self, cause: str) -> None:
        """Stop for the sake of another service; what has failed does not come back by itself.

        Its pause or its cooldown goes on: others that come and go must not make a broken service
        start more often.
        """
        is_going = self.is_quiet or "stopping" in self.configuration
        can_stay = is_going and "give_way" in self._document.events
        self.post("give_way" if can_stay else "stop", cause=cause)

    def retire(self, error: RequestError, cause: str) -> None:
        """Shut down for good; whoever waits, or asks later, is refused with *error*."""
        self._shutdown_error = error
        self.post("shutdown", cause=cause)

    def note_stall(self) -> None:
        """Tell that a stream of this service carries nothing: it is unhealthy, if it is probed."""
        self._activities.stall.set()

    async def stop(self, cause: str = "asked to stop") -> bool:
        """Stop, and return when the process that was found is gone.

        Returns:
            False when it is not: the drain limit was reached, and then the service refuses to stop.
        """
        self.post("stop", cause=cause)
        return await self.wait_stopped()

    async def wait_stopped(self) -> bool:
        """Return when the process of a stop under way is gone; at once when there is none.

        Returns:
            As `stop`.
        """
        if "stopping" not in self.configuration:
            return True
        stopper = PendingRequest()
        self._stoppers.append(stopper)
        try:
            await stopper.wait()
        except RequestError:
            return False
        return True

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active."""
        while not set(states) & set(self.configuration):
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    # ---- another declaration
    def update_spec(self, spec: ServiceSpec, cause: str = "its declaration changed") -> Difference:
        """Be what *spec* says as soon as that is possible; see `Difference`. Never waits.

        Without a process it is so at once, and earlier failures are forgiven. Requests that
        wait for a start are refused if that start is ended: take them back before.
        """
        difference = compare(self._service.spec, spec)
        self._limits.retime(spec)
        self.log.resize(spec.log_limit_bytes)
        if self.is_quiet:
            is_other = difference != "same" or self.next_spec is not None
            self.apply_spec(spec)
            if is_other and self.state != "stopped":
                self.post("start" if self.has_demand else "stop", cause=cause)
            return difference
        self._service.next_spec = spec if difference in ("next_start", "restart") else None
        if difference == "restart":
            is_wanted = self.variable("wanted")
            self.post("stop", cause=cause)
            if is_wanted:  # by its restart policy: it comes back, as what it is then
                self.post("start", cause=cause)
        return difference

    def apply_spec(self, spec: ServiceSpec) -> None:
        """Be *spec* from now on: where there is no process, or one is just going to be."""
        self._service.adopt(spec)
        for name, value in self._parameters(spec).items():
            setattr(self._stepper.context, name, value)

    def _parameters(self, spec: ServiceSpec) -> dict[str, str | int | bool]:
        parameters: dict[str, str | int | bool] = {
            "intensity": spec.intensity, "restart": spec.restart, "abandon": spec.abandon,
            "drain": spec.drain, **spec.parameters,
        }  # fmt: skip
        return {k: v for k, v in parameters.items() if k in self._document.parameters}

    # ---- stepping
    def post(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        source: Activity | None = None, waiter: PendingRequest | None = None, cause: str = "",
    ) -> None:  # fmt: skip
        """Take *event*, now or, inside a step, right after it. Never waits, never raises.

        Args:
            event: Declared in the chart.
            data: Its fields.
            source: The activity it answers for; dropped if that was cancelled.
            waiter: The request it is about.
            cause: Why, in words; kept until another event brings its own.
        """
        self._inbox.append(_Post(event, data, source, waiter, cause))
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._inbox:
                self._step(self._inbox.popleft())
        finally:
            self._is_stepping = False

    def _step(self, post: _Post) -> None:
        if post.source is not None and post.source.is_dead:
            return
        stepper = self._stepper
        if stepper.is_final:
            if post.waiter is not None:
                post.waiter.refuse(self._shut_down_error())
            return
        before = stepper.configuration
        try:
            effects = stepper.step(post.event, post.data)
        except NotHandledError:
            self.unhandled.append((before, post.event))
            log.exception("%s: the chart does not handle %r", self.spec.name, post.event)
            if post.waiter is not None:
                post.waiter.refuse(RequestError("internal", "unexpected request", status_hint=500))
            return
        after = stepper.configuration
        has_moved = after is not before
        if has_moved or post.cause:
            self._note_cause(post, before, has_moved)
        if has_moved:
            self._record(post, before[-1], after)
        self._perform_all(effects, post)
        if post.event == "kill":
            self._activities.hurry()
        next_spec = self._service.next_spec
        if next_spec is not None and self.is_quiet:
            self.apply_spec(next_spec)
            if self.state != "stopped" and not self.has_demand:
                self.post("stop")  # what failed was another
                return  # told after that: who is granted now would come behind it
        if has_moved and self._on_change is not None:
            self._on_change(self)

    def _note_cause(self, post: _Post, before: Configuration, has_moved: bool) -> None:
        if post.event == "proc_exited" and "stopping" in before:
            return  # why it stops matters longer than how the process then ended
        if post.cause:
            self._service.cause = post.cause
        elif has_moved and post.event == "request":
            self._service.cause = "requested"

    def _record(self, post: _Post, source: str, after: Configuration) -> None:
        now = self._service.world.timers.now()
        results, self._service.hook_results = tuple(self._service.hook_results), []
        record = Transition(
            service=self.spec.name, at=now, event=post.event, cause=post.cause or self.cause,
            source=source, target=after[-1], configuration=after, seconds=now - self.since,
            incarnation=self._service.incarnation, pid=self.process.pid if self.process else None,
            exit=self.last_exit if post.event == "proc_exited" else None, hooks=results,
        )  # fmt: skip
        self._service.since = now
        log.debug("%s: %s -> %s (%s)", self.spec.name, source, after[-1], post.event)
        self._service.world.notify(record)
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    # ---- effects; none may wait or raise
    def _perform_all(self, effects: list[Effect], post: _Post | None) -> None:
        for effect in effects:
            self._perform(effect, post)

    def _perform(self, effect: Effect, post: _Post | None) -> None:
        match effect:
            case CancelTimer(timer=name):
                self._limits.disarm(name)
            case AdmitWaiter():
                self._waiter_of(post).admit()
            case StartTimer(timer=name):
                self._limits.arm(name)
            case QueueWaiter():
                self._queued[self._waiter_of(post)] = None
            case RejectWaiter():
                self._waiter_of(post).refuse(self.refusal_now(post.event if post else ""))
            case AdmitAll():
                queued, self._queued = self._queued, {}
                for waiter in queued:
                    waiter.admit()
            case RejectAll():
                self._refuse_all(post)
            case StartActivity(activity=name, point=point):
                self._start(name, point)
            case CancelActivity(activity=name):
                started = self._started.get(name)
                if started is not None:
                    started.cancel()
            case KillProcess():
                if self.process is not None:
                    self.process.kill()
            case StopDone():
                self._answer_stoppers()
            case Notify(name=name):
                self._activities.notified(name)
            case _:
                assert_never(effect)

    def _answer_stoppers(self) -> None:
        stoppers, self._stoppers = self._stoppers, []
        for stopper in stoppers:
            if self.state == "ready":
                stopper.refuse(RequestError("busy", f"{self.spec.name} is busy", status_hint=409))
            else:
                stopper.admit()

    @staticmethod
    def _waiter_of(post: _Post | None) -> PendingRequest:
        assert post is not None, "an effect on a waiter without an event"
        assert post.waiter is not None, f"{post.event} came without a waiter"
        return post.waiter

    def _refuse_all(self, post: _Post | None) -> None:
        event = post.event if post is not None else ""
        if event in _FAILURES:
            self.refusal = self.refusal_now(event)
        queued, self._queued = self._queued, {}
        if queued:
            error = self.refusal_now(event)
            for waiter in queued:
                waiter.refuse(error)

    def refusal_now(self, event: str = "") -> RequestError:
        """Say why a request is refused at this moment."""
        name = self.spec.name
        if event in _FAILURES:
            return RequestError(
                _FAILURES[event], f"{name} failed: {self.cause}", status_hint=502,
                log_tail=tuple(self.log.tail(_TAIL_LINES)),
            )  # fmt: skip
        state = self.state
        if state in ("tripped", "crashed"):
            left = self.deadline("cooldown")
            wait = None if left is None else max(left - self._service.world.timers.now(), 0.0)
            why = self.refusal or self.cause
            return RequestError(
                "failed", f"{name} is not tried again for now: {why}", retry_after_s=wait or 1.0
            )
        if self.is_final or self.variable("intent") == "shutdown":
            return self._shut_down_error()
        if state == "stuck":
            return RequestError("stuck", f"the process of {name} cannot be killed")
        return RequestError("stopped", f"{name} was stopped: {self.cause}", retry_after_s=1.0)

    def _shut_down_error(self) -> RequestError:
        return self._shutdown_error or RequestError(
            "shutting_down", f"{self.spec.name} is shutting down"
        )

    # ---- activities
    def _start(self, name: str, point: str) -> None:
        previous = self._started.get(name)
        if previous is not None:
            previous.cancel()
        activity = Activity(name, is_preceded=previous is not None and previous.is_running)
        self._started[name] = activity
        body = self._activities.body(activity, name, point)
        if body is not None:
            activity.begin()
            self._service.world.tasks.start_soon(self._live, activity, previous, body)

    async def _live(
        self, activity: Activity, previous: Activity | None, body: Callable[[], Awaitable[None]]
    ) -> None:
        assert activity.ended is not None, "begun by whoever starts the task"
        try:
            await activity.live(previous, body)
        except Exception:
            log.exception("%s: activity %s failed", self.spec.name, activity.name)
            answer = _WHEN_BROKEN.get(activity.name)
            if answer is not None:
                event, data = answer
                self.post(event, data, source=activity, cause="internal error; see the log")
        finally:
            activity.ended.set()

    def is_running(self, name: str) -> bool:
        """Tell whether activity *name* is running."""
        activity = self._started.get(name)
        return activity is not None and activity.is_running

    async def wait_activities(self) -> None:
        """Wait until no activity is running: for the end of a supervisor."""
        for activity in list(self._started.values()):
            if activity.ended is not None:
                await activity.ended.wait()


#: An activity that breaks, by a fault of ours, still answers: nothing may wait for ever.
_WHEN_BROKEN: Mapping[str, tuple[str, Mapping[str, str | int | bool]]] = {
    "hooks": ("hooks_failed", NO_DATA),
    "spawn": ("spawn_failed", {"permanent": False}),
    "health": ("start_expired", NO_DATA),
    "liveness": ("unhealthy", NO_DATA),
    "sweep": ("swept", NO_DATA),
    "settle": ("settled", NO_DATA),
}

#: Events by which a start or a server fails -> machine-readable reason of the refusal.
_FAILURES = {
    "hooks_failed": "hook_failed",
    "spawn_failed": "spawn_failed",
    "proc_exited": "exited",
    "start_expired": "start_timeout",
    "stalled": "start_stalled",
    "unhealthy": "unhealthy",
}
