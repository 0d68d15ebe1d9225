"""SQLite file of a store: created privately, checked, and migrated to the newest schema."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from ...machine.errors import SwapchartError
from ..system.private_files import open_file, restrict_file

#: A script, or a function that changes the schema within a transaction.
Migration: TypeAlias = str | Callable[[sqlite3.Connection], None]

_HEADER_BYTES, _VERSION_AT = 100, 60  # size of an SQLite header; offset of its user_version


class StoreError(SwapchartError):
    """The store is off or failed; the text says why."""


class DatabaseFile:
    """SQLite file of a store, or a database in memory.

    Args:
        path: Path of the file; None keeps everything in memory.
        migrations: Number *i* takes the schema from version *i* to *i* + 1.

    Attributes:
        name: Path of the file for messages.
    """

    def __init__(self, path: Path | None, migrations: Sequence[Migration]) -> None:
        self.name = "the store" if path is None else str(path)
        self._path, self._migrations = path, migrations
        self._inode: tuple[int, int] = (0, 0)

    def is_gone(self) -> bool:
        """Return True if the file was deleted or replaced since `connect`."""
        return self._path is not None and _inode(self._path) != self._inode

    def connect(self) -> sqlite3.Connection:
        """Open the file, check it and migrate its schema.

        Raises:
            StoreError: It was written by a newer version of the program.
            sqlite3.DatabaseError: It is damaged, or locked.
            OSError: It cannot be created, or another user can write it.
        """
        if self._path is not None:
            self._prepare(self._path)
        db = sqlite3.connect(self._path or ":memory:", timeout=0.1, isolation_level="DEFERRED")
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            found = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise sqlite3.DatabaseError(f"quick_check: {found[0]}")
            self._migrate(db)
            if self._path is not None:
                self._inode = _inode(self._path)
        except UnicodeDecodeError as error:  # SQLite quotes bytes of the damaged file
            db.close()
            raise sqlite3.DatabaseError(f"its schema is not text: {error.object!r}") from error
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, path: Path) -> None:
        """Create the file, or restrict access to an existing one.

        A file of a newer version of the program is not touched.

        Raises:
            StoreError: It was written by a newer version of the program.
            OSError: It cannot be created, or another user can write it.
        """
        with suppress(OSError):  # `open_file` below reports what is wrong
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                head = os.read(fd, _HEADER_BYTES)
            finally:
                os.close(fd)
            # These bytes are constant; in a damaged file the version would mean nothing.
            if head[:16] == b"SQLite format 3\0" and head[21:24] == b"@  ":
                self._check_version(int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big"))
        os.close(open_file(path, os.O_RDWR | os.O_CREAT))
        for suffix in ("-wal", "-shm", "-journal"):
            restrict_file(path.with_name(path.name + suffix))

    def _check_version(self, version: int) -> None:
        if version > len(self._migrations):
            raise StoreError(
                f"{self.name} has schema version {version}, and this program knows "
                f"{len(self._migrations)}: it was written by a newer version"
            )

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        self._check_version(version)  # the newest version may be in the write-ahead log only
        for number in range(version, len(self._migrations)):
            migration = self._migrations[number]
            if isinstance(migration, str):
                db.executescript(f"BEGIN;{migration};PRAGMA user_version={number + 1};COMMIT;")
                continue
            db.execute("BEGIN IMMEDIATE")
            with db:
                migration(db)
                db.execute(f"PRAGMA user_version={number + 1}")


def _inode(path: Path) -> tuple[int, int]:
    """Return device and inode of the file at *path*; zeros if there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
