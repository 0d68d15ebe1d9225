"""Footprints on disk: written, replaced, forgotten, and dropped when they are old."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from swapchart.adapters.store import Database
from swapchart.adapters.store.footprints import FootprintStore
from swapchart.adapters.store.journal import MIGRATIONS, Journal
from swapchart.runtime.memory.footprints import Observation
from swapchart.runtime.memory.shortage import Shortage

T = TypeVar("T")
OLD_STATE = Path(__file__).parents[2] / "fixtures" / "state_7b44e5e" / "state"
DAY = 86400.0
ONE = Observation(
    model="m", key="k", run="i-1", pool="GPU0", at=1000 * DAY, ready=5, highest=7, asleep=2,
    method="delta", processes=2, is_alone=False, free_before=9, estimated=6,
)  # fmt: skip


def stored(
    path: Path | None, work: Callable[[FootprintStore], Awaitable[T]], now: float = ONE.at
) -> T:
    """Return what *work* returns with the store in the database at *path*."""

    async def main() -> T:
        database = Database(path, MIGRATIONS, flush_s=0.01)
        database.open()
        try:
            return await work(FootprintStore(database, lambda: now))
        finally:
            database.close()

    return anyio.run(main)


def write(path: Path | None, *observations: Observation) -> list[Observation]:
    """Write *observations* and return those that are kept."""

    async def work(store: FootprintStore) -> list[Observation]:
        for observation in observations:
            store.put(observation)
        return await store.load()

    return stored(path, work)


def load(path: Path, now: float = ONE.at) -> list[Observation]:
    return stored(path, lambda store: store.load(), now)


@pytest.mark.parametrize("is_file", [True, False])
def test_footprint_store_returns_what_was_written(tmp_path: Path, is_file: bool) -> None:
    path = tmp_path / "journal.db" if is_file else None
    grown = replace(ONE, highest=8)
    assert write(path, ONE, replace(ONE, pool="RAM"), grown) == [replace(ONE, pool="RAM"), grown]


def test_footprint_store_keeps_the_last_five_runs_of_a_launch(tmp_path: Path) -> None:
    runs = [replace(ONE, run=f"i-{number}", at=ONE.at + number) for number in range(7)]
    other = replace(ONE, key="k2")
    path = tmp_path / "journal.db"
    write(path, other, *runs)
    assert load(path) == [other, *runs[2:]]


def test_footprint_store_drops_launches_that_were_unused_for_90_days(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, ONE, replace(ONE, key="k2", at=ONE.at + 2 * DAY))
    assert len(load(path, ONE.at + 90 * DAY)) == 2
    assert [each.key for each in load(path, ONE.at + 91 * DAY)] == ["k2"]
    assert [each.key for each in load(path)] == ["k2"]


def test_footprint_store_forgets_one_model(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, ONE, replace(ONE, key="k2"), replace(ONE, model="n", key="k3"))

    async def work(store: FootprintStore) -> None:
        store.forget("m")

    stored(path, work)
    assert [each.model for each in load(path)] == ["n"]


def test_footprint_store_writes_a_deleted_file_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def work(store: FootprintStore) -> list[Observation]:
        store.put(ONE)
        await store.load()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        store._db.check_file()
        return await store.load()

    assert stored(path, work) == [ONE]
    assert load(path) == [ONE]


def test_footprint_store_opens_the_state_of_an_older_version(tmp_path: Path) -> None:
    """The journal of a version without footprints gets the table, and keeps its transitions."""
    path = tmp_path / "journal.db"
    shutil.copy(OLD_STATE / "journal.db", path)
    assert load(path) == []
    assert write(path, ONE) == [ONE]

    async def history() -> int:
        database = Database(path, MIGRATIONS)
        database.open()
        try:
            journal = Journal(database, "i", boot="b", started_of=lambda pid: None)
            return len(await journal.history("plain"))
        finally:
            database.close()

    assert anyio.run(history) > 0


SHORT = Shortage(model="m", key="k", pool="GPU0", at=1000 * DAY, claim=5, amount=7)


def shortages(path: Path | None, *given: Shortage, now: float = ONE.at) -> list[Shortage]:
    """Write *given* and return the shortages that are kept."""

    async def work(store: FootprintStore) -> list[Shortage]:
        for shortage in given:
            store.put_shortage(shortage)
        return await store.load_shortages()

    return stored(path, work, now)


def test_footprint_store_keeps_shortages_until_ten_good_runs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    other = replace(SHORT, pool="RAM", good_runs=9)
    assert shortages(path, SHORT, other, replace(SHORT, key="")) == [SHORT, other]
    assert shortages(path, replace(other, good_runs=10)) == [SHORT]
    assert shortages(path, now=ONE.at + 91 * DAY) == []


def test_footprint_store_forgets_the_shortages_of_a_model(tmp_path: Path) -> None:
    async def work(store: FootprintStore) -> list[Shortage]:
        store.put_shortage(SHORT)
        store.put_shortage(replace(SHORT, model="other"))
        store.forget("m")
        return await store.load_shortages()

    assert stored(tmp_path / "journal.db", work) == [replace(SHORT, model="other")]
