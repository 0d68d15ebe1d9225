"""The journal of transitions: what happened to each service, when, and why; bounded.

It also remembers which process trees were launched and not yet seen to end. If we are killed
together with the guard, or the machine goes down, the next start reads them here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import time
from typing import Any

from ...runtime import Transition
from .database import Database

MIGRATIONS = (
    """
    CREATE TABLE transition (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,               -- wall clock; seconds since 1970
        instance TEXT NOT NULL,         -- which run of the proxy
        service TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        event TEXT NOT NULL,
        cause TEXT NOT NULL,
        source TEXT NOT NULL,
        target TEXT NOT NULL,
        configuration TEXT NOT NULL,    -- dotted, outermost first
        seconds REAL NOT NULL,          -- how long the source lasted
        pid INTEGER,
        exit_code INTEGER,
        exit_signal INTEGER,
        hooks TEXT NOT NULL             -- JSON list
    );
    CREATE INDEX transition_service ON transition (service, id);
    CREATE TABLE launched (             -- trees that may be alive
        instance TEXT NOT NULL,
        service TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,       -- clock ticks since boot, as in /proc/PID/stat
        boot TEXT NOT NULL,             -- boot id: pids mean nothing after a reboot
        PRIMARY KEY (instance, service, pid)
    );
    """,
    """
    CREATE TABLE owed (                 -- afterStop hooks that have to run, and have not yet
        instance TEXT NOT NULL,
        service TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        PRIMARY KEY (instance, service)
    );
    """,
)

_INSERT = """
    INSERT INTO transition (at, instance, service, incarnation, event, cause, source, target,
        configuration, seconds, pid, exit_code, exit_signal, hooks)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = (
    "id", "at", "service", "incarnation", "event", "cause", "source", "target", "configuration",
    "seconds", "pid", "exit_code", "exit_signal", "hooks",
)  # fmt: skip
_PRUNE = "DELETE FROM transition WHERE id <= (SELECT MAX(id) FROM transition) - ?"
_PRUNE_EVERY = 256


@dataclass(frozen=True, slots=True)
class Launched:
    """A process tree that may be alive.

    Attributes:
        instance: The run of the proxy that launched it; its processes carry it in their
            environment as SWAPCHART_INSTANCE.
        service: Its service.
        pid: The leader.
        started: When the leader started; clock ticks since boot.
        boot: Id of the boot in which that was.
    """

    instance: str
    service: str
    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Owed:
    """Hooks ``afterStop`` that an earlier run of the proxy did not live to see through.

    Attributes:
        instance: Which run of the proxy.
        service: Whose hooks.
        incarnation: Which run of the service.
    """

    instance: str
    service: str
    incarnation: int


class Journal:
    """Writes transitions, and reads them back.

    Args:
        database: Opened by whoever made it, with `MIGRATIONS`.
        instance: Id of this run of the proxy.
        boot: Id of this boot.
        started_of: pid -> clock ticks since boot, or None when there is no such process.
        limit: Rows that are kept; the oldest go first.
    """

    def __init__(
        self, database: Database, instance: str, *, boot: str,
        started_of: Callable[[int], int | None], limit: int = 20_000,
    ) -> None:  # fmt: skip
        self._db, self._instance, self._boot = database, instance, boot
        self._started_of, self._limit = started_of, limit
        self._count = 0
        self._pids: dict[str, int] = {}
        self._vital: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {}
        database.on_new_file = self._write_again

    def take(self, record: Transition) -> None:
        """Note *record*; never waits. A listener of the supervisor."""
        ended = record.exit
        self._db.put(
            _INSERT,
            (
                time(), self._instance, record.service, record.incarnation, record.event,
                record.cause, record.source, record.target, ".".join(record.configuration),
                record.seconds, record.pid, ended.code if ended else None,
                ended.signal if ended else None,
                json.dumps([asdict(hook) for hook in record.hooks]),
            ),
        )  # fmt: skip
        if record.event == "spawned" and record.pid is not None:
            self._note_launch(record.service, record.pid)
        elif record.event == "swept":
            self._note_end(record.service)
        if record.target == "before_start":  # where a run begins; it is counted right after that
            owed = (self._instance, record.service, record.incarnation + 1)
            self._keep("owed", record.service, "INSERT OR REPLACE INTO owed VALUES (?, ?, ?)", owed)
        elif record.source == "after_stop":
            self.settle(Owed(self._instance, record.service, record.incarnation))
        self._count += 1
        if self._count % _PRUNE_EVERY == 0:
            self._db.put(_PRUNE, (self._limit,))

    def _note_launch(self, service: str, pid: int) -> None:
        started = self._started_of(pid)
        if started is None:
            return
        self._pids[service] = pid
        self._keep(
            "launched", service, "INSERT OR REPLACE INTO launched VALUES (?, ?, ?, ?, ?)",
            (self._instance, service, pid, started, self._boot),
        )  # fmt: skip

    def _note_end(self, service: str) -> None:
        pid = self._pids.pop(service, None)
        self._vital.pop(("launched", service), None)
        if pid is not None:
            self._db.put(
                "DELETE FROM launched WHERE instance = ? AND service = ? AND pid = ?",
                (self._instance, service, pid), is_vital=True,
            )  # fmt: skip

    def _keep(self, table: str, service: str, sql: str, row: tuple[Any, ...]) -> None:
        """Write a row that must be there if we are killed."""
        self._vital[table, service] = sql, row
        self._db.put(sql, row, is_vital=True)

    def _write_again(self) -> None:
        """Write what must be there into a new file; called in the store's thread."""
        for sql, row in list(self._vital.values()):
            self._db.put(sql, row, is_vital=True)

    async def history(self, service: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the last *limit* transitions of *service*, the newest first.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            f"SELECT {', '.join(_COLUMNS)} FROM transition WHERE service = ? "
            "ORDER BY id DESC LIMIT ?",
            (service, limit),
        )
        found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        for entry in found:
            entry["hooks"] = json.loads(entry["hooks"])
        return found

    async def leftovers(self) -> list[Launched]:
        """Return trees that earlier runs launched and did not see end.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            "SELECT instance, service, pid, started, boot FROM launched WHERE instance <> ?",
            (self._instance,),
        )
        return [Launched(*row) for row in rows]

    def forget(self, leftovers: list[Launched]) -> None:
        """Drop what is known to have ended."""
        for item in leftovers:
            self._db.put(
                "DELETE FROM launched WHERE instance = ? AND service = ? AND pid = ?",
                (item.instance, item.service, item.pid), is_vital=True,
            )  # fmt: skip

    async def owed(self) -> list[Owed]:
        """Return the hooks that earlier runs owe.

        Raises:
            StoreError: The store is off.
        """
        rows = await self._db.query(
            "SELECT instance, service, incarnation FROM owed WHERE instance <> ?",
            (self._instance,),
        )
        return [Owed(*row) for row in rows]

    def settle(self, owed: Owed) -> None:
        """Note that these hooks have run, or are nobody's any more."""
        if owed.instance == self._instance:
            self._vital.pop(("owed", owed.service), None)
        self._db.put(
            "DELETE FROM owed WHERE instance = ? AND service = ?",
            (owed.instance, owed.service), is_vital=True,
        )  # fmt: skip
