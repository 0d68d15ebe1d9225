"""Store of chart instances in SQLite: the last snapshot of each.

`InstanceStore` is the `Store` of a `Host`. When `save` returns, the operating system has the
snapshot: a process that is killed loses nothing. ``survives_power_loss=True`` waits for the disk at
each step. A lock file beside it keeps other processes out, since two hosts would run each instance
twice.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from ...machine import Snapshot, SnapshotError
from ..system.lock_file import LockedError, lock_file
from .database_file import DatabaseFile, StoreError

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE instance (
        name TEXT PRIMARY KEY, chart TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL,
        number INTEGER NOT NULL, taken_at REAL NOT NULL, snapshot TEXT NOT NULL
    );
    """,
)
_SAVE = (
    "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
    "chart=excluded.chart, version=excluded.version, digest=excluded.digest, "
    "number=excluded.number, taken_at=excluded.taken_at, snapshot=excluded.snapshot"
)


class InstanceStore:
    """Snapshots of instances in an SQLite file; a context manager.

    All methods belong to one thread, and wait for the file.

    Args:
        path: Path of the file; None keeps everything in memory.
        encode: Turns each payload into a value of JSON; None takes payloads as they are.
        decode: Undoes what *encode* did.
        survives_power_loss: Wait until the disk has each snapshot.

    Raises:
        StoreError: The file is damaged, in use by another process, or was written by a newer
            version of the program.
        OSError: It cannot be created, or another user can write it.

    Attributes:
        damaged: Id -> error of each row that the last `load` could not read. The rows are left as
            they are; `forget` removes one.
    """

    def __init__(
        self, path: Path | str | None, *, encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None, survives_power_loss: bool = False,
    ) -> None:  # fmt: skip
        self._encode, self._decode = encode, decode
        self.damaged: dict[str, SnapshotError] = {}
        self._file = DatabaseFile(None if path is None else Path(path), _MIGRATIONS)
        self._lock = -1 if path is None else _locked(Path(path))
        try:
            self._db = self._file.connect()
        except BaseException as error:
            self._unlock()
            if not isinstance(error, sqlite3.Error):
                raise
            raise StoreError(f"{self._file.name} cannot be used: {error}") from error
        if survives_power_loss:
            self._db.execute("PRAGMA synchronous=FULL")

    def __enter__(self) -> Self:
        """Return the store, which is open already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; the store is of no use afterward."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(self, snapshot: Snapshot) -> None:
        """Keep *snapshot* in place of an earlier one of that id.

        Raises:
            SnapshotError: A payload is no value of JSON, or *encode* failed.
            StoreError: The disk is full or fails, or the file or its lock file was removed.
        """
        raw = snapshot.to_json(self._encode)
        text = json.dumps(raw, ensure_ascii=False, allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            text = json.dumps(raw, allow_nan=False)
        row = (
            snapshot.id, snapshot.chart, snapshot.version, snapshot.digest, snapshot.number,
            snapshot.taken_at, text,
        )  # fmt: skip
        self._write(_SAVE, row)

    def forget(self, name: str) -> None:
        """Remove the snapshot of instance *name*; a no-op if there is none.

        Raises:
            StoreError: The disk fails.
        """
        self._write("DELETE FROM instance WHERE name = ?", (name,))

    def _write(self, sql: str, row: tuple[Any, ...]) -> None:
        self._check_files()
        try:
            with self._db:
                self._db.execute(sql, row)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"{self._file.name} was not written: {error}") from error

    def _check_files(self) -> None:
        """Check that what is written will be found, and that no other process writes too.

        Raises:
            StoreError: The file or its lock file was removed or replaced.
        """
        if self._file.is_gone():
            raise StoreError(f"{self._file.name} was not written: the file was removed")
        if self._lock >= 0 and os.fstat(self._lock).st_nlink == 0:
            why = "its lock file was removed, so another process may use it: open it again"
            raise StoreError(f"{self._file.name} was not written: {why}")

    def has(self, name: str) -> bool:
        """Return True if there is a row of instance *name*, damaged or not.

        Raises:
            StoreError: The file cannot be read.
        """
        return bool(self._read("SELECT 1 FROM instance WHERE name = ?", (name,)))

    def load(self) -> Iterator[Snapshot]:
        """Yield all snapshots, in the order in which their instances were first saved.

        A damaged row is logged and left out; see `damaged`.

        Raises:
            StoreError: The file cannot be read.
        """
        self.damaged = {}
        # As bytes: SQLite refuses all rows if one has a text that is not UTF-8.
        rows = self._read(
            "SELECT CAST(name AS BLOB), CAST(snapshot AS BLOB) FROM instance ORDER BY rowid"
        )
        for key, text in rows:
            name = (key or b"").decode("utf-8", "surrogateescape")
            try:
                yield self._snapshot(name, text)
            except SnapshotError as error:
                self.damaged[name] = error
                log.error("%s: instance %r is left out: %s", self._file.name, name, error)

    def _snapshot(self, name: str, text: bytes | None) -> Snapshot:
        """Return the snapshot in a row.

        Raises:
            SnapshotError: The row is damaged.
        """
        try:
            raw = json.loads((text or b"").decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise SnapshotError("snapshot", f"expected JSON: {error}") from error
        try:
            snapshot = Snapshot.from_json(raw, self._decode)
        except SnapshotError:
            raise
        except Exception as error:
            why = f"`decode` failed: {type(error).__name__}: {error}"
            raise SnapshotError("payload", why) from error
        if snapshot.id != name:
            raise SnapshotError("id", f"expected {name!r}, got {snapshot.id!r}")
        return snapshot

    def _read(self, sql: str, row: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, row).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"{self._file.name} cannot be read: {error}") from error


def _locked(path: Path) -> int:
    """Return the open lock file of the store at *path*.

    Raises:
        StoreError: Another process has the store.
    """
    try:
        return lock_file(path.with_name(f"{path.name}.lock"))
    except LockedError as error:
        who = f"process {error.holder}" if error.holder else "another process"
        why = f"{who} uses it: end that, or give each process a file of its own"
        raise StoreError(f"{path} cannot be used: {why}") from error
