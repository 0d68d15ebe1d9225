"""Files of instances that are damaged, in use, newer, locked or on a full disk."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from swapchart.adapters.store import InstanceStore, StoreError
from swapchart.machine import Machine, Snapshot, SnapshotError, StepError, read
from swapchart.runtime import Actions, Host, HostStateError

from .test_instances import COUNTER

CHART = Machine(read(COUNTER))
ACTIONS = Actions(timers={"limit": 3600})
NAMES = [f"Counter-{number}" for number in range(1, 6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a store with five instances, one step each."""
    made = tmp_path / "instances.db"

    async def fill() -> None:
        with InstanceStore(made) as store:
            async with Host(store=store) as host:
                for _ in NAMES:
                    host.start(CHART, actions=ACTIONS, payload="x" * 3000).post("tick")

    anyio.run(fill)
    return made


def change(path: Path, sql: str, *values: Any) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(sql, values)
    db.close()


def rows(path: Path) -> list[Any]:
    """Return all rows as bytes."""
    db = sqlite3.connect(path)
    found = db.execute(
        "SELECT CAST(name AS BLOB), CAST(snapshot AS BLOB) FROM instance ORDER BY rowid"
    ).fetchall()
    db.close()
    return found


# ---- damaged rows
def whole() -> dict[str, Any]:
    """Return a snapshot that fits."""
    return Snapshot(
        id=NAMES[2], chart="Counter", digest=CHART.digest, taken_at=0.0, configuration=("on",),
        data={"n": 1},
    ).to_json()  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "expected JSON"),
        ("", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("9" * 5000, "expected JSON"),
        ("[]", "expected a mapping"),
        (json.dumps({**whole(), "format": "swapchart.snapshot/v2"}), "got 'swapchart.snapshot/v2'"),
        (json.dumps({**whole(), "id": "other"}), "id: expected 'Counter-3', got 'other'"),
        (json.dumps({**whole(), "timers": {"limit": 10**400}}), "timers.limit: expected seconds"),
        (json.dumps({**whole(), "payload": 5}), "payload: `decode` failed: TypeError"),
    ],
)
def test_damaged_row_is_reported_and_the_others_are_resumed(
    path: Path, text: str | bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The row stays as it is, and no new instance takes its id."""
    sql = "UPDATE instance SET snapshot = CAST(? AS TEXT) WHERE name = ?"
    change(path, sql, text, NAMES[2])
    before = rows(path)[2]

    async def main() -> None:
        with InstanceStore(path, decode=lambda raw: raw + "!") as store:
            async with Host(store=store) as host:
                for snapshot in store.load():
                    host.resume(CHART, snapshot, actions=ACTIONS)
                others = [name for name in NAMES if name != NAMES[2]]
                assert [one.id for one in host] == others
                assert list(store.damaged) == [NAMES[2]]
                assert why in str(store.damaged[NAMES[2]])
                assert isinstance(store.damaged[NAMES[2]], SnapshotError)
                for one in host:
                    one.post("tick")
                with pytest.raises(HostStateError, match="has an instance 'Counter-3' that was"):
                    host.start(CHART, id=NAMES[2], actions=ACTIONS)
                assert host.start(CHART, actions=ACTIONS).id == "Counter-6"

    anyio.run(main)
    assert rows(path)[2] == before
    assert NAMES[2] in caplog.text

    with InstanceStore(path) as store:
        store.forget(NAMES[2])
        assert len(list(store.load())) == 5
        assert store.damaged == {}


def test_damaged_name_is_reported(path: Path) -> None:
    """A name that is no text, or nothing at all."""
    change(path, "UPDATE instance SET name = CAST(x'FF' AS TEXT) WHERE name = ?", NAMES[0])
    change(path, "UPDATE instance SET name = NULL WHERE name = ?", NAMES[1])
    with InstanceStore(path) as store:
        assert [snapshot.id for snapshot in store.load()] == NAMES[2:]
        assert list(store.damaged) == ["\udcff", ""]


def test_row_that_is_not_resumed_is_not_overwritten(path: Path) -> None:
    """Neither a made id nor a given one takes the place of a stored instance."""
    before = rows(path)

    async def main() -> None:
        with InstanceStore(path) as store:
            async with Host(store=store) as host:
                assert host.start(CHART, actions=ACTIONS).id == "Counter-6"
                with pytest.raises(HostStateError, match="'Counter-2' that was not resumed"):
                    host.start(CHART, id="Counter-2", actions=ACTIONS)
                assert "Counter-2" not in host
                host.remove("Counter-6")
                store.forget("Counter-2")
                host.start(CHART, id="Counter-2", actions=ACTIONS)
                host.remove("Counter-2")

    anyio.run(main)
    assert rows(path) == [row for row in before if row[0] != b"Counter-2"]


# ---- whole files
def as_left_by_a_kill(path: Path) -> Path:
    """Return a copy of *path* whose last steps are in the write-ahead log only."""
    with InstanceStore(path) as store:
        for number, snapshot in enumerate(list(store.load())):
            store.save(snapshot)
            assert number < 5
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def content(path: Path) -> dict[str, bytes]:
    return {
        suffix: Path(f"{path}{suffix}").read_bytes()
        for suffix in ("", "-wal")
        if Path(f"{path}{suffix}").exists()
    }


@pytest.mark.parametrize("share", range(1, 20))
def test_file_that_is_cut_is_refused_and_left_as_it_is(path: Path, share: int) -> None:
    """The sentence names the file; nothing is written, so that the rest can be rescued."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size * share // 20)
    before = content(path)
    with pytest.raises(StoreError, match=r"instances\.db cannot be used: .*(malformed|not a data)"):
        InstanceStore(path)
    assert content(path) == before


@pytest.mark.parametrize("where", ["header", "log"])
def test_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path, where: str) -> None:
    """Also if the version is still in the write-ahead log."""
    if where == "header":
        change(path, "PRAGMA user_version = 99")
    else:
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        db.close()
        path = copy
        assert Path(f"{path}-wal").stat().st_size > 0
    before = content(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"schema version 99, .* written by a newer version"):
            InstanceStore(path)
        assert content(path) == before


