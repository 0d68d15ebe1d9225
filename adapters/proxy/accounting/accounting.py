"""All that is written down about requests, and about the machine."""

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

_ENDS_BYTES = 1 << 14  # of an answer: where tokens are told


class Accounting:
    """What is written down.

    Args:
        activity: Where rows about requests go; None: nowhere.
        hub: Who is told of them.
        log: Where a line for each goes.
        capture_bytes: Room for whole requests; 0: none are kept.

    Attributes:
        activity: See above.
        captures: Whole requests.
        metrics: For Prometheus.
        samples: Of the machine.
        recorder: Takes finished requests.
        hardware: What the machine is made of; None until somebody asked.
        count_dropped_lines: Returns how many lines of the proxy's own output were dropped.
    """

    def __init__(
        self, activity: ActivityStore | None, hub: EventBus, log: LogRing, capture_bytes: int
    ) -> None:
        self.activity = activity
        self.captures = Captures(capture_bytes)
        self.metrics = Metrics()
        self.samples = Samples()
        self.hardware: dict[str, Any] | None = None
        self.count_dropped_lines: Callable[[], int] = lambda: 0
        self.recorder = Recorder(activity, self.captures, self.metrics, hub, log)

    def capture_limit(self, open_requests: int) -> int:
        """Return how much of an answer is kept whole until it is written down.

        Args:
            open_requests: As many share the memory that one alone could take.
        """
        return max(self.captures.longest // max(open_requests, 1), _ENDS_BYTES)
