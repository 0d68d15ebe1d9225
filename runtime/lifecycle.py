"""Lifecycle of one service: its chart, its process and its waiting requests.

`LifecycleDriver` steps the chart and performs the effects; a `Lifecycle` is what the supervisor
and embedding programs see of it: properties to read, events to post, and waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio

from ..machine import Compiled
from ..machine.senders import OF_A_SERVICE, check_sender
from .adoption import RunFacts
from .arguments import require_kind, require_seconds, require_text
from .errors import RequestError
from .lifecycle_state import LifecycleState
from .log_ring import LogRing
from .ports import ProcessHandle
from .service_state import NO_DATA, RuntimeContext, ServiceState
from .spec import ServiceSpec
from .spec_diff import Difference
from .waiter import PendingRequest


class Lifecycle(LifecycleState):
    """One service: its chart, its process while there is one, and the requests that wait for it.

    Args:
        spec: Specification of the service.
        compiled: The chart.
        runtime: Shared by all lifecycles of a supervisor.
        on_change: Called after each step that changed the configuration; must not raise.
        log_to: Gets the output of the service too.

    Attributes:
        unhandled: Events that the chart did not expect, as (configuration, event): always empty
            unless the chart is wrong.
    """

    __slots__ = ("_on_change",)

    def __init__(
        self, spec: ServiceSpec, compiled: Compiled, runtime: RuntimeContext, *,
        on_change: Callable[[Lifecycle], None] | None = None, log_to: LogRing | None = None,
    ) -> None:  # fmt: skip
        self._on_change = on_change
        log = LogRing(spec.log_limit_bytes, forward=log_to)
        super().__init__(ServiceState(spec, runtime, log), compiled, self._report_change)

    def _report_change(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    # ---- requests
    def request(self, waiter: PendingRequest) -> None:
        """Admit, queue or refuse *waiter*; never waits."""
        self._driver.post("request", waiter=waiter)

    def count_in_flight(self, change: int) -> None:
        """Change the chart's number of requests in flight without a step; see `Holds`."""
        self._driver.count_in_flight(change)

    def withdraw(self, waiter: PendingRequest, cause: str = "the client left") -> None:
        """Remove a request that waits, or finish it if it was just admitted."""
        if waiter.admitted is None:
            self._driver.requests.waiting.pop(waiter, None)
            self._driver.post("abandon", cause=cause)
        elif waiter.admitted:
            self._driver.post("finish")

    def finish(self) -> None:
        """Finish one admitted request, however it ended."""
        self._driver.post("finish")

    async def acquire(self) -> None:
        """Wait until the service is ready and hold it; pair with `finish`.

        Raises:
            RequestError: The request was refused.
        """
        waiter = PendingRequest()
        self.request(waiter)
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            self.withdraw(waiter)
            raise

    # ---- commands
    def post(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *, cause: str = ""
    ) -> None:
        """Process *event*, now or, inside a step, right after it; never waits.

        An event that the chart does not handle at this moment is logged and changes nothing.

        Args:
            event: Name of an event that the chart declares.
            data: Fields of the event.
            cause: Reason in words; kept until an event with another one.

        Raises:
            EventError: An activity, a timer, the process, a request or the chart itself sends the
                event, or it has no such field or value. Nothing was changed.
        """
        machine = self._driver.machine
        data = machine.fields(event, data)
        check_sender(machine.document, event, OF_A_SERVICE)
        require_text("cause", cause)
        self._driver.post(event, data, cause=cause)

    def replay(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        waiter: PendingRequest | None = None, cause: str = "",
    ) -> None:  # fmt: skip
        """Process *event* as `post` does, in place of whatever sends it.

        It is for tests. Whether its timer is armed, its activity or the process runs is not
        checked, so the service may come where the checker has not been.

        Args:
            event: Name of an event that the chart declares.
            data: Fields of the event.
            waiter: Request that the event is about.
            cause: Reason in words; kept until an event with another one.
        """
        self._driver.post(event, data, waiter=waiter, cause=cause)

    def tell(self, event: str, cause: str = "") -> bool:
        """Process *event* of the supervisor; return False if the chart does not declare it."""
        return self._driver.tell(event, cause=cause)

    def start(self, cause: str = "asked to start") -> None:
        """Start the service without a request; an `EventError` if its chart has no ``start``."""
        self.post("start", cause=cause)

    def stop_nowait(self, cause: str = "asked to stop") -> None:
        """Begin to stop: drain, hooks, terminate, kill."""
        require_text("cause", cause)
        self._driver.post("stop", cause=cause)

    async def stop(self, cause: str = "asked to stop") -> bool:
        """Stop, and return when the process is gone.

        Returns:
            False if the service was still busy at its drain limit and refuses the stop then.
        """
        self.stop_nowait(cause)
        return await self.wait_stopped()

    async def wait_stopped(self) -> bool:
        """Wait until a stop under way is complete; return at once if there is none.

        Returns:
            As `stop`.
        """
        if "stopping" not in self.configuration:
            return True
        stop = PendingRequest()
        self._driver.requests.stops.append(stop)
        try:
            await stop.wait()
        except RequestError:
            return False
        return True

    def evict(self, cause: str) -> None:
        """Stop for the sake of others; a failed service does not restart by itself.

        Its backoff or cooldown goes on: evictions must not make a broken service start more often.
        Unless it is part of a swap to another service, it leaves its memory to other programs.
        """
        is_going = self.is_quiet or "stopping" in self.configuration
        with self._service.runtime.swaps.caused_by("memory"):
            if not (is_going and self.tell("give_way", cause)):
                self._driver.post("stop", cause=cause)

    def retire(self, error: RequestError, cause: str) -> None:
        """Shut down for good; waiting and later requests are refused with *error*."""
        self._driver.requests.shutdown_error = error
        with self._service.runtime.swaps.caused_by("reload"):
            self._driver.post("shutdown", cause=cause)

    def end_within(self, limit_s: float | None) -> None:
        """Limit the drain, since the supervisor kills after *limit_s* seconds; None removes that.

        A drain then leaves time for hooks and grace period, but gets at least half of the limit.
        """
        require_seconds("limit_s", limit_s, or_none=True)
        self._service.end_limit_s = limit_s

    def note_stall(self, cause: str = "a response has stalled") -> None:
        """Report that a response has stalled or not begun: with liveness, it is unhealthy."""
        require_text("cause", cause)
        self._driver.activities.liveness.note_stall(cause)

    def note_unreachable(self, cause: str) -> None:
        """Report that a request did not reach the process; on a lost node, it is unhealthy.

        Its launcher is asked first, so a process that is there loses nothing but the request.
        """
        require_text("cause", cause)
        if self._service.location is not None:
            runtime = self._service.runtime
            runtime.tasks.start_soon(self._driver.activities.liveness.examine, cause)

    def keep_for(self, seconds: float | None) -> None:
        """Stop this run of the service after *seconds* without a request; infinity means never.

        It replaces the idle limit of the specification, up to ``timings.keep_limit``, until the
        next call or the next start; None ends that. Pinned services keep their own, and eviction
        is not affected.
        """
        require_seconds("seconds", seconds, or_none=True)
        self._driver.timers.keep_for(seconds)

    def adopt(self, process: ProcessHandle, facts: RunFacts) -> None:
        """Take *process*, left running by an earlier supervisor; see `leaving.adopt`."""
        self._driver.adopt(process, facts)

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active.

        Raises:
            UnknownStateError: The chart has no such state, or leaves it in the step that enters it.
            EndedError: The service was shut down, so that none of the states can come any more.
        """
        await self._driver.wait_for(*states)

    def is_running(self, name: str) -> bool:
        """Return True if activity *name* is running."""
        require_text("name", name)
        return self._driver.tasks.is_running(name)

    async def wait_activities(self) -> None:
        """Wait until no activity is running, at the end of a supervisor."""
        await self._driver.tasks.wait()

    # ---- specification
    def update_spec(
        self, spec: ServiceSpec, cause: str = "its specification changed"
    ) -> Difference:
        """Change the specification into *spec* as soon as possible; never waits. See `Difference`.

        Without a process it changes at once, and the failure count is reset. Requests that wait
        for a start are refused if that start is aborted: requeue them before.
        """
        require_kind("spec", spec, ServiceSpec, "a ServiceSpec")
        require_text("cause", cause)
        with self._service.runtime.swaps.caused_by("reload"):
            return self._driver.update_spec(spec, cause)
