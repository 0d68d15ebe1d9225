"""Lanes of the timeline: intervals of a model's states, and swaps, from transitions. Pure.

Times are milliseconds since 1970, and those of transitions seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from .....dataclass import dataclass, field
from ....store.timeline import RequestGroup, TransitionFact

#: States of a lane; where short intervals are joined, the first of these counts.
STATES = ("failed", "starting", "stopping", "resident", "asleep")

_FAILED = frozenset({"backoff", "tripped", "half_open"})
#: Events that end a start or a run against its will.
FAILURES = frozenset({
    "hooks_failed", "spawn_failed", "start_expired", "stalled", "unhealthy", "proc_exited",
})  # fmt: skip
_MOST_SWAPS = 1000


@dataclass(slots=True)
class Interval:
    """Time in which a lane shows one state; *until* is not before *at*."""

    at: int
    until: int
    state: str


@dataclass(slots=True)
class SwapSpan:
    """One swap.

    Attributes:
        id: Id of the swap.
        at: Its first transition.
        until: Its last transition so far.
        cause: Who began it.
        request_id: Id of the request that did; empty for none.
        started: Models that it started.
        stopped: Models that it stopped.
        is_failed: A start or a hook of it failed.
    """

    id: str
    at: int
    until: int
    cause: str
    request_id: str
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    is_failed: bool = False


def intervals(
    rows: Iterable[TransitionFact], start_ms: int, end_ms: int, *, instance: str, least_ms: int
) -> dict[str, list[Interval]]:
    """Return the intervals of each model within a span.

    A state lasts until the next transition. At the end of a run of the proxy that was killed, it
    ends with the last transition that this run has written.

    Args:
        rows: By service and time.
        start_ms: Beginning of the span.
        end_ms: End of the span, not in the future.
        instance: The run of the proxy that goes on.
        least_ms: Shorter intervals are joined with their neighbors.
    """
    lanes: dict[str, list[Interval]] = {}
    for service, group in groupby(rows, attrgetter("service")):
        found = _joined(_intervals(list(group), instance, end_ms))
        within = [
            replace(each, at=max(each.at, start_ms), until=min(each.until, end_ms))
            for each in found
            if each.until >= start_ms and each.at <= end_ms
        ]
        lanes[service] = list(_coarse(within, least_ms))
    return lanes


def _intervals(rows: Sequence[TransitionFact], instance: str, end_ms: int) -> Iterator[Interval]:
    state = ""
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        state = _state(row, state)
        if following is not None and following.instance == row.instance:
            until = _ms(following.at)
        elif following is None and row.instance == instance:
            until = max(end_ms, _ms(row.at))
        else:
            until = _ms(row.until)
        if state:
            yield Interval(_ms(row.at), until, state)


def _state(row: TransitionFact, before: str) -> str:
    active = row.configuration.split(".")
    if "starting" in active or row.target in ("waking", "adopting"):
        return "starting"
    if "stopping" in active or row.target == "suspending":
        if row.event in FAILURES and before != "stopping":
            return "failed"
        return "failed" if before == "failed" else "stopping"
    if row.target in _FAILED:
        return "failed"
    return {"ready": "resident", "asleep": "asleep"}.get(row.target, "")


def _joined(found: Iterable[Interval]) -> Iterator[Interval]:
    """Yield *found* with neighbors in the same state joined."""
    last: Interval | None = None
    for each in found:
        if last is not None and last.state == each.state and last.until >= each.at:
            last.until = each.until
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last


def _coarse(found: Iterable[Interval], least_ms: int) -> Iterator[Interval]:
    """Yield *found* with neighbors joined that together are shorter than *least_ms*."""
    last: Interval | None = None
    for each in found:
        if last is None:
            last = each
            continue
        is_short = each.until - last.at < least_ms and each.at - last.until < least_ms
        if is_short:
            last.state = min(last.state, each.state, key=STATES.index)
            last.until = each.until
            continue
        yield last
        last = each
    if last is not None:
        yield last


def answering(groups: Iterable[RequestGroup], least_ms: int) -> dict[str, list[Interval]]:
    """Return when each model answered requests; gaps shorter than *least_ms* are left out."""
    lanes: dict[str, list[Interval]] = {}
    for each in sorted(groups, key=attrgetter("answering")):
        if each.until <= each.answering:
            continue  # it was never admitted
        lane = lanes.setdefault(each.model, [])
        if lane and each.answering - lane[-1].until < least_ms:
            lane[-1].until = max(lane[-1].until, each.until)
        else:
            lane.append(Interval(each.answering, each.until, "answering"))
    return lanes


def swaps(rows: Iterable[TransitionFact]) -> list[SwapSpan]:
    """Return the newest swaps among *rows*, by their beginning."""
    found: dict[str, SwapSpan] = {}
    states: dict[str, str] = {}
    for row in sorted((row for row in rows if row.swap_id), key=attrgetter("at")):
        at = _ms(row.at)
        swap = found.get(row.swap_id)
        if swap is None:
            swap = found[row.swap_id] = SwapSpan(
                row.swap_id, at, at, row.swap_cause, row.swap_request
            )
        swap.until = max(swap.until, at)
        swap.is_failed = swap.is_failed or row.event in ("hooks_failed", "spawn_failed")
        state = states[row.service] = _state(row, states.get(row.service, ""))
        if state == "failed":
            swap.is_failed = True
        if state == "starting" and row.service not in swap.started:
            swap.started.append(row.service)
        elif state == "stopping" and row.service not in (*swap.started, *swap.stopped):
            swap.stopped.append(row.service)
    return list(found.values())[-_MOST_SWAPS:]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
