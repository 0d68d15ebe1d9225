"""The store: nothing waits for it, and no file can keep the program from running."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from tools.net import LONG_S, wait_until
from tools.rows import row

from swapchart.adapters.store import Database, StoreError

MIGRATIONS = ("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);",)
INSERT = "INSERT INTO row (text) VALUES (?)"

WRITER = """
import sys, time
from pathlib import Path
from swapchart.adapters.store import Database
migrations = ("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT);",)
db = Database(Path(sys.argv[1]), migrations, flush_s=0.05)
db.open()
number = 0
while True:
    for _ in range(50):
        number += 1
        db.put("INSERT INTO row (text) VALUES (?)", (str(number),))
    print(number, flush=True)
    time.sleep(0.005)
"""


def opened(path: Path | None) -> Database:
    database = Database(path, MIGRATIONS, flush_s=0.05)
    database.open()
    return database


def rows(database: Database) -> list[tuple[object, ...]]:
    return anyio.run(database.query, "SELECT text FROM row ORDER BY id")


def test_vital_row_is_written_at_once(tmp_path: Path) -> None:
    """And the rows before it with it; a kill in the meantime would lose them."""
    path = tmp_path / "a.db"
    database = Database(path, MIGRATIONS, flush_s=600.0)
    database.open()
    database.put(INSERT, ("first",))
    database.put(INSERT, ("vital",), is_vital=True)
    with closing(sqlite3.connect(path)) as other:
        select = "SELECT text FROM row ORDER BY id"
        wait_until(lambda: other.execute(select).fetchall() == [("first",), ("vital",)], LONG_S)
    database.close()


@pytest.mark.parametrize("where", ["file", "memory"])
def test_query_sees_earlier_rows(tmp_path: Path, where: str) -> None:
    """Reading one's own writes needs no waiting."""
    database = opened(tmp_path / "a.db" if where == "file" else None)
    for number in range(1000):
        database.put(INSERT, (str(number),))

    assert rows(database) == [(str(number),) for number in range(1000)]
    database.close()


