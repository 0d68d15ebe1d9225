"""State that an older commit wrote is opened with its rows; state that is too new is left alone.

``tests/fixtures/make_state.py`` made the files.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tools.llama_swap_store import write_llama_swap_store
from tools.swapchart_process import Serve, demo_model

from swapchart.adapters.kv.files import KvStoreError
from swapchart.adapters.kv.manifest import ModelStore

pytestmark = pytest.mark.slow

OLDER = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("state_*"))
DATABASES = ("activity.db", "journal.db")


@pytest.fixture(params=OLDER, ids=lambda path: path.name)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a commit has written."""
    copy: Path = tmp_path / request.param.name
    shutil.copytree(request.param, copy)
    return copy


def rows_of(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows that *query* finds in a database that is not open elsewhere."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        return db.execute(query).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    """Return name -> content of all files below *folder*."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def make_newer(path: Path) -> None:
    """Let a database say that a later program wrote it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def test_older_state_fixtures_exist() -> None:
    """Without the files the tests below would be none."""
    assert OLDER


def test_state_of_an_older_commit_is_opened_with_its_rows(serve: Serve, older: Path) -> None:
    """The requests and transitions of then are shown, and new ones follow them."""
    state = older / "state"
    requests = rows_of(state / "activity.db", "SELECT id, model, duration FROM activity")
    transitions = rows_of(
        state / "journal.db", "SELECT id, target FROM transition WHERE service = 'kept'"
    )
    options = ("--state-dir", str(state))
    proxy = serve({"kept": demo_model("kept"), "plain": demo_model("plain")}, options=options)
    shown = proxy.get("/api/metrics/activity?limit=999")["data"]
    assert proxy.chat("plain").status == 200
    now = proxy.get("/api/metrics/activity?limit=999")["data"]
    history = proxy.get("/api/models/kept/history?limit=500")["data"]

    assert len(requests) == 4
    assert [(row["id"], row["model"], row["duration_ms"]) for row in reversed(shown)] == requests
    assert [row["id"] for row in now] == [5, 4, 3, 2, 1]
    assert len(transitions) > 10
    told = {(row["id"], row["target"]) for row in history}
    assert told >= set(transitions)


def test_saved_slots_of_an_older_commit_are_read(older: Path) -> None:
    """The manifest makes sense, and the file is what it says."""
    store = ModelStore("kept", older / "slots")
    before = contents(older / "slots")
    store.open()

    (entry,) = store.manifest.entries
    assert entry.tokens > 100
    assert store.verify(entry) == ""
    assert store.manifest.facts[entry.fingerprint]["slots"] == "1"
    assert contents(older / "slots") == before


@pytest.mark.parametrize("name", DATABASES)
def test_database_that_is_too_new_is_refused_and_left_alone(
    serve: Serve, older: Path, name: str
) -> None:
    """The proxy says so and serves; not one byte of the file changes."""
    path = older / "state" / name
    make_newer(path)
    before = path.read_bytes()
    proxy = serve({"plain": demo_model("plain")}, options=("--state-dir", str(path.parent)))

    assert proxy.chat("plain").status == 200
    assert proxy.stop() == 0
    assert f"{path} has schema version 99" in proxy.output()
    assert "written by a newer version" in proxy.output()
    assert path.read_bytes() == before


def test_manifest_that_is_too_new_is_refused_and_left_alone(older: Path) -> None:
    """Its files are no waste: the newer program will want them again."""
    slots = older / "slots"
    (path,) = slots.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    before = contents(slots)

    with pytest.raises(KvStoreError, match=r"has version 99.*written by a newer one"):
        ModelStore("kept", slots).open()
    assert contents(slots) == before


def test_proxy_with_the_store_of_llama_swap_shows_its_requests(
    serve: Serve, tmp_path: Path
) -> None:
    """`store.path` of a configuration that llama-swap used goes on where that stopped."""
    foreign = write_llama_swap_store(tmp_path / "llama-swap.db", is_newer=True)
    config = {"models": {"m": demo_model("m")}, "store": {"path": str(foreign)}}
    proxy = serve(config=config)
    assert proxy.chat("m").status == 200
    shown = proxy.get("/api/metrics/activity")["data"]
    stats = proxy.get("/api/metrics/stats")

    assert [(row["id"], row["model"]) for row in shown] == [(10, "m"), (9, "r"), (7, "q")]
    assert shown[2]["timestamp"].startswith("2023-11-14T")
    assert stats["total_requests"] == 3
