"""Schema of the activity: files of llama-swap, of version 1, and new ones."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tools.llama_swap_store import write_llama_swap_store

from swapchart.adapters.store.activity import ActivityQuery, ActivityRow, ActivityStore
from swapchart.adapters.store.activity_schema import MIGRATIONS
from swapchart.adapters.store.database import Database


@pytest.fixture(params=[False, True], ids=["first schema", "newer schema"])
def foreign(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file as llama-swap leaves it, with two rows."""
    return write_llama_swap_store(tmp_path / "llama-swap.db", is_newer=request.param)


def own_of_llama_swap(path: Path) -> list[Any]:
    """Return the schema and the rows of all tables but ours."""
    with closing(sqlite3.connect(path)) as db:
        schema = db.execute(
            "SELECT * FROM sqlite_master WHERE name NOT LIKE 'swapchart%' ORDER BY name"
        ).fetchall()
        tables = [name for kind, name, *_ in schema if kind == "table"]
        rows = [db.execute(f"SELECT * FROM {name}").fetchall() for name in tables]
    return [schema, rows]


def stored(path: Path, *new: ActivityRow) -> tuple[ActivityRow, ...]:
    """Open the store at *path*, put rows with the next numbers, and return all, oldest first."""

    async def main() -> tuple[ActivityRow, ...]:
        database = Database(path, MIGRATIONS)
        database.open()
        try:
            store = ActivityStore(database)
            await store.open()
            for row in new:
                store.put(row._replace(id=store.next_id()))
            return (await store.page(ActivityQuery(order="asc"))).rows
        finally:
            database.close()

    return asyncio.run(main())


NEW = ActivityRow(
    id=0, time=1, model="n", req_path="/x", resp_content_type="", resp_status_code=200
)


def test_file_of_llama_swap_is_imported_once_and_left_as_it_is(foreign: Path) -> None:
    """Its rows come first, with their numbers; its own tables do not change."""
    before = own_of_llama_swap(foreign)
    rows = stored(foreign, NEW)

    assert rows == (
        ActivityRow(
            7, 1_700_000_000_000, "q", "/v1/chat/completions", "application/json", 200,
            cached=-1, prompt=11, generated=12, prompt_speed=13.5, gen_speed=-1.0, duration=1500,
        ),
        ActivityRow(
            9, 1_700_000_001_000, "r", "/v1/completions", "text/event-stream", 502,
            cached=3, prompt=1, generated=2, duration=20, error_msg="gone",
            metadata='{"selector":"s"}',
        ),
        NEW._replace(id=10),
    )  # fmt: skip
    assert [row.id for row in stored(foreign, NEW)] == [7, 9, 10, 11]
    assert own_of_llama_swap(foreign) == before


def test_file_of_version_1_keeps_its_rows(tmp_path: Path) -> None:
    """The table gets its new name, and nothing is copied."""
    path = tmp_path / "activity.db"
    columns = ", ".join(f"{name} NOT NULL" for name in ActivityRow._fields[1:-1])
    row = NEW._replace(id=5)[:-1]  # without the id of the request, which is newer
    marks = ", ".join("?" * len(row))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE activity (id INTEGER PRIMARY KEY, {columns})")
        db.execute(f"INSERT INTO activity VALUES ({marks})", row)
        db.execute("PRAGMA user_version = 1")

    assert [row.id for row in stored(path, NEW)] == [5, 6]
    with closing(sqlite3.connect(path)) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert names == [("swapchart_activity",), ("swapchart_wait",)]


def test_import_that_fails_changes_nothing(foreign: Path) -> None:
    """A migration is done as a whole or not at all; the store is off, and says why."""
    with closing(sqlite3.connect(foreign)) as db, db:
        db.execute("CREATE TABLE swapchart_activity_model (x)")  # where an index will be
    before = own_of_llama_swap(foreign)
    database = Database(foreign, MIGRATIONS)
    database.open()
    database.close()

    assert not database.is_on
    assert "swapchart_activity_model" in database.problem
    with closing(sqlite3.connect(foreign)) as db:
        assert (
            db.execute("SELECT 1 FROM sqlite_master WHERE name = 'swapchart_activity'").fetchall()
            == []
        )
    assert own_of_llama_swap(foreign) == before
