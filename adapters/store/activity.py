"""Store of finished requests for models: one row each, with status, tokens and durations.

A row holds no text of the request or the response. Rows are numbered here and not by SQLite, so
that the number is known before the row is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, Literal, NamedTuple, TypeAlias

from .activity_schema import TABLE
from .database import Database
from .histogram import histogram

#: Columns that rows can be sorted by, as the API names them.
SORTS = (
    "id", "time", "model", "req_path", "resp_status_code", "resp_content_type", "cached",
    "prompt", "generated", "drafted", "prompt_speed", "gen_speed", "duration", "waited",
)  # fmt: skip
Order: TypeAlias = Literal["asc", "desc"]

_PRUNE = f"DELETE FROM {TABLE} WHERE id <= (SELECT MAX(id) FROM {TABLE}) - ?"
_PRUNE_EVERY = 1000
_HISTOGRAM_ROWS = 20_000  # newest rows in a histogram, which keeps it quick on a large store


class ActivityRow(NamedTuple):
    """One finished request in the order of the table's columns; the schema gives the units."""

    id: int
    time: int
    model: str
    req_path: str
    resp_content_type: str
    resp_status_code: int
    cached: int = 0
    drafted: int = 0
    accepted: int = 0
    prompt: int = 0
    generated: int = 0
    prompt_speed: float = 0.0
    gen_speed: float = 0.0
    duration: int = 0
    waited: int = 0
    first_byte: int = 0
    error_msg: str = ""
    metadata: str = "{}"
    request_id: str = ""


class WaitRow(NamedTuple):
    """Wait of one request for its model, in the order of the table's columns; times in ms.

    `resident`, `evicted` and `reasons` are JSON lists; the schema says of what.
    """

    id: int
    swap_id: str
    queue: int
    evict: int
    start: int
    hooks: int
    resident: str
    evicted: str
    reasons: str


