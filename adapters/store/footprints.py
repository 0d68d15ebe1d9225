"""Store of footprints: what the last runs of each launch held of each memory pool, and lacked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, fields
from pathlib import Path
from time import time

from ...runtime.memory.footprints import RUNS, Observation
from ...runtime.memory.shortage import GOOD_RUNS, Shortage
from .database import Database

#: Part of the migrations of the journal, whose file the table is in.
SCHEMA = """
    CREATE TABLE footprints (
        model TEXT NOT NULL,
        key TEXT NOT NULL,              -- identifies the launch
        run TEXT NOT NULL,
        pool TEXT NOT NULL,
        at REAL NOT NULL,               -- wall clock; seconds since 1970
        ready INTEGER NOT NULL,         -- bytes, as all amounts
        highest INTEGER NOT NULL,
        asleep INTEGER NOT NULL,
        method TEXT NOT NULL,
        processes INTEGER NOT NULL,
        is_alone INTEGER NOT NULL,
        free_before INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        PRIMARY KEY (key, run, pool)
    );
"""
#: A later part of these migrations.
SHORTAGES_SCHEMA = """
    CREATE TABLE shortages (            -- launches that ran out of memory
        model TEXT NOT NULL,
        key TEXT NOT NULL,
        pool TEXT NOT NULL,
        at REAL NOT NULL,
        claim INTEGER NOT NULL,         -- bytes that were not enough
        amount INTEGER NOT NULL,        -- bytes that its next starts reserve at least
        good_runs INTEGER NOT NULL,
        PRIMARY KEY (model, key, pool)
    );
"""
_SHORTAGE_COLUMNS = ", ".join(field.name for field in fields(Shortage))
_PUT_SHORTAGE = (
    f"INSERT OR REPLACE INTO shortages ({_SHORTAGE_COLUMNS}) VALUES"
    f" ({', '.join('?' for _ in fields(Shortage))})"
)
_COLUMNS = ", ".join(field.name for field in fields(Observation))
_MARKS = ", ".join("?" for _ in fields(Observation))
_PUT = f"INSERT OR REPLACE INTO footprints ({_COLUMNS}) VALUES ({_MARKS})"
_UNUSED = """
    DELETE FROM footprints WHERE key IN (
        SELECT key FROM footprints GROUP BY key HAVING MAX(at) < ?
    )
"""
_OLD = f"""
    DELETE FROM footprints WHERE key = ? AND run NOT IN (
        SELECT run FROM footprints WHERE key = ? GROUP BY run ORDER BY MAX(at) DESC LIMIT {RUNS}
    )
"""
_KEPT_S = 90 * 86400.0


class FootprintStore:
    """Observations of earlier runs in a database.

    Args:
        database: The database of the journal; the caller closes it.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time) -> None:
        self._db, self._clock = database, clock
        self._written: dict[tuple[str, str, str], Observation] = {}
        self._shortages: dict[tuple[str, str, str], Shortage] = {}
        self._after_new_file = database.on_new_file
        database.on_new_file = self._rewrite

    async def load(self) -> list[Observation]:
        """Delete launches that were unused for 90 days, and return the others, the oldest first.

        Raises:
            StoreError: The store is off.
        """
        self._db.put(_UNUSED, (self._clock() - _KEPT_S,))
        rows = await self._db.query(f"SELECT {_COLUMNS} FROM footprints ORDER BY at")
        found = [_observation(row) for row in rows]
        self._written = {(each.key, each.run, each.pool): each for each in found}
        return found

    async def load_shortages(self) -> list[Shortage]:
        """Delete shortages of 90 days ago, and return the others.

        Raises:
            StoreError: The store is off.
        """
        self._db.put("DELETE FROM shortages WHERE at < ?", (self._clock() - _KEPT_S,))
        rows = await self._db.query(f"SELECT {_SHORTAGE_COLUMNS} FROM shortages ORDER BY at")
        names = [field.name for field in fields(Shortage)]
        found = [Shortage(**dict(zip(names, row, strict=True))) for row in rows]
        self._shortages = {(each.model, each.key, each.pool): each for each in found}
        return found

    def put_shortage(self, shortage: Shortage) -> None:
        """Write *shortage*, or delete it once it has ended; never wait."""
        place = shortage.model, shortage.key, shortage.pool
        if not shortage.key:
            return
        if shortage.good_runs < GOOD_RUNS:
            self._shortages[place] = shortage
            self._db.put(_PUT_SHORTAGE, astuple(shortage))
        else:
            self._shortages.pop(place, None)
            self._db.put("DELETE FROM shortages WHERE model = ? AND key = ? AND pool = ?", place)

    def put(self, observation: Observation) -> None:
        """Write *observation*, in place of the earlier one of its run and pool; never wait."""
        place = observation.key, observation.run, observation.pool
        self._written[place] = observation
        same = [other for other in self._written if (other[0], other[2]) == (place[0], place[2])]
        for other in same[:-RUNS]:
            del self._written[other]
        self._db.put(_PUT, astuple(observation))
        self._db.put(_OLD, (observation.key, observation.key))

    def forget(self, model: str) -> None:
        """Delete all launches of *model*; never wait."""
        self._written = {
            place: each for place, each in self._written.items() if each.model != model
        }
        self._shortages = {
            place: each for place, each in self._shortages.items() if each.model != model
        }
        for table in ("footprints", "shortages"):
            self._db.put(f"DELETE FROM {table} WHERE model = ?", (model,), is_vital=True)

    def _rewrite(self) -> None:
        """Write all rows into a new file; called in the thread of the database."""
        self._after_new_file()
        for observation in list(self._written.values()):
            self._db.put(_PUT, astuple(observation))
        for shortage in list(self._shortages.values()):
            self._db.put(_PUT_SHORTAGE, astuple(shortage))


def read_footprints(path: Path) -> list[Observation]:
    """Return the observations in the journal at *path*, the oldest first; none if it has none.

    The file is opened for reading only: a running proxy may use it.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM footprints ORDER BY at").fetchall()
    except (sqlite3.Error, OSError):
        return []
    return [_observation(row) for row in rows]


def _observation(row: tuple[object, ...]) -> Observation:
    values = dict(zip((field.name for field in fields(Observation)), row, strict=True))
    return Observation(**{**values, "is_alone": bool(values["is_alone"])})  # type: ignore[arg-type]
