"""Spans of swaps: starts, stops, evictions and sleep of models, with a child for each hook.

A swap that a request has caused belongs to the trace of that request: the oldest one in flight for
the model that starts. All others, such as idle stops and loads by a command, begin a trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from ....dataclass import dataclass
from ....runtime import HookResult, Supervisor, Transition
from ..accounting.request_record import InFlightRequests, RequestRecord

_SECOND = 1_000_000_000
#: Kind of a swap -> innermost states in which it has succeeded.
_SUCCESS: Mapping[str, frozenset[str]] = {
    "start": frozenset({"ready"}),
    "wake": frozenset({"ready"}),
    "sleep": frozenset({"asleep"}),
    "stop": frozenset({"stopped", "shut_down", "backoff", "tripped", "half_open"}),
    "evict": frozenset({"stopped", "asleep", "shut_down"}),
}


@dataclass(slots=True)
class _Swap:
    """A swap under way.

    Attributes:
        kind: See `_SUCCESS`.
        span: Its span.
        context: Context of its children.
        parent: Context that it belongs to; empty for a swap that no request has caused.
        record: The request that has caused it, or None.
    """

    kind: str
    span: Span
    context: Context
    parent: Context
    record: RequestRecord | None


class SwapSpans:
    """Makes the spans; listens to a supervisor.

    Args:
        tracer: Makes spans.
        supervisor: Runs the models.
        in_flight: Requests that may have caused a swap.
        context_of: Returns the context of the children of a request.
    """

    def __init__(
        self, tracer: Tracer, supervisor: Supervisor, in_flight: InFlightRequests,
        context_of: Callable[[RequestRecord], Context],
    ) -> None:  # fmt: skip
        self._tracer, self._supervisor = tracer, supervisor
        self._in_flight, self._context_of = in_flight, context_of
        self._open: dict[str, _Swap] = {}
        self._before: dict[str, Context] = {}  # of the last swap of each model, for later hooks
        # The last one of each model, and the id of the request that has caused it, or 0.
        self._starts: dict[str, tuple[Span, int]] = {}

    def start_of_others(self, record: RequestRecord) -> Span | None:
        """Return the last start of the model of *record*; None if *record* has caused it itself."""
        span, cause = self._starts.get(record.model, (None, 0))
        return None if cause == record.id else span

    def on_transition(self, transition: Transition) -> None:
        """Follow one transition; for ``Supervisor.listen``."""
        name = transition.service
        swap = self._open.get(name)
        at = wall(transition.at)
        context = self._before.get(name, Context()) if swap is None else swap.context
        for result in transition.hooks:
            self._hook(name, result, context, at)
        kind = self._kind(transition)
        if swap is not None and kind == ("stop" if swap.kind == "evict" else swap.kind):
            return
        if swap is not None:
            del self._open[name]
            self._before[name] = swap.context
            is_good = transition.target in _SUCCESS[swap.kind]
            self._end(swap, at, "" if is_good else transition.cause or transition.event)
        if kind:
            self._open[name] = begun = self._begin(kind, transition, swap, at)
            if kind in ("start", "wake"):
                self._starts[name] = begun.span, 0 if begun.record is None else begun.record.id

    def close(self) -> None:
        """End the spans of swaps that have not ended."""
        for swap in self._open.values():
            self._end(swap, time_ns(), "the proxy was shut down")
        self._open.clear()

    @staticmethod
    def _kind(transition: Transition) -> str:
        """Return the kind of swap that a model is in after *transition*; empty for none."""
        if transition.target == "waking":
            return "wake"
        if transition.target == "suspending":
            return "sleep"
        if "starting" in transition.configuration:
            return "start"
        return "stop" if "stopping" in transition.configuration else ""

    def _begin(self, kind: str, transition: Transition, before: _Swap | None, at: int) -> _Swap:
        name, record = transition.service, None
        parent = Context()
        if kind in ("start", "wake"):
            record = self._in_flight.first_of(name)
        elif before is not None and before.kind in ("start", "wake"):
            parent, record = before.parent, before.record  # what is left of a start that failed
        elif (target := self._evicted_for(name)) is not None:
            kind, record = "evict", self._in_flight.first_of(target)
        if record is not None and not record.ended:
            parent = self._context_of(record)
        span = self._tracer.start_span(
            f"{kind} {name}", parent, start_time=at,
            attributes={
                "swapchart.model": name, "swapchart.event": transition.event,
                "swapchart.cause": transition.cause,
            },
        )  # fmt: skip
        return _Swap(kind, span, set_span_in_context(span, parent), parent, record)

    def _evicted_for(self, name: str) -> str | None:
        swaps = self._supervisor.scheduler.swaps.items()
        return next((target for target, evicted in swaps if name in evicted), None)

    def _end(self, swap: _Swap, at: int, why: str) -> None:
        if why:
            swap.span.set_status(Status(StatusCode.ERROR, why))
        swap.span.end(at)

    def _hook(self, name: str, result: HookResult, context: Context, at: int) -> None:
        ended = wall(result.ended_at) if result.ended_at else at
        span = self._tracer.start_span(
            f"hook {result.point}", context, start_time=ended - round(result.seconds * _SECOND),
            attributes={
                "swapchart.model": name, "swapchart.hook.point": result.point,
                "swapchart.hook.action": result.action, "swapchart.hook.outcome": result.outcome,
                "swapchart.hook.attempts": result.attempts,
            },
        )  # fmt: skip
        if result.outcome != "ok":
            span.set_status(Status(StatusCode.ERROR, result.detail or result.outcome))
        span.end(ended)


def wall(at: float) -> int:
    """Return the time *at* on the loop's clock as nanoseconds since 1970."""
    return time_ns() - round((asyncio.get_running_loop().time() - at) * _SECOND)
