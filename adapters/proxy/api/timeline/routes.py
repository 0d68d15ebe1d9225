"""Routes ``/api/timeline`` and ``/api/swaps``."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from time import time
from urllib.parse import parse_qs

import msgspec

from ....store import StoreError
from ....store.timeline import (
    MemoryPoint,
    RequestGroup,
    RestoredFact,
    TimelineStore,
    TransitionFact,
)
from ....system import threads
from ...body.model_name import quoted_name
from ...context import ProxyContext
from ...query import LARGEST, parse_time, whole_number
from ...request import Request
from ...responses import ApiError
from ..activity import finished_request
from ..handler import ApiHandler
from ..models import journal_of_model, transition_rows
from ..schema import timeline as schema
from ..schema import transitions
from .lanes import Interval, SwapSpan, answering, intervals, swaps
from .starts import grouped

MOST_STARTS = 200
_ROWS_OF_START = 30  # that are read for each start; most have ten
_DEFAULT_MS = 3_600_000
_LONGEST_MS = 31 * 86_400_000
_STEPS = 600  # groups of requests and points of memory in a span
_LANE_STEPS = 2400  # shorter intervals are joined: less than a pixel of most screens
_MOST_REQUESTS = 1000
_LONGEST_ID = 64


@ApiHandler
async def timeline(proxy: ProxyContext, request: Request) -> schema.Timeline:
    """Return the lanes, swaps, requests and memory of a span of time."""
    store = _store(proxy)
    start, end = _span(request.query)
    step = _step(start, end)
    try:
        rows = await store.transitions(start, end)
        groups = await store.requests(start, end, step)
        points = await store.memory(start, end, step)
        restored = await store.restored(start, end)
    except StoreError as error:
        raise ApiError(503, str(error)) from error
    view, activity = proxy.view(request.access), proxy.accounting.activity
    found = await threads.run(  # thousands of rows would hold up the event loop
        lambda: _timeline(
            [row for row in rows if view.shows(row.service)],
            [group for group in groups if view.shows(group.model)],
            (start, end), store.instance,
        )
    )  # fmt: skip
    shown = [each for each in restored if view.shows(each.service)]
    found.memory = _memory(points, start)
    found.restored = [_restored(each) for each in shown]
    found.restored_tokens = sum(each.tokens for each in shown)
    found.saved_ms = round(sum(each.saved_ms - each.ms for each in shown if each.saved_ms), 1)
    found.problem = (activity.problem if activity is not None else "") or msgspec.UNSET
    return found


def _timeline(
    rows: Sequence[TransitionFact], groups: Sequence[RequestGroup], span: tuple[int, int],
    instance: str,
) -> schema.Timeline:  # fmt: skip
    """Return the timeline of *span* with its lanes, swaps and requests."""
    start, end = span
    step = _step(start, end)
    least = max((end - start) // _LANE_STEPS, 1)
    states = intervals(rows, start, end, instance=instance, least_ms=least)
    return schema.Timeline(
        start=start, end=end, step_ms=step, lanes=_lanes(states, answering(groups, least)),
        swaps=[_swap(each) for each in swaps(rows) if each.until >= start],
        requests=_requests(groups),
        total_requests=sum(group.requests for group in groups),
        total_waited_ms=round(sum(group.total_waited for group in groups)),
        memory=[], restored=[], restored_tokens=0, saved_ms=0.0,
    )  # fmt: skip


def _step(start: int, end: int) -> int:
    return max((end - start) // _STEPS, 1)


@ApiHandler
async def swap(proxy: ProxyContext, request: Request) -> schema.SwapDetails:
    """Return the transitions of a swap with their hooks, and the requests that waited for it."""
    swap_id, activity, history = request.path_suffix, proxy.accounting.activity, proxy.swap_history
    if history is None or activity is None:
        raise ApiError(503, "no history is kept: the store is switched off")
    view = proxy.view(request.access)
    try:
        rows = await history(swap_id) if 0 < len(swap_id) <= _LONGEST_ID else []
        page = await activity.waited_for(swap_id) if rows else None
    except StoreError as error:
        raise ApiError(503, str(error)) from error
    rows = [row for row in rows if view.shows(row["service"])]
    if page is None or not rows:
        raise ApiError(404, f"there is no swap {quoted_name(swap_id)}, or no longer")
    captures = proxy.accounting.captures
    return schema.SwapDetails(
        id=swap_id, cause=rows[0]["swap_cause"],
        transitions=transition_rows(proxy, request, rows),
        requests=[
            finished_request(row, page.waits.get(row.id), view, has_capture=row.id in captures)
            for row in page.rows
            if view.shows(row.model)
        ],
    )  # fmt: skip


@ApiHandler
async def starts(proxy: ProxyContext, request: Request) -> transitions.Starts:
    """Return the last starts of a model with their transitions and hooks, the newest first."""
    name, count, rows = await journal_of_model(
        proxy, request, default=20, most=MOST_STARTS, rows_of_each=_ROWS_OF_START
    )
    life = proxy.supervisor[name]
    found = grouped(transition_rows(proxy, request, rows), life.document.promises, proxy.run)
    for start in found[:count]:
        kept = life.log.section(start.number) if start.transitions[0].run == proxy.run else None
        if kept is not None:
            start.log_bytes = life.log.section_bytes(start.number)
            start.kept_log_bytes = sum(map(len, kept))
    return transitions.Starts(model=name, data=found[:count])


def _store(proxy: ProxyContext) -> TimelineStore:
    if proxy.timeline is None:
        raise ApiError(503, "no timeline is kept: the store is switched off")
    return proxy.timeline


def _span(query: bytes) -> tuple[int, int]:
    """Return beginning and end of the wanted span in milliseconds since 1970.

    Raises:
        ApiError: A time is invalid, or the end is before the beginning.
    """
    given = parse_qs(query.decode("latin-1"))
    now = round(time() * 1000)
    end = min(_moment(given, "to", now), now)
    start = _moment(given, "from", end - _DEFAULT_MS)
    if start >= end:
        raise ApiError(400, "expected `from` before `to`, and before now")
    if end - start > _LONGEST_MS:
        raise ApiError(400, f"expected at most {_LONGEST_MS // 86_400_000} days")
    return start, end


def _moment(given: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    text = given.get(name, [""])[-1]
    if not text:
        return default
    number = whole_number(text, 0, LARGEST // 1000)
    if number is not None:
        return number
    try:
        return round(parse_time(text) * 1000)
    except (ValueError, OverflowError) as error:
        message = (
            f"{name}: expected milliseconds since 1970 or a time such as 2026-01-31T12:00:00Z, "
            f"got {quoted_name(text)}"
        )
        raise ApiError(400, message) from error


def _lanes(
    states: Mapping[str, Sequence[Interval]], answers: Mapping[str, Sequence[Interval]]
) -> list[schema.Lane]:
    names = sorted({name for name, found in states.items() if found} | answers.keys())
    return [
        schema.Lane(
            model=name, states=_parts(states.get(name, ())), answering=_parts(answers.get(name, ()))
        )
        for name in names
    ]


def _parts(found: Iterable[Interval]) -> list[schema.LaneInterval]:
    return [schema.LaneInterval(at=it.at, until=it.until, state=it.state) for it in found]


def _swap(swap: SwapSpan) -> schema.TimelineSwap:
    return schema.TimelineSwap(
        id=swap.id, at=swap.at, until=swap.until, cause=swap.cause,
        request_id=swap.request_id, started=swap.started, stopped=swap.stopped,
        failed=swap.is_failed,
    )  # fmt: skip


def _requests(groups: Sequence[RequestGroup]) -> list[schema.TimelineRequest]:
    if len(groups) > _MOST_REQUESTS:
        longest = heapq.nlargest(_MOST_REQUESTS, groups, key=attrgetter("waited", "id"))
        groups = sorted(longest, key=attrgetter("time"))
    return [
        schema.TimelineRequest(
            id=each.id, model=each.model, at=each.time, status=each.status,
            requests=each.requests, rejected=each.rejected, failed=each.failed,
            canceled=each.canceled,
            queue_ms=each.waited if each.queue is None else each.queue,
            evict_ms=each.evict or 0, start_ms=each.start or 0, hooks_ms=each.hooks or 0,
            first_byte_ms=max(each.first_byte - each.waited, 0), duration_ms=each.duration,
            swap_id=each.swap_id or "",
        )
        for each in groups
    ]  # fmt: skip


def _memory(points: Iterable[MemoryPoint], start: int) -> list[schema.DeviceMemory]:
    found = []
    for device, group in groupby(points, attrgetter("device")):
        each = list(group)
        found.append(
            schema.DeviceMemory(
                device=device, capacity=max(point.capacity for point in each),
                points=[(max(point.at, start), point.used) for point in each],
            )
        )  # fmt: skip
    return found


def _restored(each: RestoredFact) -> schema.Restored:
    saved = None if each.saved_ms is None else round(each.saved_ms - each.ms, 1)
    return schema.Restored(
        at=each.at, model=each.service, tokens=each.tokens, restore_ms=each.ms, saved_ms=saved,
        swap_id=each.swap_id,
    )  # fmt: skip
