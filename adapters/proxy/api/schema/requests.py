"""Bodies that describe requests: in flight, finished, and captured."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import UNSET, field

from .base import Body, Maybe, Part

#: Part of the time of a request that has not ended; see `InFlightRequest`.
Phase: TypeAlias = Literal["queue", "evict", "start", "first", "response"]


class Tokens(Part, kw_only=True):
    """Token usage of a request; -1 means unknown, rates are in tokens per second."""

    cache_tokens: int
    draft_tokens: int
    draft_acc_tokens: int
    input_tokens: int
    output_tokens: int
    prompt_per_second: float
    tokens_per_second: float


class WaitReason(Part, kw_only=True):
    """Why a request waited from a moment on; ``after_ms`` counts from its arrival."""

    after_ms: int
    why: str


class RequestWait(Part, kw_only=True):
    """How a request waited for its model; the four times, in milliseconds, are the whole wait.

    Attributes:
        queue_ms: In the queue, before any eviction for its model.
        evict_ms: While other models were evicted for its model.
        start_ms: For the start of its model, without hooks.
        hooks_ms: For the hooks of that start.
        resident: Models that ran when it arrived.
        evicted: Models that were evicted for its model meanwhile.
        reasons: Why it waited in the queue, in order.
    """

    queue_ms: int
    evict_ms: int
    start_ms: int
    hooks_ms: int
    resident: list[str]
    evicted: list[str]
    reasons: list[WaitReason]


class InFlightRequest(Part, kw_only=True):
    """A request that has not ended, in the event ``inflight``.

    Attributes:
        id: Number of the request among those of this run of the proxy.
        timestamp: Arrival, RFC 3339.
        resp_status: Status of the response; 0 before its headers arrived.
        resp_bytes: Bytes of the response's body sent so far.
        elapsed_ms: Time since the arrival in milliseconds.
        is_waiting: The model is not ready for the request yet.
        request_id: X-Request-ID of the request and its response.
        phase: Whether it waits in the queue, for evictions, for the start of its model, for the
            headers of the response, or gets the response.
        wait_ms: Time from the arrival until the model was ready, in milliseconds; missing before.
        first_byte_ms: Time from the arrival to the response's headers, in milliseconds; missing
            before.
        swap_id: The swap that it waits or waited for; missing if there is none.
        wait: How it has waited so far; missing if its model was ready.
    """

    id: str
    timestamp: str
    model: str
    req_path: str
    method: str
    req_headers: dict[str, str]
    remote_ip: str
    resp_headers: dict[str, str]
    resp_status: int
    resp_bytes: int
    elapsed_ms: int
    is_waiting: bool
    metadata: dict[str, Any]
    request_id: str
    phase: Phase
    wait_ms: Maybe[int] = UNSET
    first_byte_ms: Maybe[int] = UNSET
    swap_id: Maybe[str] = UNSET
    wait: Maybe[RequestWait] = UNSET


class FinishedRequest(Part, kw_only=True):
    """A finished request.

    Attributes:
        timestamp: Arrival, RFC 3339.
        duration_ms: Time from the arrival to the end in milliseconds.
        wait_ms: Time from the arrival until the model was ready, in milliseconds.
        first_byte_ms: Time from the arrival to the response's headers, in milliseconds.
        has_capture: ``/api/captures/{id}`` has the request and its response.
        error_msg: Why the request failed.
        request_id: Its X-Request-ID; missing in rows of older versions.
        swap_id: The swap that it waited for; missing if it waited for none.
        wait: How it waited; missing if its model was ready.
    """

    id: int
    timestamp: str
    model: str
    req_path: str
    resp_content_type: str
    resp_status_code: int
    tokens: Tokens
    duration_ms: int
    wait_ms: int
    first_byte_ms: int
    has_capture: bool
    error_msg: Maybe[str] = UNSET
    metadata: Maybe[dict[str, Any]] = UNSET
    request_id: Maybe[str] = UNSET
    swap_id: Maybe[str] = UNSET
    wait: Maybe[RequestWait] = UNSET


class Activity(Body, kw_only=True):
    """A page of finished requests.

    Attributes:
        problem: Why requests are not recorded at present.
    """

    data: list[FinishedRequest]
    page: int
    limit: int
    total: int
    total_pages: int
    problem: Maybe[str] = UNSET


class Histogram(Part, kw_only=True):
    """Distribution of a rate in tokens per second; ``bins`` has counts of equal ranges."""

    bins: list[int]
    min: float
    max: float
    bin_size: int | float = field(name="binSize")
    p50: float
    p95: float
    p99: float


class Statistics(Body, kw_only=True):
    """Totals of finished requests; a histogram is null without a known rate."""

    total_requests: int
    total_input_tokens: int
    total_output_tokens: int
    total_cache_tokens: int
    prompt_histogram: Histogram | None
    gen_histogram: Histogram | None


class Capture(Body, kw_only=True):
    """A request with its response; bodies are in base64.

    Attributes:
        id: Number of the request in the activity.
        request_id: X-Request-ID of the request and its response.
        req_headers: Headers with secrets removed.
    """

    id: int
    request_id: str
    req_path: str
    req_headers: dict[str, str]
    req_body: str
    resp_headers: dict[str, str]
    resp_body: str
