"""Spans of requests: one for the request, and children for its queue, its start and its upstream.

The span of a request is made when it has its first child, or at its end, with the time of its
arrival. Attributes are those of the semantic conventions for HTTP, which are stable, and of those
for generative AI only the ones that have not changed since version 1.28.

Source: OpenTelemetry, Semantic Conventions (HTTP spans, generative AI); W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from ....dataclass import dataclass
from ....runtime import Supervisor
from ...http1.asgi_types import Headers
from ..accounting.metrics import Metrics
from ..accounting.recorder import Counting
from ..accounting.request_record import CLIENT_CLOSED_REQUEST, InFlightRequests, RequestRecord
from ..accounting.token_usage import TokenUsage
from .swaps import SwapSpans, wall

_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
#: Ends of paths at the model's server -> name of the operation.
_OPERATIONS = {
    "/chat/completions": "chat", "/messages": "chat", "/responses": "chat",
    "/completions": "text_completion", "/embeddings": "embeddings",
}  # fmt: skip
_SECOND = 1_000_000_000


@dataclass(slots=True)
class _RequestSpans:
    """Spans of one request that has not ended.

    Attributes:
        whole: The request.
        context: Context of its children.
        upstream: The part at the model's server, or None before that.
    """

    whole: Span
    context: Context
    upstream: Span | None = None


class OtelTracing:
    """Spans of requests and swaps, made by *tracer*; a `port.Tracing`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._propagator = propagate.get_global_textmap()
        self._fields = frozenset(name.lower().encode() for name in self._propagator.fields)
        self._open: dict[RequestRecord, _RequestSpans] = {}
        self._swaps: SwapSpans | None = None

    def attach(self, supervisor: Supervisor, in_flight: InFlightRequests) -> Callable[[], None]:
        """Trace the swaps of *supervisor* from now on; return what ends that."""
        self._swaps = SwapSpans(self._tracer, supervisor, in_flight, self.context_of)
        return supervisor.listen(self._swaps.on_transition)

    def close(self) -> None:
        """End the spans of swaps that have not ended."""
        if self._swaps is not None:
            self._swaps.close()

    def counting(self, metrics: Metrics) -> Counting:
        """Return what counts finished requests with *metrics*, and ends their spans."""
        return _TracedCounts(metrics, self)

    # ---- the parts of a request
    def client_headers(self, headers: Headers) -> Headers:
        """Return *headers* without those of the trace context, which are replaced."""
        return [field for field in headers if field[0] not in self._fields]

    def upstream_headers(self, record: RequestRecord, endpoint: str) -> Headers:
        """Note that *record* is sent to *endpoint*; return the headers of its trace context."""
        spans = self._of(record)
        if spans.upstream is None:
            url = urlsplit(endpoint)
            method = _method(record)
            spans.upstream = self._tracer.start_span(
                method, spans.context, kind=SpanKind.CLIENT,
                attributes={
                    "http.request.method": method,
                    "server.address": url.hostname or "",
                    "server.port": url.port or (443 if url.scheme == "https" else 80),
                    "url.full": f"{endpoint.rstrip('/')}{record.path}",
                    "swapchart.model": record.model,
                },
            )  # fmt: skip
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(spans.upstream, spans.context))
        return [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]

    def context_of(self, record: RequestRecord) -> Context:
        """Return the context of the children of *record*."""
        return self._of(record).context

    def _of(self, record: RequestRecord) -> _RequestSpans:
        found = self._open.get(record)
        if found is None:
            carrier = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in record.request.headers if name in self._fields
            }  # fmt: skip
            method = _method(record)
            route = record.request.route
            span = self._tracer.start_span(
                method if route is None or "*" in route.path else f"{method} {route.path}",
                self._propagator.extract(carrier, Context()), kind=SpanKind.SERVER,
                attributes=_request_attributes(record), start_time=_wall(record, record.started),
            )  # fmt: skip
            context = set_span_in_context(span, self._propagator.extract(carrier, Context()))
            found = self._open[record] = _RequestSpans(span, context)
        return found

    # ---- its end
    def end(self, record: RequestRecord, tokens: TokenUsage) -> None:
        """End the spans of *record*, which has ended."""
        spans = self._of(record)
        del self._open[record]
        ended = _wall(record, record.ended)
        is_failed = record.status >= 500 or record.status == 0
        kind = record.code or (str(record.status) if record.status >= 400 else "")
        self._wait(record, spans)
        if spans.upstream is not None:
            if record.headers_at:
                at = _wall(record, record.headers_at)
                spans.upstream.add_event("response headers", timestamp=at)
                spans.upstream.set_attribute("http.response.status_code", record.status)
            is_bad = is_failed or (400 <= record.status != CLIENT_CLOSED_REQUEST)
            _finish(spans.upstream, ended, kind, record.error, is_failed=is_bad)
        span = spans.whole
        if span.is_recording():
            if record.status:
                span.set_attribute("http.response.status_code", record.status)
            span.set_attribute("http.response.body.size", record.sent_bytes)
            if tokens.prompt > 0:
                span.set_attribute("gen_ai.usage.input_tokens", tokens.prompt)
            if tokens.completion > 0:
                span.set_attribute("gen_ai.usage.output_tokens", tokens.completion)
        _finish(span, ended, kind, record.error, is_failed=is_failed)

    def _wait(self, record: RequestRecord, spans: _RequestSpans) -> None:
        """Make the spans of the time that *record* has waited for its model."""
        wait = record.wait
        if wait is None or wait.queued_at is None:
            return
        queued_at = wait.queued_at
        ended_at = queued_at if wait.ended_at is None else wait.ended_at
        granted_at = ended_at if wait.granted_at is None else wait.granted_at
        began = wall(queued_at)
        granted = began + round((granted_at - queued_at) * _SECOND)
        ended = began + round((ended_at - queued_at) * _SECOND)
        attributes = {"swapchart.model": record.model}
        if wait.reasons:
            attributes["swapchart.cause"] = wait.reasons[-1][1]
        if wait.swap is not None:
            attributes["swapchart.swap_id"] = wait.swap.id
        queued = self._tracer.start_span(
            "queue", spans.context, attributes=attributes, start_time=began
        )
        queued.end(granted)
        start = None if self._swaps is None else self._swaps.start_of_others(record)
        if granted < ended and start is not None:
            joined = self._tracer.start_span(
                f"wait for start {record.model}", spans.context, attributes=attributes,
                links=[Link(start.get_span_context())], start_time=granted,
            )  # fmt: skip
            joined.end(ended)


