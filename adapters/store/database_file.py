"""SQLite file of a store: created privately, checked, and migrated to the newest schema."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
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

        A file of a newer version of the program, or one that was cut, is not touched.

        Raises:
            StoreError: It was written by a newer version of the program.
            sqlite3.DatabaseError: Its end is missing.
            OSError: It cannot be created, or another user can write it.
        """
        with suppress(OSError):  # `open_file` below reports what is wrong
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                head, size = os.read(fd, _HEADER_BYTES), os.fstat(fd).st_size
            finally:
                os.close(fd)
            # These bytes are constant; in a damaged file the version would mean nothing.
            if head[:16] == b"SQLite format 3\0" and head[21:24] == b"@  ":
                self._check_version(int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big"))
                if any(map(_has_content, _logs(path))):
                    self._check_logged_version(path)
                else:
                    _check_size(head, size)
        os.close(open_file(path, os.O_RDWR | os.O_CREAT))
        for other in (path.with_name(f"{path.name}-shm"), *_logs(path)):
            restrict_file(other)

    def _check_logged_version(self, path: Path) -> None:
        """Check the version if the newest one is in the write-ahead log only.

        A connection that can write would move the log into the file.
        """
        with suppress(sqlite3.Error):  # `connect` reports what is wrong
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.1)
            with closing(db):
                version = int(db.execute("PRAGMA user_version").fetchone()[0])
                self._check_version(version)

    def _check_version(self, version: int) -> None:
        if version > len(self._migrations):
            raise StoreError(
                f"{self.name} has schema version {version}, and this program knows "
                f"{len(self._migrations)}: it was written by a newer version"
            )

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        self._check_version(version)
        for number in range(version, len(self._migrations)):
            migration = self._migrations[number]
            if isinstance(migration, str):
                db.executescript(f"BEGIN;{migration};PRAGMA user_version={number + 1};COMMIT;")
                continue
            db.execute("BEGIN IMMEDIATE")
            with db:
                migration(db)
                db.execute(f"PRAGMA user_version={number + 1}")


def _logs(path: Path) -> tuple[Path, Path]:
    """Return the files that may hold pages of the database at *path*."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-journal")


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _check_size(head: bytes, size: int) -> None:
    """Check that a file without a log has all of its pages; SQLite reads missing ones as zeros.

    Raises:
        sqlite3.DatabaseError: Its end is missing.
    """
    changes, page, pages, valid_for = (
        int.from_bytes(head[at : at + length], "big")
        for at, length in ((24, 4), (16, 2), (28, 4), (92, 4))
    )
    expected = pages * (page if page > 1 else 1 << 16)
    if changes == valid_for and size < expected:
        raise sqlite3.DatabaseError(f"malformed: expected {expected} bytes, found {size}")


def _inode(path: Path) -> tuple[int, int]:
    """Return device and inode of the file at *path*; zeros if there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
