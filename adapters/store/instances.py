"""Store of chart instances in SQLite: the last snapshot of each.

`InstanceStore` is the `Store` of a `Host`. When `save` returns, the operating system has the
snapshot: a process that is killed loses nothing. ``survives_power_loss=True`` waits for the disk at
each step.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from ...machine import Snapshot, SnapshotError
from .database_file import DatabaseFile, StoreError

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
        StoreError: The file is damaged, locked, or was written by a newer version of the program.
        OSError: It cannot be created, or another user can write it.
    """

    def __init__(
        self, path: Path | str | None, *, encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None, survives_power_loss: bool = False,
    ) -> None:  # fmt: skip
        self._encode, self._decode = encode, decode
        self._file = DatabaseFile(None if path is None else Path(path), _MIGRATIONS)
        try:
            self._db = self._file.connect()
        except sqlite3.Error as error:
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

    def save(self, snapshot: Snapshot) -> None:
        """Keep *snapshot* in place of an earlier one of that id.

        Raises:
            SnapshotError: A payload is no value of JSON.
            StoreError: The disk is full or fails.
        """
        text = json.dumps(snapshot.to_json(self._encode), ensure_ascii=False, allow_nan=False)
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
        try:
            with self._db:
                self._db.execute(sql, row)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"{self._file.name} was not written: {error}") from error

    def load(self) -> Iterator[Snapshot]:
        """Yield all snapshots, in the order in which their instances were first saved.

        Raises:
            SnapshotError: A row is damaged; the error names the instance.
            StoreError: The file cannot be read.
        """
        try:
            rows = self._db.execute("SELECT name, snapshot FROM instance ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._file.name} cannot be read: {error}") from error
        for name, text in rows:
            try:
                yield Snapshot.from_json(json.loads(text), self._decode)
            except ValueError as error:
                raise SnapshotError(f"instance {name!r}", f"not JSON: {error}") from error
            except SnapshotError as error:
                raise SnapshotError(f"instance {name!r}: {error.where}", error.why) from error
