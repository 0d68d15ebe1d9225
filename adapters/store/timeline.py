"""Store of the timeline: transitions, requests, memory and restored tokens over a span of time.

Each kind is one query, and each query returns a bounded number of rows however long the span is:
requests and samples of memory are grouped by time within SQLite.
"""

from __future__ import annotations

from time import time
from typing import NamedTuple

from .activity_schema import TABLE
from .database import Database

SPAN_MS = 7 * 86_400_000
"""For which samples of memory and restores are kept, in milliseconds."""

CANCELED = 499
"""Status of a request whose client disconnected, or that was canceled."""

_LONGEST_MS = 600_000  # before the span, where a request that lasts into it is looked for
_SAMPLE_MS = 300_000  # longest time between two samples of one device
_RESTORED = 500  # newest restores that are returned
_PRUNE_EVERY = 256

_TRANSITIONS = """
    WITH runs AS (SELECT instance, MAX(at) AS until FROM transition GROUP BY instance)
    SELECT t.at, t.instance, r.until, t.service, t.event, t.target, t.configuration, t.swap_id,
        t.swap_cause, t.swap_request
    FROM transition t JOIN runs r ON r.instance = t.instance
    WHERE t.id IN (
        SELECT id FROM transition WHERE at BETWEEN ?1 AND ?2
        UNION ALL SELECT MAX(id) FROM transition WHERE at < ?1 GROUP BY service
    )
    ORDER BY t.service, t.id
"""
# A request that was never admitted has waited until its end.
_HAS_FAILED = f"resp_status_code >= 400 AND resp_status_code <> {CANCELED}"
# Of each group the request that waited longest; its wait and its id are compared as one number.
_REQUESTS = f"""
    SELECT a.model, g.requests, g.waited, g.answering, g.until, a.id, a.time, a.resp_status_code,
        a.duration, a.waited, a.first_byte, g.rejected, g.failed, g.canceled, w.swap_id, w.queue,
        w.evict, w.start, w.hooks
    FROM (
        SELECT COUNT(*) AS requests, SUM(resp_status_code = {CANCELED}) AS canceled,
            SUM({_HAS_FAILED} AND waited >= duration) AS rejected,
            SUM({_HAS_FAILED} AND waited < duration) AS failed, TOTAL(waited) AS waited,
            MIN(time + waited) AS answering,
            MAX(time + duration) AS until, MAX((MIN(waited, 1000000000) << 32) | id) AS longest
        FROM {TABLE} WHERE time BETWEEN ?1 - {_LONGEST_MS} AND ?2 AND time + duration >= ?1
        GROUP BY model, time / ?3
    ) g
    JOIN {TABLE} a ON a.id = g.longest & 4294967295
    LEFT JOIN swapchart_wait w ON w.id = a.id
    ORDER BY a.id
"""
_MEMORY = f"""
    SELECT device, MIN(at), MAX(used), MAX(capacity) FROM memory_sample
    WHERE at BETWEEN ?1 - {_SAMPLE_MS} AND ?2 GROUP BY device, at / ?3 ORDER BY device, MIN(at)
"""
_RESTORES = f"""
    SELECT at, service, tokens, ms, saved_ms, swap_id FROM restored WHERE at BETWEEN ?1 AND ?2
    ORDER BY at DESC LIMIT {_RESTORED}
"""


class TransitionFact(NamedTuple):
    """One transition; times are seconds since 1970.

    Attributes:
        until: When the last transition of the same run of the proxy happened.
        configuration: Active states afterwards, dotted, outermost first.
    """

    at: float
    instance: str
    until: float
    service: str
    event: str
    target: str
    configuration: str
    swap_id: str
    swap_cause: str
    swap_request: str