class _TracedCounts:
    """Counts requests and ends their spans; what a `Recorder` calls for each finished request."""

    def __init__(self, metrics: Metrics, tracing: OtelTracing) -> None:
        self._metrics, self._tracing = metrics, tracing

    def count(self, record: RequestRecord, tokens: TokenUsage) -> None:
        """Count one finished request, and end its span."""
        self._metrics.count(record, tokens)
        self._tracing.end(record, tokens)

    def count_unknown(self) -> None:
        """Count one request for a model that does not exist, which has no span."""
        self._metrics.count_unknown()


def _finish(span: Span, ended: int, kind: str, error: str, *, is_failed: bool) -> None:
    if kind:
        span.set_attribute("error.type", kind)
    if is_failed:
        span.set_status(Status(StatusCode.ERROR, error or None))
    span.end(ended)


def _method(record: RequestRecord) -> str:
    method = record.method.decode("latin-1")
    return method if method in _METHODS else "_OTHER"


def _request_attributes(record: RequestRecord) -> dict[str, str]:
    request = record.request
    found = {
        "http.request.method": _method(record),
        "url.path": request.path,
        "url.scheme": str(request.scope.get("scheme") or "http"),
        "swapchart.model": record.model,
        "swapchart.request_id": request.request_id.decode("latin-1"),
        "gen_ai.request.model": record.model,
    }
    if request.route is not None:
        found["http.route"] = request.route.path
    if request.client:
        found["client.address"] = request.client
    agent = request.header(b"user-agent")
    if agent:
        found["user_agent.original"] = agent.decode("latin-1")
    for end, operation in _OPERATIONS.items():
        if record.path.endswith(end):
            found["gen_ai.operation.name"] = operation
            break
    return found


def _wall(record: RequestRecord, at: float) -> int:
    """Return the time *at* on the performance counter as nanoseconds since 1970."""
    return round((record.at + (at - record.started)) * _SECOND)
