"""Bodies of the timeline. All times are in milliseconds since 1970, all durations in ms."""

from __future__ import annotations

from msgspec import UNSET

from .base import Body, Maybe, Part
from .requests import FinishedRequest
from .transitions import TransitionRow


class LaneInterval(Part, kw_only=True):
    """Time in which a model was in one state.

    Attributes:
        state: ``starting``, ``resident``, ``asleep``, ``stopping`` or ``failed``; in `answering`
            always ``answering``.
    """

    at: int
    until: int
    state: str


class Lane(Part, kw_only=True):
    """One model; models that neither ran nor had a request are left out.

    Attributes:
        states: In order, without overlaps; a gap means that the model was not loaded.
        answering: When requests were answered.
    """

    model: str
    states: list[LaneInterval]
    answering: list[LaneInterval]


class TimelineSwap(Part, kw_only=True):
    """A swap.

    Attributes:
        until: Its last transition so far.
        cause: Who began it: ``request``, ``load``, ``preload``, ``autostart``, ``idle_load``,
            ``unload``, ``idle``, ``reload``, ``memory``, ``rule``, ``failure``, ``adoption`` or
            ``shutdown``.
        request_id: X-Request-ID of the request that began it; empty for none.
        started: Models that it started.
        stopped: Models that it stopped.
        failed: A start or a hook of it failed.
    """

    id: str
    at: int
    until: int
    cause: str
    request_id: str
    started: list[str]
    stopped: list[str]
    failed: bool


class TimelineRequest(Part, kw_only=True):
    """The request that waited longest of those for one model that arrived at about one time.

    Attributes:
        id: Number in the activity.
        requests: Number of the requests that it stands for.
        rejected: Number of them that were not admitted.
        failed: Number of them that were, and failed.
        canceled: Number of them that were canceled, or whose client disconnected.
        queue_ms: Wait in the queue.
        evict_ms: Wait for evictions.
        start_ms: Wait for the start, without hooks.
        hooks_ms: Wait for the hooks of the start.
        first_byte_ms: From then to the headers of the response; 0 if none came.
        swap_id: The swap that it waited for; empty for none.
    """

    id: int
    model: str
    at: int
    status: int
    requests: int
    rejected: int
    failed: int
    canceled: int
    queue_ms: int
    evict_ms: int
    start_ms: int
    hooks_ms: int
    first_byte_ms: int
    duration_ms: int
    swap_id: str


class DeviceMemory(Part, kw_only=True):
    """Memory of one device over time.

    Attributes:
        capacity: Bytes.
        points: (time, highest number of bytes in use since the last point), in order.
    """

    device: str
    capacity: int
    points: list[tuple[int, int]]


class Restored(Part, kw_only=True):
    """Saved tokens that were restored after a start.

    Attributes:
        saved_ms: Expected time to read the tokens anew, less the duration of the restore; null if
            that is not known.
    """

    at: int
    model: str
    tokens: int
    restore_ms: float
    saved_ms: float | None
    swap_id: str


class Timeline(Body, kw_only=True):
    """Models, requests and memory over a span of time.

    Attributes:
        start: Beginning of the span.
        end: End of the span, not in the future.
        step_ms: Requests for one model that arrived within it are one row. States that are shorter
            than a quarter of it are joined.
        total_requests: Number of requests in the span.
        total_waited_ms: Sum of their waits.
        requests: By arrival; of too many, those that waited longest.
        swaps: By their beginning; of too many, the newest.
        restored_tokens: Sum of the tokens of `restored`.
        saved_ms: Sum of the known times that `restored` has saved.
        problem: Why nothing is stored at present.
    """

    start: int
    end: int
    step_ms: int
    lanes: list[Lane]
    swaps: list[TimelineSwap]
    requests: list[TimelineRequest]
    total_requests: int
    total_waited_ms: int
    memory: list[DeviceMemory]
    restored: list[Restored]
    restored_tokens: int
    saved_ms: float
    problem: Maybe[str] = UNSET


class SwapDetails(Body, kw_only=True):
    """Transitions of a swap with their hooks, and the requests that waited for it."""

    id: str
    cause: str
    transitions: list[TransitionRow]
    requests: list[FinishedRequest]
