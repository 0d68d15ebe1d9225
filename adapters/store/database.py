"""SQLite file, written by a thread of its own.

Rows are queued and written in batches. So a slow disk delays no request, and a kill loses at most
the rows of the last *flush_s* seconds; a vital row is written at once. A damaged file is moved
aside, and a file of a newer version of the program is left unchanged; the program runs in both
cases.

Source: SQLite, "Write-Ahead Logging" and "How To Corrupt An SQLite Database File".
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ..system import threads
from .database_file import DatabaseFile, Migration, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
_Write: TypeAlias = tuple[str, Sequence[Any], bool]
_Job: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]

_VARIABLES = 900  # per statement, 50 rows of activity; every build of SQLite allows 999
_FEW, _MANY = 25, 100  # rows per batch: few take 0.1 ms in all, many take less per row
_LATE = 5  # a batch that exceeds its limit by this many rows shows that the processor is busy
_NICE = 5  # nice value of the thread; on a busy core it still gets a fifth of the time
_RETRY_S = 0.5  # pause before rows that could not be written are tried again
_CLOSE_RETRY_S = 3.0  # longest time for such rows when the store is closed
_WARNING_PERIOD_S = 60.0  # shortest time between two warnings


class Database:
    """Database that a thread of its own writes.

    Args:
        path: Path of the file; None keeps everything in memory.
        migrations: Number *i* takes the schema from version *i* to *i* + 1.
        flush_s: Longest time in seconds before a row is written, > 0.
        limit: Maximum number of rows in the queue; further rows are dropped and counted.

    Attributes:
        dropped: Number of rows that were not written, because the queue or the disk was full or
            the store was off.
        problem: Why the store is off, or what was wrong with the file; empty if nothing was.
        is_on: Rows are being written.
        on_new_file: Called in the thread of the database when it created a deleted file again.
    """

    def __init__(
        self, path: Path | None, migrations: Sequence[Migration], *, flush_s: float = 0.25,
        limit: int = 10_000,
    ) -> None:  # fmt: skip
        self.path = path
        self.dropped = 0
        self.problem = ""
        self.is_on = False
        self._file = DatabaseFile(path, migrations)
        self._flush_s, self._limit = flush_s, limit
        self.on_new_file: Callable[[], None] = lambda: None
        self._writes: deque[_Write] = deque()
        self._failed: deque[_Write] = deque()  # could not be written yet
        self._batch_rows = _FEW
        self._jobs: deque[_Job] = deque()
        self._has_work = threading.Event()
        self._flush_now = threading.Event()  # a caller waits for the work
        self._is_closing = False
        self._opened: Future[None] = Future()
        self._warned_at = -_WARNING_PERIOD_S
        self._worker = threading.Thread(target=self._run, name="swapchart-store", daemon=True)

    # ---- any thread
    def open(self) -> None:
        """Open the file and migrate its schema; `problem` says what failed, nothing is raised."""
        try:
            self._worker.start()
        except (RuntimeError, MemoryError) as error:  # the limit of processes, or of memory
            self.problem = f"{self._file.name} cannot be used: {error}"
            log.warning("%s; nothing is stored", self.problem)
            return
        self._opened.result()

    def put(self, sql: str, parameters: Sequence[Any] = (), *, is_vital: bool = False) -> None:
        """Queue one row for writing; never wait.

        Args:
            sql: One statement.
            parameters: Values of the statement.
            is_vital: Write the row at once, and never drop it while the store is on: it is retried,
                in order, as long as the database is locked or the disk is full or fails. Other rows
                are retried only while the database is locked and the queue has room.
        """
        if not self.is_on or (len(self._writes) >= self._limit and not is_vital):
            self.dropped += 1
            return
        self._writes.append((sql, parameters, is_vital))
        if not self._has_work.is_set():
            self._has_work.set()
        is_due = is_vital or len(self._writes) >= self._batch_rows
        if is_due and not self._flush_now.is_set():
            self._flush_now.set()

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query, which sees all rows that were put before.

        Raises:
            StoreError: The store is off or broken.
        """
        return await self.call(lambda db: db.execute(sql, parameters).fetchall())

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in the thread of the database, after all rows that were put before.

        Raises:
            StoreError: The store is off, or SQLite reported an error.
        """
        future = self.submit(work)
        if not future.done():
            await threads.settled(future)
        try:
            return future.result()
        except sqlite3.Error as error:
            raise StoreError(f"the store failed: {error}") from error

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run *work* as `call` does, for threads without an event loop."""
        future: Future[T] = Future()
        if not self.is_on:
            future.set_exception(StoreError(self.problem or "the store is closed"))
            return future

        self._jobs.append((work, future))
        self._flush_now.set()
        self._has_work.set()
        if not self.is_on:  # closed meanwhile: the thread may have checked for jobs before
            self._reject_jobs()
        return future

    def check_file(self) -> None:
        """Check soon whether the file was deleted, also while no row is written; never wait."""
        if self.is_on:
            self._flush_now.set()
            self._has_work.set()

    def is_file_gone(self) -> bool:
        """Return True if the file was deleted or replaced while it was in use."""
        return self.is_on and self._file.is_gone()

    def close(self) -> None:
        """Write the queued rows and close; a no-op if it is closed."""
        if not self._worker.is_alive():
            return
        self._is_closing = True
        self._flush_now.set()
        self._has_work.set()
        self._worker.join(timeout=5.0)

    # ---- the thread of the database
    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere it would apply to the whole process
            os.nice(_NICE)
        db = None
        try:
            db = self._open_file()
        finally:  # `open` waits for this, whatever happens
            self.is_on = db is not None
            self._opened.set_result(None)
        if db is None:
            return
        try:
            while not self._is_closing:
                self._has_work.wait()  # without a timeout, so that an idle store uses no CPU
                self._flush_now.wait(_RETRY_S if self._failed else self._flush_s)
                self._has_work.clear()
                self._flush_now.clear()
                db = self._work(db)
                if self._failed:
                    self._has_work.set()
            self.is_on = False
            self._finish(self._work(db))
        finally:
            self.is_on = False
            self._reject_jobs()

    def _finish(self, db: sqlite3.Connection) -> None:
        """Retry the rows that could not be written for some seconds, and close."""
        until = time.monotonic() + _CLOSE_RETRY_S
        while self._failed and time.monotonic() < until:
            time.sleep(_RETRY_S / 5)
            db = self._work(db)
        if self._failed:
            self.dropped += len(self._failed)
            log.error("%s: %d rows were not stored", self._file.name, len(self._failed))
        db.close()

    def _work(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Write the queued rows and run the queued jobs; return the connection to use next."""
        try:
            if self.is_file_gone():
                db = self._reopened(db)
            jobs = len(self._jobs)  # before the writes, since a job sees all rows put before
            self._write(db)
            for _ in range(jobs):
                work, future = self._jobs.popleft()
                try:
                    future.set_result(work(db))
                except Exception as error:  # noqa: BLE001 - raised to the caller
                    future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - the thread must survive
            self._warn(f"{self._file.name}: {error!r}")
            time.sleep(_RETRY_S / 5)
        return db

    def _reject_jobs(self) -> None:
        while self._jobs:
            with suppress(IndexError):  # another thread took it
                self._jobs.popleft()[1].set_exception(StoreError("the store is closed"))

    def _write(self, db: sqlite3.Connection) -> None:
        count = len(self._writes)
        if count:  # small batches delay others least, large ones take the least CPU in all
            self._batch_rows = _MANY if count >= self._batch_rows + _LATE else _FEW
        batch = [*self._failed, *(self._writes.popleft() for _ in range(count))]
        if not batch:
            return
        try:
            _execute_all(db, batch)
        except sqlite3.OperationalError as error:  # locked, full or read-only: it concerns all rows
            has_room = _is_locked(error) and len(batch) <= self._limit
            kept = batch if has_room else [write for write in batch if write[2]]
            self._failed = deque(kept)
            self._note_dropped(len(batch) - len(kept), error)
        except Exception as error:  # noqa: BLE001 - one row is invalid
            self._failed.clear()
            self._write_one_by_one(db, batch, error)
        else:
            self._failed.clear()

    def _write_one_by_one(
        self, db: sqlite3.Connection, batch: list[_Write], first: Exception
    ) -> None:
        invalid = 0
        for write in batch:
            try:
                _execute_all(db, [write])
            except sqlite3.OperationalError:
                if write[2]:
                    self._failed.append(write)
                invalid += not write[2]
            except Exception:  # noqa: BLE001 - as above
                invalid += 1
        self._note_dropped(invalid, first)

    def _note_dropped(self, count: int, error: Exception) -> None:
        self.dropped += count
        waiting = len(self._failed)
        self._warn(f"{self._file.name}: {count} rows dropped, {waiting} wait: {error}")

    def _warn(self, text: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_PERIOD_S:
            self._warned_at = now
            log.warning("%s", text)

    # ---- opening, and a file that was deleted
    def _reopened(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Open a new file in place of one that was deleted or replaced while it was in use."""
        assert self.path is not None, "only files are deleted"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._file.connect()
        except (OSError, sqlite3.Error, StoreError) as error:
            self.problem = f"{self.path} was deleted and cannot be created again: {error}"
            self._warn(self.problem)
            return db
        self.problem = f"{self.path} was deleted while it was in use; it was created again, empty"
        log.warning("%s", self.problem)
        with suppress(sqlite3.Error):
            db.close()
        self.on_new_file()
        return new

    def _open_file(self) -> sqlite3.Connection | None:
        try:
            return self._file.connect()
        except sqlite3.DatabaseError as error:
            is_damaged = not isinstance(error, sqlite3.OperationalError)
            if not is_damaged or self.path is None:
                self.problem = f"{self._file.name} cannot be used: {error}"
                log.warning("%s; nothing is stored", self.problem)
                return None
            return self._replace_damaged(error)
        except (OSError, StoreError) as error:
            self.problem = str(error)
            log.warning("%s; nothing is stored", error)
            return None

    def _replace_damaged(self, error: sqlite3.DatabaseError) -> sqlite3.Connection | None:
        assert self.path is not None, "only files are damaged"
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        try:
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            db = self._file.connect()
        except (OSError, sqlite3.Error, StoreError) as failure:
            self.problem = f"{self._file.name} is damaged and cannot be replaced: {failure}"
            log.warning("%s; nothing is stored", self.problem)
            return None
        self.problem = f"{self.path} was damaged ({error}); it was moved to {aside.name}"
        log.warning("%s", self.problem)
        return db


def _execute_all(db: sqlite3.Connection, batch: Sequence[_Write]) -> None:
    with db:
        for sql, writes in groupby(batch, itemgetter(0)):
            _execute(db, sql, [write[1] for write in writes])


def _is_locked(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return (code & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _execute(db: sqlite3.Connection, sql: str, rows: list[Sequence[Any]]) -> None:
    """Execute *sql* for each of *rows*, inserting many rows with one statement.

    SQLite releases the GIL for each statement, and to get it back from a busy event loop costs both
    threads more than the row.
    """
    done = 0
    for wide, many in _multi_row_inserts(sql):
        while len(rows) - done >= many:
            db.execute(wide, tuple(chain.from_iterable(rows[done : done + many])))
            done += many
    for parameters in rows[done:]:
        db.execute(sql, parameters)


@cache
def _multi_row_inserts(sql: str) -> list[tuple[str, int]]:
    """Return *sql* for many rows and their number, largest first; empty if it is no INSERT."""
    head, values, marks = sql.rpartition(" VALUES ")
    if not values or not marks.endswith(")"):
        return []
    most = _VARIABLES // max(marks.count("?"), 1)
    sizes = [most >> halvings for halvings in range(4)]
    return [(f"{head} VALUES {', '.join([marks] * size)}", size) for size in sizes if size > 1]
