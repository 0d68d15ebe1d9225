"""Journal of the state transitions of services, with time and cause; bounded.

It also holds the process trees that were launched and have not ended yet. If the proxy and its
guard are killed together, the next start reads there which processes may be left.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from time import time
from typing import Any

from ...dataclass import dataclass
from ...runtime import HookResult, Transition
from ...runtime.median import median
from ..system.own_node import own_node_name
from . import footprints, timeline_schema
from .database import Database

MIGRATIONS = (
    """
    CREATE TABLE transition (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,               -- wall clock; seconds since 1970
        instance TEXT NOT NULL,         -- id of the run of the proxy
        service TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        event TEXT NOT NULL,
        cause TEXT NOT NULL,
        source TEXT NOT NULL,
        target TEXT NOT NULL,
        configuration TEXT NOT NULL,    -- dotted, outermost first
        seconds REAL NOT NULL,          -- time spent in `source`
        pid INTEGER,
        exit_code INTEGER,
        exit_signal INTEGER,
        hooks TEXT NOT NULL             -- JSON list
    );
    CREATE INDEX transition_service ON transition (service, id);
    CREATE TABLE launched (             -- process trees that may be running
        instance TEXT NOT NULL,
        service TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,       -- clock ticks since boot, as in /proc/PID/stat
        boot TEXT NOT NULL,             -- boot id; pids are reused after a reboot
        PRIMARY KEY (instance, service, pid)
    );
    """,
    """
    CREATE TABLE owed (                 -- afterStop hooks that have not completed
        instance TEXT NOT NULL,
        service TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        PRIMARY KEY (instance, service)
    );
    """,
    footprints.SCHEMA,
    footprints.SHORTAGES_SCHEMA,
    # X-Request-ID of the request that a transition was for; empty for none
    "ALTER TABLE transition ADD COLUMN request_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE transition ADD COLUMN node TEXT NOT NULL DEFAULT ''",
    timeline_schema.JOURNAL,
)

_INSERT = """
    INSERT INTO transition (at, instance, service, incarnation, event, cause, source, target,
        configuration, seconds, pid, exit_code, exit_signal, hooks, request_id, node,
        swap_id, swap_cause, swap_request)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = (
    "id", "at", "service", "incarnation", "event", "cause", "source", "target", "configuration",
    "seconds", "pid", "exit_code", "exit_signal", "hooks", "request_id", "node", "swap_id",
    "swap_cause", "instance",
)  # fmt: skip
_RUN_DIGITS = 8  # of the id of a run of the proxy that are shown
_PRUNE = "DELETE FROM transition WHERE id <= (SELECT MAX(id) FROM transition) - ?"
_PRUNE_EVERY = 256
_LOADS = 5  # last starts of a service that are looked at
# A start that was adopted, or begun by an earlier run of the proxy, has no beginning of its own.
_LOAD_TIMES = f"""
    WITH steps AS (
        SELECT service, id, target, at, instance, LAG(target) OVER own AS before,
            LAG(at) OVER own AS began, LAG(instance) OVER own AS began_in
        FROM transition WHERE target IN ('before_start', 'ready')
        WINDOW own AS (PARTITION BY service ORDER BY id)
    ), loads AS (
        SELECT service, at - began AS seconds,
            ROW_NUMBER() OVER (PARTITION BY service ORDER BY id DESC) AS place
        FROM steps
        WHERE target = 'ready' AND before = 'before_start' AND began_in = instance AND at > began
    )
    SELECT service, seconds FROM loads WHERE place <= {_LOADS}
"""


@dataclass(frozen=True, slots=True)
class Launched:
    """Process tree that may still be running.

    Attributes:
        instance: Id of the run of the proxy that launched it; SWAPCHART_INSTANCE in the environment
            of its processes.
        service: Name of the service.
        pid: Process id of the leader.
        started: Start time of the leader, in clock ticks since boot.
        boot: Id of the boot of that time.
    """

    instance: str
    service: str
    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class IncompleteHooks:
    """``afterStop`` hooks of a service that an earlier run of the proxy did not complete.

    Attributes:
        instance: Id of that run of the proxy.
        service: Name of the service.
        incarnation: Number of the run of the service.
    """

    instance: str
    service: str
    incarnation: int


