"""Holds: uses of services that are counted elsewhere, such as players that a game server reports.

Each unit of a count is one request in flight, as a lease is, in the chart's own count too, which
guards read. A change of any size is one step, that of its last unit: the other units are put into
the chart's count before it. A count belongs to one process: it is dropped when that process has
ended.
"""

from __future__ import annotations

from .arguments import require_count
from .host import ServiceHost
from .lifecycle import Lifecycle
from .timers import TimerService
from .waiter import PendingRequest


class Holds:
    """The counts of all services of a supervisor; see `Supervisor.hold`.

    Args:
        supervisor: Finishes the requests.
        timers: Runs what was asked for within a step of a chart, right after it.
    """

    def __init__(self, supervisor: ServiceHost, timers: TimerService) -> None:
        self._supervisor = supervisor
        self._held: dict[str, int] = {}
        self._later: dict[str, int] = {}
        self._timer = timers.timer(self._catch_up)

    def count(self, name: str) -> int:
        """Return the number of units that *name* is held by."""
        return self._held.get(name, 0)

    def set(self, name: str, count: int) -> int:
        """Hold *name* by *count* units, as far as it takes them, and return the present number."""
        lifecycle = self._supervisor[name]
        require_count(f"count of {name}", count)
        self._later.pop(name, None)
        if lifecycle.is_stepping:  # a listener asks: its transition is completed first
            self._later[name] = count
            self._timer.arm(0.0)
        else:
            self._raise_to(lifecycle, count)
            self._lower_to(name, count)
        return self.count(name)

    def on_change(self, lifecycle: Lifecycle) -> None:
        """Drop the count of *lifecycle* if its process is gone."""
        name = lifecycle.spec.name
        if lifecycle.process is None and (name in self._held or name in self._later):
            self._later.pop(name, None)
            self._lower_to(name, 0)

    def _catch_up(self) -> None:
        later, self._later = self._later, {}
        for name, count in later.items():
            if name in self._supervisor:
                self.set(name, count)

    def _raise_to(self, lifecycle: Lifecycle, count: int) -> None:
        """Take further units if the chart admits requests."""
        name = lifecycle.spec.name
        held = self.count(name)
        if count <= held or lifecycle.state not in lifecycle.document.promises.serving:
            return
        more = count - held - 1
        lifecycle.count_in_flight(more)
        if not self._is_admitted(lifecycle):
            lifecycle.count_in_flight(-more)
            if held or not more or not self._is_admitted(lifecycle):
                return
            lifecycle.count_in_flight(more)  # the chart admits up to a number: the uses are there
        self._held[name] = count
        self._supervisor.scheduler.services[name].granted += count - held

    @staticmethod
    def _is_admitted(lifecycle: Lifecycle) -> bool:
        waiter = PendingRequest()
        lifecycle.request(waiter)
        if not waiter.admitted:
            lifecycle.withdraw(waiter)
        return bool(waiter.admitted)

    def _lower_to(self, name: str, count: int) -> None:
        held = self.count(name)
        if held <= count:
            return
        fewer = held - count - 1  # the last unit ends as a request does
        self._supervisor[name].count_in_flight(-fewer)
        self._supervisor.scheduler.services[name].granted -= fewer
        if count:
            self._held[name] = count
        else:
            del self._held[name]
        self._supervisor.release(name)
