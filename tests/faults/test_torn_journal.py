"""A journal that is cut off or garbage stops no start, and ends no innocent process."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from tools.rows import row

from swapchart.adapters.process.orphans import boot_id, find_orphans, kill_orphans, started_of
from swapchart.adapters.store import Database, StoreError
from swapchart.adapters.store.journal import MIGRATIONS, Journal, Launched

STEP_BYTES = 1499  # a prime: cuts fall everywhere in pages, cells and frames
FLIPS = 50


@contextmanager
def opened(path: Path, instance: str = "this-run") -> Iterator[Journal]:
    database = Database(path, MIGRATIONS)
    database.open()
    try:
        yield Journal(database, instance, boot=boot_id(), started_of=started_of)
    finally:
        database.close()


@pytest.fixture
def innocent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process without our mark, whose pid is in the journal with another start."""
    child = subprocess.Popen(["sleep", "100"], cwd=tmp_path, start_new_session=True, env={})
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def write(path: Path, pid: int) -> None:
    """Write a journal as a run that was killed leaves it: rows in the file and in the log."""
    rows = [("dead-run", f"m{number}", pid, number + 1, boot_id()) for number in range(40)]
    with opened(path) as journal:
        for row in rows[:20]:
            journal._db.put("INSERT INTO launched VALUES (?, ?, ?, ?, ?)", row)
    database = Database(path, MIGRATIONS)
    database.open()
    for row in rows[20:]:
        database.put("INSERT INTO launched VALUES (?, ?, ?, ?, ?)", row)
    anyio.run(database.query, "SELECT 1")  # all is written; the log is not folded in
    for name in ("", "-wal"):
        shutil.copy(f"{path}{name}", f"{path}.kept{name}")
    database.close()


def cuts(size: int) -> list[Callable[[bytes], bytes]]:
    def cut(end: int, data: bytes) -> bytes:
        return data[:end]

    return [partial(cut, end) for end in range(0, size, STEP_BYTES)]


def flips(size: int) -> list[Callable[[bytes], bytes]]:
    rng = random.Random(12)

    def flipped(at: int, bit: int, data: bytes) -> bytes:
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]

    places = [(rng.randrange(size), 1 << rng.randrange(8)) for _ in range(FLIPS)]
    return [partial(flipped, at, bit) for at, bit in places]


@pytest.mark.parametrize("which", ["", "-wal"])
@row("E12")
def test_journal_that_is_torn_prevents_no_start_and_ends_no_process(
    tmp_path: Path, innocent: subprocess.Popen[bytes], which: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off at hundreds of places, and with single bits turned: it opens, and works again."""
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / "journal.db"
    write(path, innocent.pid)
    kept = {name: Path(f"{path}.kept{name}").read_bytes() for name in ("", "-wal")}
    damages = cuts(len(kept[which])) + flips(len(kept[which]))
    whole = 0
    for number, damage in enumerate(damages):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in kept.items():
            data = damage(data) if name == which else data
            (folder / f"journal.db{name}").write_bytes(data)
        rows = read(folder / "journal.db")
        whole += len(rows) == 40
        assert innocent.pid not in {proc.pid for proc, _ in find_orphans(rows)}
        with opened(folder / "journal.db", "next-run") as journal:
            assert journal._db.is_on
            journal._note_launch("again", "next-run", os.getpid())
            again = anyio.run(journal._db.query, "SELECT pid FROM launched WHERE service='again'")
            assert again == [(os.getpid(),)]
        shutil.rmtree(folder)

    assert len(damages) > FLIPS + 5
    assert whole < len(damages)
    assert innocent.poll() is None


def read(path: Path) -> list[Launched]:
    """Read a journal as the next run does."""
    with opened(path) as journal:
        try:
            return anyio.run(journal.unended)
        except StoreError:
            return []


@row("E12")
def test_journal_with_garbage_rows_ends_no_foreign_process(
    innocent: subprocess.Popen[bytes],
) -> None:
    """Rows of any type and value: only the very process that was launched would be ended."""
    strange: list[object] = ["", "x", -1, 0, 1, 2**62, None, b"\0", 1.5, innocent.pid]
    rng = random.Random(5)
    rows = [Launched(*(rng.choice(strange) for _ in range(5))) for _ in range(300)]  # type: ignore[arg-type]

    assert anyio.run(kill_orphans, rows) == []
    assert innocent.poll() is None