_INSERT = f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(ActivityRow._fields))})"
_INSERT_WAIT = f"INSERT INTO swapchart_wait VALUES ({', '.join('?' * len(WaitRow._fields))})"
_PRUNE_WAITS = "DELETE FROM swapchart_wait WHERE id <= (SELECT MAX(id) FROM swapchart_wait) - ?"
_JOINED = f"{TABLE} a LEFT JOIN swapchart_wait w ON w.id = a.id"
_LIKE = "a.{} LIKE ? ESCAPE '\\'"
_WIDTH = len(ActivityRow._fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityQuery:
    """Filter, order and page of a query.

    Attributes:
        models: Model ids; empty means all models.
        statuses: Ranges of statuses, both ends included; empty means all statuses.
        text: Part of the model, path, error, request id or session, in any case of ASCII letters;
            empty means any.
        has_whole_text: `text` may be a part of the error or the request id too.
        start: Earliest time, in milliseconds since 1970; None means unlimited.
        end: Latest time, in milliseconds since 1970; None means unlimited.
        min_id: Lowest id; None means unlimited.
        max_id: Highest id; None means unlimited.
        limit: Rows per page, 1..999.
        page: Number of the page, >= 1.
        sort: One of `SORTS`; ties are broken by id.
        order: Direction of the order.
    """

    models: tuple[str, ...] = ()
    statuses: tuple[tuple[int, int], ...] = ()
    text: str = ""
    has_whole_text: bool = True
    start: int | None = None
    end: int | None = None
    min_id: int | None = None
    max_id: int | None = None
    limit: int = 25
    page: int = 1
    sort: str = "id"
    order: Order = "desc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityPage:
    """One page of a query.

    Attributes:
        rows: Rows of the page, in the order of the query.
        total: Number of rows on all pages.
        waits: Id of a row -> how that request waited; none for one that did not have to.
    """

    rows: tuple[ActivityRow, ...]
    total: int
    waits: Mapping[int, WaitRow] = field(default_factory=dict)


class ActivityStore:
    """Store of finished requests; the oldest rows are deleted above a limit.

    Args:
        database: An open database with `activity_schema.MIGRATIONS`; the caller closes it.
        limit: Maximum number of rows.
    """

    def __init__(self, database: Database, *, limit: int = 1_000_000) -> None:
        self._db, self._limit = database, limit
        self._last_id = 0
        self._count = 0

    async def open(self) -> None:
        """Read the number of the last row.

        Raises:
            StoreError: The store is off; then rows are numbered from 1 and are not kept.
        """
        ((last,),) = await self._db.query(f"SELECT COALESCE(MAX(id), 0) FROM {TABLE}")
        self._last_id = int(last)

    @property
    def dropped(self) -> int:
        """Number of rows that could not be written."""
        return self._db.dropped

    @property
    def problem(self) -> str:
        """Why the store is off, or what was wrong when it was opened; empty if nothing was."""
        return self._db.problem

    def next_id(self) -> int:
        """Return the number of the next row."""
        self._last_id += 1
        return self._last_id

    def put(self, row: ActivityRow) -> None:
        """Queue *row* for writing; never wait."""
        self._db.put(_INSERT, row)
        self._count += 1
        if self._count % min(_PRUNE_EVERY, max(self._limit // 10, 1)) == 0:
            self._db.put(_PRUNE, (self._limit,))
            self._db.put(_PRUNE_WAITS, (self._limit,))

    def put_wait(self, row: WaitRow) -> None:
        """Queue how a request waited for writing; never wait. Its activity row comes first."""
        self._db.put(_INSERT_WAIT, row)

    async def waited_for(self, swap_id: str, *, limit: int = 200) -> ActivityPage:
        """Return the first *limit* requests that waited for a swap, the oldest first.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            f"SELECT a.*, w.* FROM swapchart_wait w JOIN {TABLE} a ON a.id = w.id "
            "WHERE w.swap_id = ? ORDER BY a.id LIMIT ?",
            (swap_id, limit),
        )
        return _page(rows, len(rows))

    async def page(self, query: ActivityQuery) -> ActivityPage:
        """Return the rows that match *query*.

        Raises:
            StoreError: The store is off.
        """
        where, values = _condition(query)

        def read(db: Connection) -> tuple[int, list[tuple[Any, ...]]]:
            (total,) = db.execute(f"SELECT COUNT(*) FROM {TABLE} a {where}", values).fetchone()
            ties = "" if query.sort == "id" else f", a.id {query.order}"
            rows = db.execute(
                f"SELECT a.*, w.* FROM {_JOINED} {where} "
                f"ORDER BY a.{query.sort} {query.order}{ties} LIMIT ? OFFSET ?",
                (*values, query.limit, (query.page - 1) * query.limit),
            ).fetchall()
            return total, rows

        assert query.sort in SORTS, "checked by the caller"
        assert query.order in ("asc", "desc"), "checked by the caller"
        total, rows = await self._db.call(read)
        return _page(rows, total)

    async def stats(self, models: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return totals and histograms of token rates of *models*; empty means all models.

        Raises:
            StoreError: The store is off.
        """
        where, values = _condition(ActivityQuery(models=models))

        def read(db: Connection) -> tuple[tuple[Any, ...], list[tuple[float, float]]]:
            sums = db.execute(
                "SELECT COUNT(*), TOTAL(prompt), TOTAL(generated), TOTAL(MAX(cached, 0)) "
                f"FROM {TABLE} a {where}",
                values,
            ).fetchone()
            rates = db.execute(
                f"SELECT prompt_speed, gen_speed FROM {TABLE} a {where} ORDER BY id DESC LIMIT ?",
                (*values, _HISTOGRAM_ROWS),
            ).fetchall()
            return sums, rates

        (count, read_, written, cached), rates = await self._db.call(read)
        return {
            "total_requests": int(count), "total_input_tokens": int(read_),
            "total_output_tokens": int(written), "total_cache_tokens": int(cached),
            "prompt_histogram": histogram([rate for rate, _ in rates]),
            "gen_histogram": histogram([rate for _, rate in rates]),
        }  # fmt: skip


def _page(rows: Sequence[tuple[Any, ...]], total: int) -> ActivityPage:
    waits = [WaitRow._make(row[_WIDTH:]) for row in rows if row[_WIDTH] is not None]
    return ActivityPage(
        rows=tuple(ActivityRow._make(row[:_WIDTH]) for row in rows), total=total,
        waits={wait.id: wait for wait in waits},
    )  # fmt: skip


def _condition(query: ActivityQuery) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = []
    values: list[Any] = []
    if query.models:
        parts.append(f"a.model IN ({', '.join('?' * len(query.models))})")
        values += query.models
    if query.statuses:
        ranges = " OR ".join(["a.resp_status_code BETWEEN ? AND ?"] * len(query.statuses))
        parts.append(f"({ranges})")
        values += [status for span in query.statuses for status in span]
    if query.text:
        like = "".join(f"\\{letter}" if letter in r"\%_" else letter for letter in query.text)
        columns = [
            "model",
            "req_path",
            *(("error_msg", "request_id") if query.has_whole_text else ()),
        ]
        likes = [_LIKE.format(column) for column in (*columns, "metadata")]
        parts.append(f"({' OR '.join(likes)})")
        values += [f"%{like}%"] * len(columns) + [f'%"session": "%{like}%']
    limits: Sequence[tuple[str, int | None]] = (
        ("a.time >= ?", query.start), ("a.time <= ?", query.end),
        ("a.id >= ?", query.min_id), ("a.id <= ?", query.max_id),
    )  # fmt: skip
    for text, value in limits:
        if value is not None:
            parts.append(text)
            values.append(value)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), tuple(values)