class RequestGroup(NamedTuple):
    """Requests for one model that arrived at about one time, with the one that waited longest.

    Times are milliseconds; `answering`, `until` and `time` count from 1970.

    Attributes:
        requests: Number of requests.
        total_waited: Sum of their waits.
        answering: When the first of them was admitted.
        until: When the last of them ended.
        id: Number of the request that waited longest; this and what follows is about it.
        rejected: Number of the requests that were not admitted.
        failed: Number of those that were, and failed.
        canceled: Number of those that were canceled, or whose client disconnected.
        swap_id: The swap that it waited for, or empty; None, as what follows, if it had not to.
    """

    model: str
    requests: int
    total_waited: float
    answering: int
    until: int
    id: int
    time: int
    status: int
    duration: int
    waited: int
    first_byte: int
    rejected: int
    failed: int
    canceled: int
    swap_id: str | None
    queue: int | None
    evict: int | None
    start: int | None
    hooks: int | None


class MemoryPoint(NamedTuple):
    """Memory of one device at one time, in milliseconds since 1970; bytes."""

    device: str
    at: int
    used: int
    capacity: int


class RestoredFact(NamedTuple):
    """Saved slots that were filled into a server after its start.

    Attributes:
        at: Milliseconds since 1970.
        tokens: Number of tokens.
        ms: Duration in milliseconds.
        saved_ms: Expected time to read the tokens anew, in milliseconds; None is unknown.
        swap_id: Swap that the start was part of; empty is unknown.
    """

    at: int
    service: str
    tokens: int
    ms: float
    saved_ms: float | None
    swap_id: str


class TimelineStore:
    """Reads the timeline, and keeps what only it needs.

    Args:
        journal: An open database with the journal's migrations.
        activity: An open database with the migrations of finished requests.
        instance: Id of this run of the proxy, as in the journal.
    """

    def __init__(self, journal: Database, activity: Database, instance: str) -> None:
        self._journal, self._activity = journal, activity
        self.instance = instance
        self._samples = 0

    # ---- records
    def put_memory(self, device: str, used: int, capacity: int) -> None:
        """Queue a sample of *device* in bytes for writing; never wait."""
        now = round(time() * 1000)
        sql = "INSERT INTO memory_sample VALUES (?, ?, ?, ?)"
        self._journal.put(sql, (now, device[:200], used, capacity))
        self._samples += 1
        if self._samples % _PRUNE_EVERY == 0:
            for table in ("memory_sample", "restored"):
                self._journal.put(f"DELETE FROM {table} WHERE at < ?", (now - SPAN_MS,))

    def put_restored(
        self, service: str, tokens: int, ms: float, saved_ms: float | None, swap_id: str
    ) -> None:
        """Queue a restore for writing; never wait. See `RestoredFact`."""
        self._journal.put(
            "INSERT INTO restored VALUES (?, ?, ?, ?, ?, ?)",
            (round(time() * 1000), service, tokens, ms, saved_ms, swap_id),
        )

    # ---- queries
    async def transitions(self, start_ms: int, end_ms: int) -> list[TransitionFact]:
        """Return the transitions of a span and the last one before, by service and time.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._journal.query(_TRANSITIONS, (start_ms / 1000, end_ms / 1000))
        return [TransitionFact._make(row) for row in rows]

    async def requests(self, start_ms: int, end_ms: int, step_ms: int) -> list[RequestGroup]:
        """Return the requests of a span, in groups of those that arrived in the same step.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._activity.query(_REQUESTS, (start_ms, end_ms, step_ms))
        return [RequestGroup._make(row) for row in rows]

    async def memory(self, start_ms: int, end_ms: int, step_ms: int) -> list[MemoryPoint]:
        """Return the highest use of each device in each step, by device and time.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._journal.query(_MEMORY, (start_ms, end_ms, step_ms))
        return [MemoryPoint._make(row) for row in rows]

    async def restored(self, start_ms: int, end_ms: int) -> list[RestoredFact]:
        """Return the newest restores of a span, the newest first.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._journal.query(_RESTORES, (start_ms, end_ms))
        return [RestoredFact._make(row) for row in rows]