@pytest.mark.parametrize("count", [1, 899, 900, 901, 2000])
def test_writes_of_many_rows_keep_their_order(count: int) -> None:
    """Inserts are put together, and nothing is lost, doubled or put before what came between."""
    database = opened(None)
    for number in range(count):
        database.put(INSERT, (str(number),))
    database.put("UPDATE row SET text = text || ?", ("!",))
    database.put(INSERT, ("last",))

    assert rows(database) == [*((f"{number}!",) for number in range(count)), ("last",)]
    database.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_writer_thread_has_a_lower_priority() -> None:
    """The store's thread has a priority of its own; that of the process stays."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    database = opened(None)
    theirs = database.submit(lambda _: os.getpriority(os.PRIO_PROCESS, 0)).result()
    database.close()

    assert theirs == min(before + 5, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_close_writes_queued_rows(tmp_path: Path) -> None:
    """A clean end loses nothing, and the file is readable for its owner only."""
    path = tmp_path / "a.db"
    database = opened(path)
    database.put(INSERT, ("last",))
    database.close()

    again = opened(path)
    assert rows(again) == [("last",)]
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(os.urandom(8192)),
    "text": lambda path: path.write_bytes(b"this is not a database at all, but a text" * 100),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a schema that is no text": lambda path: path.write_bytes(
        path.read_bytes().replace(b"CREATE TABLE row", b"CREATE \xe9\xa4BLE row")
    ),
    "a wrong page": lambda path: _overwrite(path, 4096, b"\xff" * 4096),
}


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("kind", DAMAGE)
@row("E01")
def test_damaged_file_is_moved_aside(tmp_path: Path, kind: str) -> None:
    """The program runs with a new file, says so, and keeps the damaged one."""
    path = tmp_path / "a.db"
    first = opened(path)
    for number in range(2000):
        first.put(INSERT, (f"{number}" * 20,))
    first.close()
    DAMAGE[kind](path)

    database = opened(path)
    database.put(INSERT, ("new",))
    assert ("new",) in rows(database)
    assert database.problem
    assert list(tmp_path.glob("a.db.corrupt-*"))
    database.close()


@pytest.mark.slow
@row("E02")
def test_kill_during_writes_does_not_corrupt(tmp_path: Path) -> None:
    """After 50 kills the file is sound each time, and at most the last second is missing."""
    path = tmp_path / "a.db"
    for _ in range(50):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=tmp_path
        ) as child:
            assert child.stdout is not None
            before = _count(path)
            for _ in range(4):
                child.stdout.readline()
            deadline = time.monotonic() + 10
            while _count(path) == before and time.monotonic() < deadline:
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)

        with closing(sqlite3.connect(path)) as db, db:
            assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        db.close()
        assert _count(path) > before


def _count(path: Path) -> int:
    if not path.exists():
        return 0
    db = sqlite3.connect(path, timeout=5)
    try:
        return int(db.execute("SELECT COUNT(*) FROM row").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


@row("E03")
def test_store_that_cannot_be_opened_counts_rows_as_dropped(tmp_path: Path) -> None:
    """A store that cannot be opened is off: nothing raises, rows are counted as dropped."""
    database = opened(tmp_path / "missing" / "a.db")
    database.put(INSERT, ("x",))

    assert database.dropped == 1
    assert "missing" in database.problem
    with pytest.raises(StoreError):
        rows(database)


@row("E04")
def test_locked_file_loses_no_rows_and_no_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While another process holds the file, `put` returns at once; rows wait for its end."""
    path = tmp_path / "a.db"
    database = opened(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    database.put(INSERT, ("x",))
    taken = time.monotonic() - began
    wait_until(lambda: "locked" in caplog.text)
    holder.execute("ROLLBACK")
    holder.close()
    database.put(INSERT, ("y",))

    assert taken < 1.0  # the file stays locked for longer
    wait_until(lambda: rows(database) == [("x",), ("y",)])
    assert database.dropped == 0
    database.close()


@row("E05")
def test_full_queue_drops_and_counts(tmp_path: Path) -> None:
    """A disk that is slow for long costs rows, not memory."""
    database = Database(tmp_path / "a.db", MIGRATIONS, limit=10)
    database.open()
    blocked = database.submit(lambda _: time.sleep(0.3))
    for number in range(100):
        database.put(INSERT, (str(number),))
    blocked.result()

    assert database.dropped >= 80
    assert len(rows(database)) == 100 - database.dropped
    database.close()


@row("E07")
def test_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A file of a newer program is neither read nor moved; the store is off."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    database = opened(path)

    assert "newer" in database.problem
    assert not database.is_on
    assert list(tmp_path.glob("*corrupt*")) == []


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    """An old file moves to the newest schema with its rows."""
    path = tmp_path / "a.db"
    old = opened(path)
    old.put(INSERT, ("kept",))
    old.close()
    database = Database(path, (*MIGRATIONS, "ALTER TABLE row ADD COLUMN extra TEXT;"))
    database.open()

    assert anyio.run(database.query, "SELECT text, extra FROM row") == [("kept", None)]
    database.close()


# ---- a database that is locked
def lock(path: Path) -> sqlite3.Connection:
    """Take the write lock, as a backup or a person with a shell does."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_put_database_is_locked_rows_wait_and_are_written_in_order(tmp_path: Path) -> None:
    """A lock of another process delays rows; none is lost, vital or not."""
    path = tmp_path / "a.db"
    database = opened(path)
    other = lock(path)
    for number in range(20):
        database.put(INSERT, (str(number),), is_vital=number % 2 == 0)
    time.sleep(0.6)
    database.put(INSERT, ("last",))
    other.execute("COMMIT")
    other.close()

    found = wait_until(lambda: len(rows(database)) == 21 and rows(database))
    assert found == [*((str(number),) for number in range(20)), ("last",)]
    assert database.dropped == 0
    database.close()


def test_put_database_is_locked_for_long_vital_rows_have_no_limit(tmp_path: Path) -> None:
    """Beyond the limit other rows are dropped and counted; vital ones never."""
    path = tmp_path / "a.db"
    database = Database(path, MIGRATIONS, flush_s=0.05, limit=50)
    database.open()
    other = lock(path)
    for number in range(200):
        database.put(INSERT, (f"vital {number}",), is_vital=True)
        database.put(INSERT, (f"other {number}",))
        time.sleep(0.005)
    other.execute("COMMIT")
    other.close()

    def vital() -> list[object]:
        return [text for (text,) in rows(database) if str(text).startswith("vital")]

    wait_until(lambda: len(vital()) == 200)
    assert vital() == [f"vital {number}" for number in range(200)]
    assert database.dropped > 0
    database.close()


def test_close_database_is_locked_vital_rows_are_tried_again(tmp_path: Path) -> None:
    """At the end, too, a lock that goes away soon loses nothing."""
    path = tmp_path / "a.db"
    database, other = opened(path), opened(path)

    def hold(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(0.7)
        db.execute("COMMIT")

    held = other.submit(hold)
    time.sleep(0.2)
    database.put(INSERT, ("vital",), is_vital=True)
    database.close()
    held.result()
    other.close()

    again = opened(path)
    assert rows(again) == [("vital",)]
    again.close()


@pytest.mark.parametrize("wrong", [10**400, 2**63, object(), "\ud800"])
def test_put_one_row_cannot_be_written_others_are(tmp_path: Path, wrong: object) -> None:
    """A row that SQLite refuses is dropped and counted; neither its batch nor the thread ends."""
    database = opened(tmp_path / "a.db")
    database.put(INSERT, ("before",))
    database.put(INSERT, (wrong,), is_vital=True)
    database.put(INSERT, ("after",))

    assert rows(database) == [("before",), ("after",)]
    assert database.dropped == 1
    database.close()


# ---- a file that is deleted, is too new, or is not ours alone
def test_database_file_is_deleted_a_new_one_is_begun(tmp_path: Path) -> None:
    """It is noticed and said; rows of later are in a file that can be found."""
    path = tmp_path / "state" / "a.db"
    path.parent.mkdir()
    database = opened(path)
    database.put(INSERT, ("before",))
    assert rows(database) == [("before",)]
    database.on_new_file = lambda: database.put(INSERT, ("again",), is_vital=True)
    shutil.rmtree(path.parent)
    assert database.is_file_gone()
    database.check_file()

    wait_until(lambda: ("again",) in rows(database))
    database.put(INSERT, ("after",))
    assert rows(database) == [("again",), ("after",)]
    assert "deleted" in database.problem
    assert path.stat().st_mode & 0o777 == 0o600
    database.close()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT text FROM row").fetchall() == [("again",), ("after",)]
    other.close()


def test_open_file_is_too_new_is_left_untouched(tmp_path: Path) -> None:
    """Not a byte of it, nor of its folder, changes; the reason is one sentence."""
    path = tmp_path / "a.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE later (x)")
    other.execute("PRAGMA user_version=99")
    other.commit()
    other.close()
    before = path.read_bytes(), path.stat().st_mtime_ns
    database = opened(path)

    assert not database.is_on
    assert "schema version 99" in database.problem
    assert "newer" in database.problem
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [child.name for child in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_open_modes_are_loose_are_tightened(tmp_path: Path, suffix: str) -> None:
    """What others could read is theirs no more, the write-ahead log included."""
    path = tmp_path / "a.db"
    first = opened(path)
    first.put(INSERT, ("kept",))
    assert rows(first) == [("kept",)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("a.db*"):  # as after a kill: with its log
        (copy / file.name).write_bytes(file.read_bytes())
        (copy / file.name).chmod(0o600)
    first.close()
    (copy / f"a.db{suffix}").chmod(0o666)
    again = opened(copy / "a.db")

    assert rows(again) == [("kept",)]
    assert {file.name: file.stat().st_mode & 0o777 for file in copy.iterdir()} == {
        "a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600
    }  # fmt: skip
    again.close()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_open_file_is_none_is_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    """Neither a link's target nor a pipe's reader gets what we write; the program runs on."""
    target = tmp_path / "target"
    target.write_text("precious")
    path = tmp_path / "a.db"
    odd = path.with_name(path.name + suffix)
    make = {"link": lambda: odd.symlink_to(target), "pipe": lambda: os.mkfifo(odd)}
    make.get(kind, odd.mkdir)()
    database = opened(path)

    assert not database.is_on
    assert odd.name in database.problem
    assert target.read_text() == "precious"


def test_open_without_a_thread_is_off_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of processes the program runs without a store."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    database = Database(tmp_path / "a.db", MIGRATIONS)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    database.open()
    database.put(INSERT, ("x",))

    assert "can't start new thread" in database.problem
    assert (database.is_on, database.dropped) == (False, 1)
    database.close()
