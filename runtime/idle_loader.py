"""Goes back to one service when nobody has wanted anything for a while."""

from __future__ import annotations

import logging

from .errors import RequestError
from .host import ServiceHost
from .timers import TimerService

log = logging.getLogger(__name__)


class IdleLoader:
    """Loads a service once no request has been in flight or queued for a given time.

    It asks as a request would, so a failed one is left alone for as long as its breaker says, and
    nothing that is pinned goes for it.

    Attributes:
        service: Its name; None: none is loaded.
    """

    def __init__(self, supervisor: ServiceHost, timers: TimerService) -> None:
        self._supervisor, self._timers = supervisor, timers
        self._timer = timers.timer(self._fire)
        self._used_at = timers.now()
        self._after_s = 0.0
        self._complaint = ""
        self.service: str | None = None

    def configure(self, service: str | None, after_s: float) -> None:
        """Load *service* after *after_s* seconds without requests; counted from now at first."""
        if (service, after_s) == (self.service, self._after_s):
            return
        self.service, self._after_s = service, after_s
        self._used_at = self._timers.now()
        if service is None:
            self._timer.disarm()
        else:
            self._timer.arm(after_s)

    def touch(self) -> None:
        """Note that a request has just ended."""
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
            await self._supervisor.acquire(service)
        except (RequestError, KeyError) as error:
            if str(error) != self._complaint:  # once, not every minute
                log.warning("idle, but %s could not be loaded: %s", service, error)
            self._complaint = str(error)
        else:
            self._supervisor.release(service)
