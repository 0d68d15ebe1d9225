"""Queue of requests that wait for a service.

Requests are ordered by priority and arrival. Where a service has a concurrency limit, the places
of its requests are dealt so that clients take turns. Pure: nothing here waits or reads a clock.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from .scheduling import QueuedRequest, ServiceEntry


class RequestQueue:
    """The queue of all services together.

    Args:
        services: Entries of all services, by name; shared with the scheduler.

    Attributes:
        requests: Queued requests, in the order in which they are considered; the same list for
            the lifetime of the queue.
    """

    __slots__ = ("_has_turns", "_services", "_turns", "requests")

    def __init__(self, services: Mapping[str, ServiceEntry]) -> None:
        self.requests: list[QueuedRequest] = []
        self._services = services
        self._has_turns = False  # the order may differ from the order of arrival
        self._turns = itertools.count()

    def add(self, request: QueuedRequest) -> None:
        """Insert *request* by priority and arrival."""
        requests = self.requests
        place, rank = len(requests), (request.priority, -request.number)
        while place and (requests[place - 1].priority, -requests[place - 1].number) < rank:
            place -= 1
        requests.insert(place, request)
        request.is_queued = True

    def remove(self, request: QueuedRequest) -> None:
        """Remove *request*, which must be queued."""
        self.requests.remove(request)
        request.is_queued = False

    def of(self, service: str | None) -> list[QueuedRequest]:
        """Return the queued requests for *service*; all of them if None."""
        return [request for request in self.requests if service in (None, request.service)]

    def has_any_for(self, service: str) -> bool:
        """Return True if a request for *service* is queued."""
        return any(request.service == service for request in self.requests)

    def overdue(self, now: float, max_wait_s: float) -> dict[str, int]:
        """Return the services with a request that has waited for at least *max_wait_s* seconds.

        Returns:
            Service -> number of its first such request.
        """
        overdue: dict[str, int] = {}
        for request in self.requests:
            if now >= request.since + max_wait_s:
                first = overdue.get(request.service, request.number)
                overdue[request.service] = min(first, request.number)
        return overdue

    def note_turn(self, request: QueuedRequest) -> None:
        """Record that the client of *request* had its turn at a service with a limit."""
        self._services[request.service].turns[request.client] = next(self._turns)

    def take_turns(self) -> None:
        """Reorder the requests of services with a limit so that their clients take turns.

        For each service and priority, the first request of each client comes first, beginning
        with the client whose last grant was longest ago, then the second of each, and so on. The
        set of places that a service occupies depends on arrival only, so requests for other
        services keep their places.
        """
        requests, services = self.requests, self._services
        is_limited = any(services[request.service].limit is not None for request in requests)
        if is_limited or self._has_turns:
            requests.sort(key=_by_arrival)
        self._has_turns = is_limited
        places: dict[tuple[str, int], list[int]] = {}
        for place, request in enumerate(requests if is_limited else ()):
            if services[request.service].limit is not None:
                places.setdefault((request.service, request.priority), []).append(place)
        for (service, _), shared in places.items():
            dealt = _in_turns([requests[place] for place in shared], services[service].turns)
            for place, request in zip(shared, dealt, strict=True):
                requests[place] = request


def _by_arrival(request: QueuedRequest) -> tuple[int, int]:
    return -request.priority, request.number


def _in_turns(requests: Sequence[QueuedRequest], turns: Mapping[str, int]) -> list[QueuedRequest]:
    """Return *requests* in the order in which their clients take turns.

    Args:
        requests: Requests of one service and priority, the oldest first.
        turns: Client -> its last turn; a client without one comes first.
    """
    rounds: Counter[str] = Counter()
    ranks: dict[QueuedRequest, tuple[int, int]] = {}
    for request in requests:
        ranks[request] = rounds[request.client], turns.get(request.client, -1)
        rounds[request.client] += 1
    return sorted(requests, key=ranks.__getitem__)
