"""State directory: private, without files of other users, and created again when deleted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from tools.net import wait_until

from swapchart.adapters.app.application import open_state
from swapchart.adapters.kv.files import FolderLock, KvStoreError
from swapchart.adapters.kv.manifest import ModelStore
from swapchart.adapters.process.orphans import boot_id, started_of
from swapchart.adapters.store import Database
from swapchart.adapters.store.journal import MIGRATIONS, Journal
from swapchart.adapters.store.state_directory import (
    StateDirectory,
    StateInUseError,
    check_folder,
)
from swapchart.adapters.system.private_files import UnsafeFileError, make_folder, open_file
from swapchart.runtime import Transition


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)  # an address has 107 bytes, a path may have more
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


#: What may stand where a file of ours is expected; *path* is its place, *target* a precious file.
ODD: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, target: path.symlink_to(target),
    "dangling link": lambda path, target: path.symlink_to(target.with_name("nothing")),
    "named pipe": lambda path, target: os.mkfifo(path),
    "folder": lambda path, target: path.mkdir(),
    "socket": lambda path, target: make_socket(path),
}
PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "lock": ("lock", StateDirectory),
    "kv lock": (".swapchart.lock", FolderLock),
    "kv manifest": (ModelStore("m", Path()).path.name, lambda path: ModelStore("m", path).read()),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", PLACES)
def test_open_link_or_pipe_in_its_place_is_refused(tmp_path: Path, place: str, kind: str) -> None:
    """The target of a link is neither truncated nor read, and opening a pipe does not block."""
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    name, use = PLACES[place]
    ODD[kind](folder / name, target)
    with pytest.raises((OSError, KvStoreError)) as caught:
        use(folder)

    assert name in str(caught.value) or str(folder) in str(caught.value)
    assert target.read_text() == "precious"
    assert not target.with_name("nothing").exists()


def test_open_state_lock_is_a_link_runs_without_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy starts, remembers nothing, and says what to remove."""
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")

    assert open_state(tmp_path) is None
    assert "is a link: remove it" in caplog.text
    assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize("name", ["file", "file/state", "link", "link/state"])
@pytest.mark.parametrize("command", ["serve --listen 127.0.0.1:0", "config check", "kv list"])
def test_commands_state_dir_is_a_file_name_it_and_the_option(
    tmp_path: Path, command: str, name: str
) -> None:
    """A path that cannot become a folder is an error of the command line; nothing starts."""
    config = tmp_path / "config.yaml"
    config.write_text("models: {}\n")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    words = [*command.split(), "--config", str(config), "--state-dir", str(tmp_path / name)]
    ended = subprocess.run(
        [sys.executable, "-m", "swapchart", *words],
        capture_output=True, text=True, timeout=60.0, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    line = (ended.stdout + ended.stderr).splitlines()[-1]
    assert f"expected a folder at {tmp_path / name.partition('/')[0]}, found something" in line
    assert "--state-dir" in line
    assert not (tmp_path / "nothing").exists()


def test_check_folder_path_below_a_folder_is_accepted_and_not_created(tmp_path: Path) -> None:
    """A folder, a link to one, and paths below them."""
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "link", tmp_path / "a" / "b", tmp_path / "link" / "c"):
        check_folder(path)

    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701])
