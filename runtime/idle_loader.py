"""Idle loader: loads a given service after a time without requests."""

from __future__ import annotations

import logging

from .errors import RequestError
from .host import ServiceHost
from .request_wait import RequestWait
from .timers import TimerService

log = logging.getLogger(__name__)


class IdleLoader:
    """Loads a service once no request has been in flight or queued for a given time.

    It acquires the service as a request does: a failed service is not started before its circuit
    breaker allows it, and no pinned service is evicted.

    Attributes:
        service: Name of the service; None disables the loader.
    """

    def __init__(self, supervisor: ServiceHost, timers: TimerService) -> None:
        self._supervisor, self._timers = supervisor, timers
        self._timer = timers.timer(self._fire)
        self._used_at = timers.now()
        self._after_s = 0.0
        self._last_error = ""
        self.service: str | None = None

    def configure(self, service: str | None, after_s: float) -> None:
        """Load *service* after *after_s* seconds without requests, counted from now."""
        if (service, after_s) == (self.service, self._after_s):
            return
        self.service, self._after_s = service, after_s
        self._used_at = self._timers.now()
        if service is None:
            self._timer.disarm()
        else:
            self._timer.arm(after_s)

    def touch(self) -> None:
        """Record that a request has just ended."""
        self._used_at = self._timers.now()

    def _fire(self) -> None:
        supervisor, due = self._supervisor, self._used_at + self._after_s
        scheduler, service = supervisor.scheduler, self.service
        if service is None or service not in supervisor:
            return
        if scheduler.queue or any(entry.granted for entry in scheduler.services.values()):
            self.touch()
        elif self._timers.now() < due:
            self._timer.arm_at(due)
            return
        elif scheduler.services[service].phase in ("stopped", "failed"):
            supervisor.spawn(self._load, service)
        self._timer.arm(self._after_s)

    async def _load(self, service: str) -> None:
        try:
            await self._supervisor.acquire(service, wait=RequestWait(cause="idle_load"))
        except (RequestError, KeyError) as error:
            if str(error) != self._last_error:  # logged once, not at each attempt
                log.warning("%s could not be loaded after idle time: %s", service, error)
            self._last_error = str(error)
        else:
            self._supervisor.release(service)
