"""Accounting: the records of requests, and samples of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....runtime import LogRing
from ...store.activity import ActivityStore
from ..event_bus import EventBus
from ..monitoring.host import Samples
from .captures import Captures
from .metrics import Metrics
from .recorder import Recorder

_MIN_BYTES = 1 << 14  # of a response, enough for its token usage


class Accounting:
    """Everything that is recorded about requests and the host.

    Args:
        activity: Store for rows about requests, or None.
        event_bus: Publishes the id of each row.
        log: Access log.
        capture_bytes: Memory for captures; 0 means that none are kept.

    Attributes:
        activity: Store for rows about requests, or None.
        captures: Recent requests with their responses.
        metrics: Counters for Prometheus.
        samples: Samples of the load of the host.
        recorder: Records finished requests.
        hardware: Response of ``/api/hardware``; None before the first request for it.
        count_dropped_lines: Returns the number of dropped lines of the proxy's own output.
    """

    def __init__(
        self, activity: ActivityStore | None, event_bus: EventBus, log: LogRing, capture_bytes: int
    ) -> None:
        self.activity = activity
        self.captures = Captures(capture_bytes)
        self.metrics = Metrics()
        self.samples = Samples()
        self.hardware: dict[str, Any] | None = None
        self.count_dropped_lines: Callable[[], int] = lambda: 0
        self.recorder = Recorder(activity, self.captures, self.metrics, event_bus, log)

    def capture_limit(self, open_requests: int) -> int:
        """Return the number of bytes up to which a response is kept until it is recorded.

        Args:
            open_requests: Number of requests that share the memory for captures.
        """
        return max(self.captures.max_response_bytes // max(open_requests, 1), _MIN_BYTES)