def test_steps_in_the_log_of_a_killed_process_are_loaded(path: Path) -> None:
    with InstanceStore(as_left_by_a_kill(path)) as store:
        assert [snapshot.id for snapshot in store.load()] == NAMES


# ---- a second process
HOLDER = """
import sys, time
from pathlib import Path
from swapchart.adapters.store import InstanceStore
store = InstanceStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_store_that_another_process_has_is_refused(path: Path) -> None:
    """The sentence names the process; when it is killed, the store opens."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        for _ in range(2):
            with pytest.raises(StoreError, match=f"process {child.pid} uses it: end that, or"):
                InstanceStore(path)
    finally:
        child.kill()
        child.communicate()
    with InstanceStore(path) as store:
        assert len(list(store.load())) == 5
        with pytest.raises(StoreError, match="uses it"):
            InstanceStore(path)
    InstanceStore(path).close()


def test_stores_in_memory_do_not_lock_each_other() -> None:
    with InstanceStore(None) as one, InstanceStore(None) as two:
        assert (list(one.load()), list(two.load())) == ([], [])


# ---- failures of SQLite itself
def driven(path: Path, act: Callable[[Any, InstanceStore, Host], None]) -> None:
    """Run *act* with the first of the stored instances."""

    async def main() -> None:
        with InstanceStore(path) as store:
            async with Host(store=store) as host:
                for snapshot in store.load():
                    host.resume(CHART, snapshot, actions=ACTIONS)
                act(host[NAMES[0]], store, host)

    anyio.run(main)


def test_step_while_another_program_locks_the_file_is_undone(path: Path) -> None:
    """Nothing of it is kept, and the same event is taken when the lock is gone."""

    def act(one: Any, store: InstanceStore, host: Host) -> None:
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StepError, match=r"the store failed: .*database is locked"):
            one.post("tick")
        with pytest.raises(StoreError, match="database is locked"):
            host.remove(NAMES[0])
        with pytest.raises(StoreError, match="database is locked"):
            host.start(CHART, actions=ACTIONS)
        other.close()
        assert (one.data, one.number, len(host)) == ({"n": 1}, 1, 5)
        assert one.post("tick").data == {"n": 2}
        assert host.start(CHART, actions=ACTIONS).id not in NAMES

    driven(path, act)
    with InstanceStore(path) as store:
        assert [snapshot.data["n"] for snapshot in store.load()] == [2, 1, 1, 1, 1, 0]


def test_step_on_a_full_disk_is_undone(path: Path) -> None:
    """Whatever fits goes on, and all of it does when there is room again."""

    def act(one: Any, store: InstanceStore, host: Host) -> None:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        kept = [snapshot.data for snapshot in store.load()]
        one.payload = "x" * 100_000
        for _ in range(3):
            with pytest.raises(StepError, match="database or disk is full"):
                one.post("tick")
        with pytest.raises(StoreError, match="full"):
            host.start(CHART, actions=ACTIONS, payload="x" * 100_000)
        assert [snapshot.data for snapshot in store.load()] == kept
        assert (one.data, one.number, len(host)) == ({"n": 1}, 1, 5)
        host[NAMES[1]].post("tick")
        store._db.execute(f"PRAGMA max_page_count = {pages + 100}")
        one.post("tick")

    driven(path, act)
    with InstanceStore(path) as store:
        assert [snapshot.data["n"] for snapshot in store.load()] == [2, 2, 1, 1, 1]


def test_store_that_is_closed_undoes_each_step(path: Path) -> None:
    def act(one: Any, store: InstanceStore, host: Host) -> None:
        store.close()
        with pytest.raises(StepError, match="closed database"):
            one.post("tick")
        with pytest.raises(StoreError, match="closed database"):
            list(store.load())
        assert one.data == {"n": 1}

    driven(path, act)


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced", "lock deleted"])
def test_step_is_undone_if_the_file_is_gone(path: Path, what: str) -> None:
    """SQLite would go on in a file without a name, or beside another process."""
    lock = path.with_name(f"{path.name}.lock")

    def act(one: Any, store: InstanceStore, host: Host) -> None:
        one.post("tick")
        if what == "lock deleted":
            lock.unlink()
        elif what == "deleted":
            path.unlink()
        else:
            path.rename(path.with_name("old.db"))
        if what == "replaced":
            path.write_bytes(b"")
        for _ in range(2):
            with pytest.raises(StepError, match=r"the store failed: .* removed"):
                one.post("tick")
        with pytest.raises(StoreError, match="removed"):
            host.start(CHART, actions=ACTIONS)
        with pytest.raises(StoreError, match="removed"):
            host.remove(NAMES[0])
        assert (one.data, one.number, len(host)) == ({"n": 2}, 2, 5)
        if what == "moved":
            path.with_name("old.db").rename(path)
            one.post("tick")

    driven(path, act)
    if what in ("moved", "lock deleted"):
        with InstanceStore(path) as store:
            found = [snapshot.data["n"] for snapshot in store.load()]
        assert found == [3 if what == "moved" else 2, 1, 1, 1, 1]