def test_state_folder_mode_is_loose_is_tightened(tmp_path: Path, mode: int) -> None:
    """Others lose their rights, our user keeps them; the lock likewise."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "lock").chmod(0o666)
    folder.chmod(mode)
    state = StateDirectory(folder)

    assert (mode_of(folder), mode_of(folder / "lock")) == (0o700, 0o600)
    state.close()


def test_state_folder_is_a_link_is_followed(tmp_path: Path) -> None:
    """Whoever put the folder on another disk meant it."""
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    state = StateDirectory(tmp_path / "state")

    assert mode_of(tmp_path / "disk") == 0o700
    state.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_open_file_of_another_user_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could change what is in it at any time."""
    path = tmp_path / "x"
    path.mkdir() if kind == "folder" else path.touch()
    os.chown(path, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(UnsafeFileError, match="belongs to user 12345"):
        make_folder(path, lambda name: True) if kind == "folder" else open_file(path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("mode", "content", "owner"),
    [
        (0o1777, "", 0),
        (0o1777, "lock", 0),
        (0o755, "photo.jpg", 0),
        (0o755, "lock/", 0),  # as in /run
        (0o755, "", 12345),
        (0o755, "lock", 12345),
    ],
)
def test_state_folder_that_others_use_is_refused_and_untouched(
    tmp_path: Path, mode: int, content: str, owner: int
) -> None:
    """Rights are taken from others only where the folder is ours alone, root's included."""
    folder = tmp_path / "shared"
    folder.mkdir()
    if content:
        path = folder / content
        path.mkdir() if content.endswith("/") else path.touch()
    folder.chmod(mode)
    if owner:
        if os.geteuid() != 0:
            pytest.skip("only root can give folders away")
        os.chown(folder, owner, owner)
    before = sorted(folder.iterdir())
    with pytest.raises(UnsafeFileError, match=r"expected .* found .* choose a folder of its own"):
        StateDirectory(folder)

    assert folder.stat().st_mode & 0o7777 == mode
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("content", ["journal.db", "activity.db", "lost+found/"])
def test_state_folder_of_an_earlier_version_is_tightened(tmp_path: Path, content: str) -> None:
    """Databases of an earlier version tell that it is ours; a new file system is empty."""
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / content
    path.mkdir() if content.endswith("/") else path.touch()
    folder.chmod(0o755)
    state = StateDirectory(folder)

    assert mode_of(folder) == 0o700
    state.close()


def test_state_folder_private_with_other_files_is_used(tmp_path: Path) -> None:
    """Where others have no rights, there are none to take away."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    (folder / "photo.jpg").touch()
    state = StateDirectory(folder)

    assert mode_of(folder) == 0o700
    state.close()


def test_kv_folder_that_only_has_the_default_name_is_not_tightened(tmp_path: Path) -> None:
    """A folder of a user's own may be called swapchart-something."""
    folder = tmp_path / "swapchart-models"
    folder.mkdir()
    (folder / "model.gguf").touch()
    folder.chmod(0o755)
    for _ in range(2):  # the second time there is a lock of ours in it
        FolderLock(folder).close()

    assert mode_of(folder) == 0o755


def test_kv_folder_writable_by_others_is_refused(tmp_path: Path) -> None:
    """Somebody else could put a conversation there; a sticky folder such as /tmp is fine."""
    folder = tmp_path / "slots"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(KvStoreError, match="chmod o-w"):
        FolderLock(folder)

    folder.chmod(0o1777)
    FolderLock(folder).close()


def test_kv_folder_with_loose_modes_is_tightened_with_its_files(tmp_path: Path) -> None:
    """Folders that we name are ours alone; so are saved slots, wherever they lie."""
    folder = tmp_path / "swapchart-0123456789ab"
    folder.mkdir()
    folder.chmod(0o755)
    lock = FolderLock(folder)
    store = ModelStore("m", folder)
    name = store.files.reserve()
    (folder / name).chmod(0o644)
    store.files.sweep([name])

    assert (mode_of(folder), mode_of(folder / name)) == (0o700, 0o600)
    lock.close()


def test_kv_manifest_is_too_new_is_refused_and_untouched(tmp_path: Path) -> None:
    """A newer program's saved slots are neither put aside nor removed."""
    store = ModelStore("m", tmp_path)
    name = store.files.reserve()
    store.path.write_text('{"version": 2, "model": "m", "anything": "else"}')
    store.path.chmod(0o600)
    before = store.path.read_bytes()
    with pytest.raises(KvStoreError, match=r"version 2.*newer"):
        store.open()

    assert store.path.read_bytes() == before
    assert (tmp_path / name).exists()


def test_kv_folder_is_deleted_is_made_again_for_the_next_save(tmp_path: Path) -> None:
    """A state folder that was deleted costs what was saved, not what will be."""
    folder = tmp_path / "kv" / "swapchart-0123456789ab"
    lock = FolderLock(folder)
    store = ModelStore("m", folder)
    store.open()
    shutil.rmtree(tmp_path / "kv")
    name = store.files.reserve()
    store.commit()

    assert mode_of(folder / name) == 0o600
    assert store.path.exists()
    lock.close()


def test_state_folder_is_deleted_is_seen_and_made_again(tmp_path: Path) -> None:
    """The lock holds again, so no second proxy can take the folder."""
    folder = tmp_path / "state"
    state = StateDirectory(folder)
    assert state.is_there()
    shutil.rmtree(folder)
    assert not state.is_there()
    state.renew()

    assert state.is_there()
    with pytest.raises(StateInUseError):
        StateDirectory(folder)
    state.close()


def spawned(service: str, pid: int) -> Transition:
    return Transition(
        service=service, incarnation=1, event="spawned", cause="", source="spawning",
        target="health_checking", configuration=("starting", "health_checking"), at=0.0,
        seconds=0.0, pid=pid, exit=None, hooks=(),
    )  # fmt: skip


def test_journal_database_is_locked_rows_are_there_after_a_kill(
    tmp_path: Path,
) -> None:
    """Once the lock is gone the next start finds every tree that may live."""
    path = tmp_path / "journal.db"
    database = Database(path, MIGRATIONS, flush_s=0.05, limit=5)
    database.open()
    journal = Journal(database, "first", boot=boot_id(), started_of=started_of)
    other = Database(path, MIGRATIONS)
    other.open()

    def hold(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(1.0)
        db.execute("COMMIT")

    locked = other.submit(hold)
    time.sleep(0.2)
    for number in range(50):
        journal.take(spawned(f"service{number}", os.getpid()))
        journal._put_vital("owed", f"service{number}", "INSERT INTO owed VALUES (?, ?, ?)",
                      ("first", f"service{number}", 1))  # fmt: skip
    locked.result()
    other.close()

    reader = Database(path, MIGRATIONS)
    reader.open()
    second = Journal(reader, "second", boot=boot_id(), started_of=started_of)
    wait_until(lambda: len(anyio.run(second.unended)) == 50)
    assert len(anyio.run(second.incomplete_hooks)) == 50
    for closing in (reader, database):
        closing.close()


def test_journal_file_is_deleted_launched_processes_are_in_the_new_one(tmp_path: Path) -> None:
    """A deleted state folder costs history, not the trees that are to be ended after a kill."""
    path = tmp_path / "journal.db"
    database = Database(path, MIGRATIONS, flush_s=0.05)
    database.open()
    journal = Journal(database, "first", boot=boot_id(), started_of=started_of)
    journal.take(spawned("a", os.getpid()))
    assert anyio.run(journal.history, "a")
    for file in tmp_path.iterdir():
        file.unlink()
    database.check_file()
    wait_until(lambda: path.exists() and not database.is_file_gone())

    reader = Database(path, MIGRATIONS)
    reader.open()
    second = Journal(reader, "second", boot=boot_id(), started_of=started_of)
    wait_until(lambda: [each.service for each in anyio.run(second.unended)] == ["a"])
    for closing in (reader, database):
        closing.close()


def test_serve_state_folder_is_deleted_is_logged_and_made_again(tmp_path: Path) -> None:
    """Within seconds, without a request; a second proxy is refused, and the end is clean."""
    state = tmp_path / "state"
    config = tmp_path / "config.yaml"
    config.write_text("models: {}\n")
    command = [
        sys.executable, "-m", "swapchart", "serve", "--config", str(config), "--listen",
        "127.0.0.1:0", "--state-dir", str(state),
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            wait_until(lambda: "listens on" in log.read_text())
            shutil.rmtree(state)
            wait_until(lambda: "was deleted while it was in use" in log.read_text())
            wait_until(lambda: (state / "journal.db").exists())
            wait_until(lambda: (state / "activity.db").exists())
            second = subprocess.run(command, capture_output=True, timeout=30.0, check=False)
            assert second.returncode == 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(30.0) == 0
        finally:
            process.kill()

    assert mode_of(state) == 0o700