class Journal:
    """Journal of transitions, launched process trees and incomplete hooks.

    Args:
        database: An open database with `MIGRATIONS`; the caller closes it.
        instance: Id of this run of the proxy.
        boot: Id of this boot.
        started_of: Return the start time of a pid in clock ticks since boot, or None if there is
            no such process.
        limit: Maximum number of transitions; the oldest are deleted.

    Attributes:
        request_of: Returns the id of the request that a transition is for; empty for none.
    """

    def __init__(
        self, database: Database, instance: str, *, boot: str,
        started_of: Callable[[int], int | None], limit: int = 100_000,
    ) -> None:  # fmt: skip
        self._db, self._instance, self._boot = database, instance, boot
        self._started_of, self._limit = started_of, limit
        self.request_of: Callable[[Transition], str] = lambda _: ""
        self._count = 0
        self._launches: dict[str, tuple[str, int]] = {}  # service -> its proxy, pid of its leader
        self._origins: dict[str, str] = {}  # service -> proxy that started its adopted run
        self._vital: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {}
        database.on_new_file = self._rewrite_vital

    def take(self, record: Transition) -> None:
        """Write *record*; never wait. Registered as a listener of the supervisor."""
        ended = record.exit
        self._db.put(
            _INSERT,
            (
                time(), self._instance, record.service, record.incarnation, record.event,
                record.cause, record.source, record.target, ".".join(record.configuration),
                record.seconds, record.pid, ended.code if ended else None,
                ended.signal if ended else None,
                json.dumps([_hook_facts(hook) for hook in record.hooks]), self.request_of(record),
                record.node, *_swap_of(record),
            ),
        )  # fmt: skip
        # A process id of another node says nothing here.
        is_here = record.node in ("", own_node_name())
        if record.event == "spawned" and record.pid is not None and is_here:
            self._note_launch(record.service, self._instance, record.pid)
        elif record.event == "swept":
            self._note_end(record.service)
        if record.target == "before_start":  # a new run, which gets its number right after that
            self._put_vital(
                "owed", record.service, "INSERT OR REPLACE INTO owed VALUES (?, ?, ?)",
                (self._instance, record.service, record.incarnation + 1),
            )  # fmt: skip
        elif record.source == "after_stop":
            origin = self._origins.pop(record.service, self._instance)
            self.complete(IncompleteHooks(origin, record.service, record.incarnation))
        self._count += 1
        if self._count % _PRUNE_EVERY == 0:
            self._db.put(_PRUNE, (self._limit,))

    def adopt(self, service: str, instance: str, incarnation: int, pid: int) -> None:
        """Note that the present run of *service* was started by proxy *instance*, as *pid*.

        That proxy may have been killed before it wrote so.
        """
        self._origins[service] = instance
        self._note_launch(service, instance, pid)
        self._put_vital(
            "owed", service, "INSERT OR REPLACE INTO owed VALUES (?, ?, ?)",
            (instance, service, incarnation),
        )  # fmt: skip

    def inherit(self, service: str, incarnation: int) -> None:
        """Note that the present run of *service* was started by some earlier proxy, elsewhere.

        Its hooks have to run after its end, and not now.
        """
        self._db.put(
            "DELETE FROM owed WHERE instance <> ? AND service = ?", (self._instance, service),
            is_vital=True,
        )  # fmt: skip
        self._put_vital(
            "owed", service, "INSERT OR REPLACE INTO owed VALUES (?, ?, ?)",
            (self._instance, service, incarnation),
        )  # fmt: skip

    def _note_launch(self, service: str, instance: str, pid: int) -> None:
        self._launches[service] = instance, pid
        started = self._started_of(pid)
        if started is not None:
            self._put_vital(
                "launched", service, "INSERT OR REPLACE INTO launched VALUES (?, ?, ?, ?, ?)",
                (instance, service, pid, started, self._boot),
            )  # fmt: skip

    def _note_end(self, service: str) -> None:
        self._vital.pop(("launched", service), None)
        launch = self._launches.pop(service, None)
        if launch is not None:
            instance, pid = launch
            self._db.put(
                "DELETE FROM launched WHERE instance = ? AND service = ? AND pid = ?",
                (instance, service, pid), is_vital=True,
            )  # fmt: skip

    def _put_vital(self, table: str, service: str, sql: str, row: tuple[Any, ...]) -> None:
        """Write a row that must be on disk if the proxy is killed."""
        self._vital[table, service] = sql, row
        self._db.put(sql, row, is_vital=True)

    def _rewrite_vital(self) -> None:
        """Write the vital rows into a new file; called in the thread of the database."""
        for sql, row in list(self._vital.values()):
            self._db.put(sql, row, is_vital=True)

    async def history(self, service: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the last *limit* transitions of *service*, the newest first.

        Raises:
            StoreError: The store is off.
        """
        return await self._rows("service = ? ORDER BY id DESC", service, limit)

    async def swap(self, swap_id: str, *, limit: int = 200) -> list[dict[str, Any]]:
        """Return the first *limit* transitions of a swap, the oldest first.

        Raises:
            StoreError: The store is off.
        """
        return await self._rows("swap_id = ? ORDER BY id", swap_id, limit)

    async def load_times(self) -> dict[str, float]:
        """Return the median duration of the last starts of each service, in seconds.

        Raises:
            StoreError: The store is off.
        """
        found: dict[str, list[float]] = {}
        for service, seconds in await self._db.query(_LOAD_TIMES):
            found.setdefault(service, []).append(seconds)
        return {service: median(durations) for service, durations in found.items()}

    async def _rows(self, which: str, value: str, limit: int) -> list[dict[str, Any]]:
        sql = f"SELECT {', '.join(_COLUMNS)} FROM transition WHERE {which} LIMIT ?"
        rows = await self._db.query(sql, (value, limit))
        found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        for entry in found:
            entry["hooks"] = json.loads(entry["hooks"])
            entry["run"] = run_of(entry.pop("instance"))
        return found

    async def unended(self) -> list[Launched]:
        """Return process trees that earlier runs of the proxy launched and whose end is not known.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            "SELECT instance, service, pid, started, boot FROM launched WHERE instance <> ?",
            (self._instance,),
        )
        return [Launched(*row) for row in rows]

    def discard(self, ended: list[Launched]) -> None:
        """Delete process trees that have ended."""
        for item in ended:
            self._db.put(
                "DELETE FROM launched WHERE instance = ? AND service = ? AND pid = ?",
                (item.instance, item.service, item.pid), is_vital=True,
            )  # fmt: skip

    async def incomplete_hooks(self) -> list[IncompleteHooks]:
        """Return the hooks that earlier runs of the proxy did not complete.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            "SELECT instance, service, incarnation FROM owed WHERE instance <> ?",
            (self._instance,),
        )
        return [IncompleteHooks(*row) for row in rows]

    def complete(self, hooks: IncompleteHooks) -> None:
        """Note that *hooks* have run, or that their service is gone."""
        _, row = self._vital.get(("owed", hooks.service), ("", ("",)))
        if row[0] == hooks.instance:
            del self._vital["owed", hooks.service]
        self._db.put(
            "DELETE FROM owed WHERE instance = ? AND service = ?",
            (hooks.instance, hooks.service), is_vital=True,
        )  # fmt: skip


def run_of(instance: str) -> str:
    """Return the short id of a run of the proxy that rows have as ``run``."""
    return instance[:_RUN_DIGITS]


def _hook_facts(hook: HookResult) -> dict[str, Any]:
    """Return *hook* without its time on the clock of this process."""
    facts = asdict(hook)
    del facts["ended_at"]
    return facts


def _swap_of(record: Transition) -> tuple[str, str, str]:
    swap = record.swap
    return ("", "", "") if swap is None else (swap.id, swap.cause, swap.request_id)
