"""Requests and stop commands that wait for one lifecycle, and the errors of those it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..machine import Stepper
from .errors import PlacementError, RequestError, StartError
from .lifecycle_timers import LifecycleTimers
from .service_state import ServiceState
from .waiter import PendingRequest

_TAIL_LINES = 20
#: Words of a server that cannot listen at its port; those of cpp-httplib are llama-server's.
_PORT_TAKEN = re.compile(
    r"address already in use|EADDRINUSE|address in use|couldn't bind HTTP server socket", re.I
)

#: Events by which a start or a service fails -> machine-readable code of the refusal.
_FAILURES: Mapping[str, str] = {
    "hooks_failed": "hook_failed",
    "spawn_failed": "spawn_failed",
    "proc_exited": "exited",
    "start_expired": "start_timeout",
    "stalled": "start_stalled",
    "unhealthy": "unhealthy",
}


class LifecycleRequests:
    """The waiting requests of one lifecycle.

    Args:
        service: The facts of the service.
        stepper: The chart of the service.
        timers: The timers of the service.

    Attributes:
        waiting: Requests that wait for the start, in order of arrival.
        stops: Stop commands that wait for the end of the process.
        last_failure: Error of the last failure, or None.
        shutdown_error: Error of requests after a shutdown; None means the usual one.
    """

    __slots__ = (
        "_service", "_stepper", "_timers", "last_failure", "shutdown_error", "stops", "waiting",
    )  # fmt: skip

    def __init__(self, service: ServiceState, stepper: Stepper, timers: LifecycleTimers) -> None:
        self._service, self._stepper, self._timers = service, stepper, timers
        self.waiting: dict[PendingRequest, None] = {}
        self.stops: list[PendingRequest] = []
        self.last_failure: RequestError | None = None
        self.shutdown_error: RequestError | None = None

    def admit_all(self) -> None:
        """Admit all waiting requests."""
        waiting, self.waiting = self.waiting, {}
        if waiting:
            self._service.idle_since = None
        for waiter in waiting:
            waiter.admit()

    def refuse_all(self, event: str) -> None:
        """Refuse all waiting requests because of *event*."""
        if event in _FAILURES:
            self.last_failure = self.error(event)
        waiting, self.waiting = self.waiting, {}
        if waiting and self._can_start_once_more(event):
            memory = self._service.runtime.memory
            waiting = memory.take_back(self._service.spec.name, waiting)
        if waiting:
            error = self.error(event)
            for waiter in waiting:
                waiter.refuse(error)

    def _can_start_once_more(self, event: str) -> bool:
        """Return True if the start may succeed elsewhere, or once others have freed memory.

        It ran out of memory, there was no room at its place, its node was lost, or its port there
        was taken.
        """
        service = self._service
        failure, ended = service.memory_failure, service.last_exit
        if getattr(self._stepper.context, "attempts", 0) >= service.spec.intensity:
            return False
        if event == "spawn_failed":
            error = service.start_error
            return isinstance(error, PlacementError) and not error.permanent
        if event != "proc_exited":
            return False
        is_lost = ended is not None and ended.is_lost
        return is_lost or (failure is not None and failure.can_retry) or self._is_port_taken()

    def _is_port_taken(self) -> bool:
        """Return True if another process has taken the port that was chosen on the node."""
        service = self._service
        if service.location is None or not service.location.port:
            return False
        lines = service.log.tail(_TAIL_LINES, since_bytes=service.log_start_bytes)
        return any(_PORT_TAKEN.search(line) for line in lines)

    def end_stops(self) -> None:
        """Complete the waiting stop commands; they fail if the service is ready again."""
        stops, self.stops = self.stops, []
        name = self._service.spec.name
        for stop in stops:
            if self._stepper.configuration[-1] == "ready":
                stop.refuse(RequestError("busy", f"{name} is busy", status_hint=409))
            else:
                stop.admit()

    def error(self, event: str = "") -> RequestError:
        """Return the error for a request that is refused now, because of *event* if given."""
        service = self._service
        name, cause = service.spec.name, service.cause
        if event in _FAILURES:
            tail = tuple(service.log.tail(_TAIL_LINES, since_bytes=service.log_start_bytes))
            failure = service.memory_failure
            if event == "proc_exited" and failure is not None:
                return StartError(
                    "out_of_memory", failure.text, status_hint=502, log_tail=tail,
                    telling_line=failure.line, can_retry=False,
                )  # fmt: skip
            if event == "proc_exited" and service.launched_at is not None:
                after_s = service.runtime.timers.now() - service.launched_at
                cause = f"its process ended by itself after {after_s:.1f} s: {cause}"
            if event == "spawn_failed" and isinstance(service.start_error, PlacementError):
                return RequestError(
                    "no_room", f"{name} cannot be placed: {cause}", log_tail=tail,
                    retry_after_s=None if service.start_error.permanent else 5.0,
                    can_retry=not service.start_error.permanent,
                )  # fmt: skip
            return StartError(
                _FAILURES[event], f"{name} failed: {cause}", status_hint=502, log_tail=tail,
                can_retry=False,
            )  # fmt: skip
        state = self._stepper.configuration[-1]
        if state in ("tripped", "crashed"):
            deadline = self._timers.deadline("cooldown")
            wait_s = None if deadline is None else max(deadline - service.runtime.timers.now(), 0.0)
            why = self.last_failure or cause
            return RequestError(
                "failed", f"{name} is not restarted for now: {why}", retry_after_s=wait_s or 1.0,
                log_tail=() if self.last_failure is None else self.last_failure.log_tail,
                can_retry=False,
            )  # fmt: skip
        if self._stepper.is_final or getattr(self._stepper.context, "intent", None) == "shutdown":
            return self.shut_down()
        if state == "stuck":
            text = f"the process of {name} cannot be killed"
            return RequestError("stuck", text, can_retry=False)
        return RequestError("stopped", f"{name} was stopped: {cause}", retry_after_s=1.0)

    def shut_down(self) -> RequestError:
        """Return the error for a request after a shutdown."""
        return self.shutdown_error or RequestError(
            "shutting_down", f"{self._service.spec.name} is shutting down"
        )
