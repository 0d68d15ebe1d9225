"""Interface of tracing, as the rest of the proxy sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ....runtime import Supervisor
from ...http1.asgi_types import Headers
from ..accounting.metrics import Metrics
from ..accounting.recorder import Counting
from ..accounting.request_record import InFlightRequests, RequestRecord


class Tracing(Protocol):
    """Makes spans of requests and swaps; no method waits or raises because an exporter fails."""

    def attach(self, supervisor: Supervisor, in_flight: InFlightRequests) -> Callable[[], None]:
        """Trace the swaps of *supervisor* from now on; return what ends that."""
        ...

    def counting(self, metrics: Metrics) -> Counting:
        """Return what counts finished requests with *metrics*, and ends their spans."""
        ...

    def client_headers(self, headers: Headers) -> Headers:
        """Return *headers* of a client without those that `upstream_headers` has."""
        ...

    def upstream_headers(self, record: RequestRecord, endpoint: str) -> Headers:
        """Note that a request is sent to *endpoint*; return the headers of its trace context."""
        ...
