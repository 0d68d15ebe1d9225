"""One SQLite file and the one thread that writes it.

Rows are handed over without waiting and written in batches, so that the loss after a kill is at
most what came in the last *flush_s* seconds, and a slow disk delays nobody. A file that is
damaged is moved aside, one that is newer than we are is left alone; both ways the program runs.

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

from ...machine.errors import SwapchartError
from ..system import threads
from ..system.private_files import open_file, tighten_file

log = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
_Write: TypeAlias = tuple[str, Sequence[Any], bool]
_Job: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]

_VARIABLES = 900  # of one statement: 50 rows of activity; every SQLite bears 999
_FEW, _MANY = 25, 100  # rows that are written at once: a burst of 0.1 ms, or one that costs less
_LATE = 5  # so many more than were asked for: the processor is busy
_NICE = 5  # the thread runs when nobody else wants to, and still gets a fifth of a busy core
_HEAD_BYTES, _VERSION_AT = 100, 60  # of an SQLite file; its user_version
_AGAIN_S = 0.5  # after rows could not be written
_LAST_TRIES_S = 3.0  # at the end, for these
_QUIET_S = 60.0  # the same complaint at most so often


class StoreError(SwapchartError):
    """The store cannot answer; the text says why."""


class Database:
    """A database that is written off to the side.

    Args:
        path: The file; None keeps everything in memory.
        migrations: SQL scripts; number *i* takes the schema from version *i* to *i* + 1.
        flush_s: Longest time before a row is written; seconds > 0.
        limit: Rows that may wait to be written; more are dropped and counted.

    Attributes:
        dropped: Rows that were lost: no room, a full disk, a store that is off.
        problem: Why the store is off, or what happened to it at opening or later; empty if
            nothing did.
        is_on: Rows are being kept.
        on_new_file: Called in the store's thread when the file was deleted and made anew.
    """

    def __init__(
        self, path: Path | None, migrations: Sequence[str], *, flush_s: float = 0.25,
        limit: int = 10_000,
    ) -> None:  # fmt: skip
        self.path = path
        self.dropped = 0
        self.problem = ""
        self.is_on = False
        self._migrations = migrations
        self._flush_s, self._limit = flush_s, limit
        self.on_new_file: Callable[[], None] = lambda: None
        self._writes: deque[_Write] = deque()
        self._again: deque[_Write] = deque()  # could not be written yet
        self._burst = _FEW
        self._jobs: deque[_Job] = deque()
        self._inode: tuple[int, int] = (0, 0)
        self._wake = threading.Event()  # something waits
        self._urge = threading.Event()  # and somebody waits for it
        self._is_closing = False
        self._opened: Future[None] = Future()
        self._complained_at = -_QUIET_S
        self._worker = threading.Thread(target=self._run, name="swapchart-store", daemon=True)

    # ---- any thread
    def open(self) -> None:
        """Open, and move to the newest schema; never raises: see `problem`."""
        try:
            self._worker.start()
        except (RuntimeError, MemoryError) as error:  # the limit of processes, or of memory
            self.problem = f"{self._name()} cannot be used: {error}"
            log.warning("%s; nothing is stored", self.problem)
            return
        self._opened.result()

    def put(self, sql: str, parameters: Sequence[Any] = (), *, is_vital: bool = False) -> None:
        """Write one row soon; never waits.

        Args:
            sql: One statement.
            parameters: Its values.
            is_vital: Never drop it while the store is on: it is tried again, in order, for as
                long as the database is locked, the disk is full or cannot be written. Other rows
                are tried again while the database is locked and there is room for them.
        """
        if not self.is_on or (len(self._writes) >= self._limit and not is_vital):
            self.dropped += 1
            return
        self._writes.append((sql, parameters, is_vital))
        if not self._wake.is_set():
            self._wake.set()
        if len(self._writes) >= self._burst and not self._urge.is_set():
            self._urge.set()

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query; it sees everything that was put before.

        Raises:
            StoreError: The store is off or broken.
        """
        return await self.call(lambda db: db.execute(sql, parameters).fetchall())

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in the store's thread, after everything that was put before.

        Raises:
            StoreError: The store is off, or SQLite refused.
        """
        future = self.submit(work)
        if not future.done():
            await threads.settled(future)
        try:
            return future.result()
        except sqlite3.Error as error:
            raise StoreError(f"the store failed: {error}") from error

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """As `call`, for threads without an event loop."""
        future: Future[T] = Future()
        if not self.is_on:
            future.set_exception(StoreError(self.problem or "the store is closed"))
            return future

        self._jobs.append((work, future))
        self._urge.set()
        self._wake.set()
        if not self.is_on:  # it was closed just now: the thread may not look any more
            self._refuse_jobs()
        return future

    def look(self) -> None:
        """Notice soon if the file was deleted, also while nothing is written; never waits."""
        if self.is_on:
            self._urge.set()
            self._wake.set()

    def is_file_gone(self) -> bool:
        """Return True if the file was deleted, or replaced by another, while it was in use."""
        return self.is_on and self.path is not None and _inode(self.path) != self._inode

    def close(self) -> None:
        """Write what waits, and close; a no-op when it is closed."""
        if not self._worker.is_alive():
            return
        self._is_closing = True
        self._urge.set()
        self._wake.set()
        self._worker.join(timeout=5.0)

    # ---- the store's thread
    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process
            os.nice(_NICE)
        db = None
        try:
            db = self._open_file()
        finally:  # whatever comes out: the start of the program waits for it
            self.is_on = db is not None
            self._opened.set_result(None)
        if db is None:
            return
        try:
            while not self._is_closing:
                self._wake.wait()  # without a limit: an idle store costs nothing
                self._urge.wait(_AGAIN_S if self._again else self._flush_s)
                self._wake.clear()
                self._urge.clear()
                db = self._work(db)
                if self._again:
                    self._wake.set()
            self.is_on = False
            self._finish(self._work(db))
        finally:
            self.is_on = False
            self._refuse_jobs()

    def _finish(self, db: sqlite3.Connection) -> None:
        """Write the rows that could not be written, for a while, and close."""
        until = time.monotonic() + _LAST_TRIES_S
        while self._again and time.monotonic() < until:
            time.sleep(_AGAIN_S / 5)
            db = self._work(db)
        if self._again:
            self.dropped += len(self._again)
            log.error("%s: %d rows were never stored", self._name(), len(self._again))
        db.close()

    def _work(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Write and read what waits; returns the connection, another one if need be."""
        try:
            if self.is_file_gone():
                db = self._renewed(db)
            jobs = len(self._jobs)  # before the writes: a job sees all that was put before it
            self._write(db)
            for _ in range(jobs):
                work, future = self._jobs.popleft()
                try:
                    future.set_result(work(db))
                except Exception as error:  # noqa: BLE001 - it is the caller's to handle
                    future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - the thread goes on: others wait for it
            self._complain(f"{self._name()}: {error!r}")
            time.sleep(_AGAIN_S / 5)
        return db

    def _refuse_jobs(self) -> None:
        while self._jobs:
            with suppress(IndexError):  # another thread was faster
                self._jobs.popleft()[1].set_exception(StoreError("the store is closed"))

    def _write(self, db: sqlite3.Connection) -> None:
        count = len(self._writes)
        if count:  # small bursts delay nobody by much; without time left, what counts is the sum
            self._burst = _MANY if count >= self._burst + _LATE else _FEW
        batch = [*self._again, *(self._writes.popleft() for _ in range(count))]
        if not batch:
            return
        try:
            _execute_all(db, batch)
        except sqlite3.OperationalError as error:  # locked, full, read-only: not about one row
            is_room = _is_locked(error) and len(batch) <= self._limit
            again = batch if is_room else [write for write in batch if write[2]]
            self._again = deque(again)
            self._lost(len(batch) - len(again), error)
        except Exception as error:  # noqa: BLE001 - one row is wrong: the others are written
            self._again.clear()
            self._write_one_by_one(db, batch, error)
        else:
            self._again.clear()

    def _write_one_by_one(
        self, db: sqlite3.Connection, batch: list[_Write], first: Exception
    ) -> None:
        wrong = 0
        for write in batch:
            try:
                _execute_all(db, [write])
            except sqlite3.OperationalError:
                if write[2]:
                    self._again.append(write)
                wrong += not write[2]
            except Exception:  # noqa: BLE001 - as above
                wrong += 1
        self._lost(wrong, first)

    def _lost(self, count: int, error: Exception) -> None:
        self.dropped += count
        waiting = len(self._again)
        self._complain(f"{self._name()}: {count} rows dropped, {waiting} wait: {error}")

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _QUIET_S:
            self._complained_at = now
            log.warning("%s", text)

    # ---- a file that vanishes
    def _renewed(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Open a new file in place of one that was deleted or replaced under us."""
        assert self.path is not None, "only a file vanishes"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._connect()
        except (OSError, sqlite3.Error, StoreError) as error:
            self.problem = f"{self.path} was deleted, and cannot be made anew: {error}"
            self._complain(self.problem)
            return db
        self.problem = f"{self.path} was deleted while it was in use; a new one was begun"
        log.warning("%s", self.problem)
        with suppress(sqlite3.Error):
            db.close()
        self.on_new_file()
        return new

    def _name(self) -> str:
        return "the store" if self.path is None else str(self.path)

    def _open_file(self) -> sqlite3.Connection | None:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            is_damaged = not isinstance(error, sqlite3.OperationalError)
            if not is_damaged or self.path is None:
                self.problem = f"{self._name()} cannot be used: {error}"
                log.warning("%s; nothing is stored", self.problem)
                return None
            return self._start_anew(error)
        except (OSError, StoreError) as error:
            self.problem = str(error)
            log.warning("%s; nothing is stored", error)
            return None

    def _start_anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection | None:
        assert self.path is not None, "only files are damaged"
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        try:
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            db = self._connect()
        except (OSError, sqlite3.Error, StoreError) as again:
            self.problem = f"{self._name()} is damaged and cannot be replaced: {again}"
            log.warning("%s; nothing is stored", self.problem)
            return None
        self.problem = f"{self.path} was damaged ({error}); it was moved to {aside.name}"
        log.warning("%s", self.problem)
        return db

    def _connect(self) -> sqlite3.Connection:
        if self.path is not None:
            self._prepare(self.path)
        db = sqlite3.connect(self.path or ":memory:", timeout=0.1, isolation_level="DEFERRED")
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            found = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise sqlite3.DatabaseError(f"quick_check: {found[0]}")
            self._migrate(db)
            if self.path is not None:
                self._inode = _inode(self.path)
        except UnicodeDecodeError as error:  # SQLite complains in bytes of the damaged file
            db.close()
            raise sqlite3.DatabaseError(f"its schema is no text: {error.object!r}") from error
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, path: Path) -> None:
        """Make the file, or tighten what is there; one that is too new is not touched.

        Raises:
            StoreError: It was written by a newer program.
            OSError: It cannot be made, or somebody else decides what is in it.
        """
        with suppress(OSError):  # what is odd is refused below
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                head = os.read(fd, _HEAD_BYTES)
            finally:
                os.close(fd)
            # Constant in every SQLite file: else it is damaged, and its version means nothing.
            if head[:16] == b"SQLite format 3\0" and head[21:24] == b"@  ":
                self._check_version(int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big"))
        os.close(open_file(path, os.O_RDWR | os.O_CREAT))
        for suffix in ("-wal", "-shm", "-journal"):
            tighten_file(path.with_name(path.name + suffix))

    def _check_version(self, version: int) -> None:
        if version > len(self._migrations):
            raise StoreError(
                f"{self._name()} has schema version {version}, and this program knows "
                f"{len(self._migrations)}: it was written by a newer one"
            )

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        self._check_version(version)  # it may stand in the write-ahead log only
        for number in range(version, len(self._migrations)):
            script = self._migrations[number]
            db.executescript(f"BEGIN;{script};PRAGMA user_version={number + 1};COMMIT;")


def _execute_all(db: sqlite3.Connection, batch: Sequence[_Write]) -> None:
    with db:
        for sql, writes in groupby(batch, itemgetter(0)):
            _execute(db, sql, [write[1] for write in writes])


def _is_locked(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return (code & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _inode(path: Path) -> tuple[int, int]:
    """Return what tells the file at *path* from others; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _execute(db: sqlite3.Connection, sql: str, rows: list[Sequence[Any]]) -> None:
    """Run *sql* for each of *rows*; inserts many at a time.

    SQLite lets go of the interpreter's lock for each statement, and taking it back from a busy
    event loop costs both more than the row.
    """
    done = 0
    for wide, many in _widened(sql):
        while len(rows) - done >= many:
            db.execute(wide, tuple(chain.from_iterable(rows[done : done + many])))
            done += many
    for parameters in rows[done:]:
        db.execute(sql, parameters)


@cache
def _widened(sql: str) -> list[tuple[str, int]]:
    """Return *sql* for many rows at a time, and how many; empty if it is no insert of values."""
    head, values, marks = sql.rpartition(" VALUES ")
    if not values or not marks.endswith(")"):
        return []
    most = _VARIABLES // max(marks.count("?"), 1)
    sizes = [most >> halvings for halvings in range(4)]
    return [(f"{head} VALUES {', '.join([marks] * size)}", size) for size in sizes if size > 1]
