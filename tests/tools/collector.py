"""OTLP/HTTP receiver on loopback: keeps the spans that it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.net import LONG_S, wait_until

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """One span; times in nanoseconds since 1970, ids in hexadecimal digits."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    is_error: bool
    message: str
    links: tuple[str, ...]
    events: tuple[str, ...]
    resource: dict[str, Any] = field(repr=False)

    def encloses(self, other: Span, slack_s: float = 0.05) -> bool:
        """Return True if *other* lies within this span."""
        slack = slack_s * SECOND
        return self.start - slack <= other.start <= other.end <= self.end + slack


class Collector:
    """Spans that were received.

    Attributes:
        port: Where it listens.
        spans: All spans, in the order of their arrival.
        status: Status of its responses.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.status = 200
        self.port = 0

    @property
    def env(self) -> dict[str, str]:
        """Environment of a proxy that sends spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def find(self, wanted: Callable[[Span], object], count: int = 1) -> list[Span]:
        """Wait until *count* spans are *wanted*; return them in the order of their start."""
        found: list[Span] = wait_until(
            lambda: some if len(some := [s for s in self.spans if wanted(s)]) >= count else [],
            LONG_S, what=lambda: f"{count} spans among {[span.name for span in self.spans]}",
        )  # fmt: skip
        return sorted(found, key=lambda span: span.start)

    def named(self, name: str) -> Span:
        """Wait for a span of that name, the first one."""
        return self.find(lambda span: span.name == name)[0]

    def with_id(self, wanted: str) -> Span:
        """Wait for the span of that id."""
        return self.find(lambda span: span.id == wanted)[0]

    def trace(self, id: str, count: int) -> dict[str, Span]:  # noqa: A002
        """Wait until a trace has *count* spans; return them by name."""
        return {span.name: span for span in self.find(lambda span: span.trace == id, count)}


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _spans(body: bytes) -> Iterator[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {each.key: _value(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name, trace=span.trace_id.hex(), id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(), kind=span.kind,
                    start=span.start_time_unix_nano, end=span.end_time_unix_nano,
                    attributes={each.key: _value(each.value) for each in span.attributes},
                    is_error=span.status.code == 2, message=span.status.message,
                    links=tuple(link.span_id.hex() for link in span.links),
                    events=tuple(event.name for event in span.events), resource=resource,
                )  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a receiver."""
    import gzip

    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            if collector.status == 200:
                collector.spans += _spans(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
