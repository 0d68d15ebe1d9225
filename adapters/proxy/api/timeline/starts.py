"""Starts of a model: its transitions, grouped by run of its server. Pure.

A start begins with its hooks, or with the adoption of a process, and lasts until the next one. A
chart without these is cut where the number of the run grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .....machine.document import Promises
from ..schema.transitions import Start, StartOutcome, TransitionRow
from .lanes import FAILURES

_MOST_ROWS = 100  # transitions of one start that are returned


def grouped(rows: Sequence[TransitionRow], promises: Promises, run: str) -> list[Start]:
    """Return the starts in *rows*, the newest first.

    Args:
        rows: The last transitions of one model, the newest first.
        promises: Promises of its chart, which name the states without a process.
        run: This run of the proxy; earlier ones have ended.
    """
    found: list[Start] = []
    groups = list(_groups(rows[::-1]))
    for place, (number, group) in enumerate(groups):
        is_last = place == len(groups) - 1
        start = _start(number, group, promises)
        is_over = not is_last or group[-1].run != run
        if is_over and start.until is None:
            start.until = group[-1].at
            if start.outcome != "failed":
                is_left = not is_last and groups[place + 1][1][0].event == "adopted"
                start.outcome = "left" if is_left else "lost"
        found.append(start)
    return found[::-1]


def _groups(rows: Sequence[TransitionRow]) -> Iterator[tuple[int, list[TransitionRow]]]:
    """Yield the number and the transitions of each start in *rows*, the oldest first."""
    number, group = 0, list[TransitionRow]()
    for row in rows:
        is_first = row.target == "before_start" or row.event == "adopted"
        is_other = not group or row.run != group[-1].run or row.incarnation > number
        if is_first or (is_other and row.incarnation and row.source != "stopped"):
            if group:
                yield number, group
            # A new run gets its number right after that transition.
            number, group = row.incarnation + (row.target == "before_start"), []
        elif is_other:
            continue  # a stop without a start
        group.append(row)
    if group:
        yield number, group


def _start(number: int, rows: list[TransitionRow], promises: Promises) -> Start:
    first = rows[0]
    ready = next((row for row in rows if row.target in promises.serving), None)
    ended = next((row for row in rows if row.target in promises.quiet), None)
    leaving = _leaving(rows, promises)
    outcome: StartOutcome
    if leaving is not None and leaving.event in FAILURES:
        outcome = "failed"
    elif ended is not None:
        outcome = "stopped"
    elif leaving is not None:
        outcome = "stopping"
    else:
        outcome = "starting" if ready is None else "running"
    kept = rows if len(rows) <= _MOST_ROWS else [first, *rows[-_MOST_ROWS + 1 :]]
    return Start(
        id=f"{first.run}.{number}", number=number, at=first.at, outcome=outcome,
        swap_id=first.swap_id, swap_cause=first.swap_cause, request_id=first.request_id,
        is_adopted=first.event == "adopted", cause=first.cause,
        ready_s=None if ready is None else round(max(ready.at - first.at, 0.0), 3),
        until=None if ended is None else ended.at,
        why="" if leaving is None else leaving.cause or leaving.event.replace("_", " "),
        transitions=kept, left_out=len(rows) - len(kept), log_bytes=None, kept_log_bytes=None,
    )  # fmt: skip


def _leaving(rows: Sequence[TransitionRow], promises: Promises) -> TransitionRow | None:
    """Return the transition with which the end of a run began; None while it has not."""
    found: TransitionRow | None = None
    for row in rows:
        is_ending = row.target in promises.quiet or promises.stopping in (
            row.configuration.split(".")
        )
        if not is_ending:
            found = None  # a stop that was refused
        elif found is None:
            found = row
    return found
