"""Command ``swapchart kv``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from tools.children import demo_argv
from tools.kv import EAGER, NAME, STORY, demo_command, keeping
from tools.kv_library import SETTINGS, told

from swapchart.adapters.app.shutdown_timeout import stop_limit_s
from swapchart.adapters.cli import main
from swapchart.adapters.config import load_config
from swapchart.adapters.kv.entry import Entry
from swapchart.adapters.kv.files import FolderLock, prefix_of
from swapchart.adapters.kv.manifest import ModelStore

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose one model has one conversation saved."""
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    argv = demo_command(model)

    async def live() -> None:
        async with keeping(tmp_path / "kv", argv, EAGER) as kept, kept.life() as life:
            await life.ask(STORY * 5)
            await life.save()

    anyio.run(live)
    return write(tmp_path / "config.yaml", [*argv, "--slot-save-path", str(tmp_path / "kv")])


def write(path: Path, argv: list[str], **more: Any) -> Path:
    model = {"cmd": argv, "proxy": "http://127.0.0.1:1", "kv": "keep", **more}
    path.write_text(json.dumps({"models": {NAME: model}}))
    return path


def test_list_shows_saved_slots(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kv", "list", "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert main(["kv", "list", "--json", "--config", str(config), NAME]) == 0
    (row,) = json.loads(capsys.readouterr().out)

    assert text.startswith(f"{NAME}: {row['tokens']} tokens")
    assert row["tokens"] > 50
    assert Path(row["file"]).stat().st_size == row["bytes"]


def test_verify_finds_damaged_slots(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kv", "verify", "--config", str(config)]) == 0
    assert capsys.readouterr().out.endswith(": ok\n")
    (path,) = (config.parent / "kv").glob("*.kv")
    os.truncate(path, 100)

    assert main(["kv", "verify", "--config", str(config)]) == 1
    assert "expected" in capsys.readouterr().out


def test_purge_removes_only_files_of_the_proxy(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = config.parent / "kv" / "by-hand.kv"
    mine.write_text("x")

    assert main(["kv", "purge", "--config", str(config)]) == 0
    assert "1 saved slots" in capsys.readouterr().out
    assert {path.name for path in mine.parent.iterdir()} == {mine.name, ".swapchart.lock"}
    assert main(["kv", "list", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "no saved caches\n"


def test_purge_works_after_kv_was_switched_off(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = json.loads(config.read_text())
    value["models"][NAME]["kv"] = "off"
    config.write_text(json.dumps(value))

    assert main(["kv", "purge", "--config", str(config)]) == 0
    assert list((config.parent / "kv").glob("*.kv")) == []


def test_purge_of_a_folder_in_use_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a proxy works in the folder, it refuses."""
    lock = FolderLock(config.parent / "kv")
    try:
        assert main(["kv", "purge", "--config", str(config)]) == 1
    finally:
        lock.close()

    assert "another swapchart uses" in capsys.readouterr().err
    assert len(list((config.parent / "kv").glob("*.kv"))) == 1


@pytest.mark.parametrize("what", ["list", "verify"])
def test_list_of_a_broken_manifest_changes_nothing(
    config: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told of; the proxy puts it aside, and purge removes it with its files."""
    folder = config.parent / "kv"
    manifest = folder / f"{prefix_of(NAME)}.json"
    manifest.write_text("{")
    before = sorted(folder.iterdir())

    assert main(["kv", what, "--config", str(config)]) == 1
    assert "is invalid" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert main(["kv", "purge", "--config", str(config)]) == 0
    assert [path.name for path in folder.iterdir()] == [".swapchart.lock"]


def test_purge_knows_a_folder_by_all_its_names(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Models may share it; we are not another swapchart to ourselves."""
    (config.parent / "alias").symlink_to(config.parent / "kv")
    value = json.loads(config.read_text())
    argv = [*demo_argv(), "--slot-save-path", str(config.parent / "alias")]
    value["models"]["hare"] = {"cmd": argv, "proxy": "http://127.0.0.1:2", "kv": "keep"}
    config.write_text(json.dumps(value))

    assert main(["kv", "purge", "--config", str(config)]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: 1 saved slots")


@pytest.mark.parametrize("what", ["list", "verify", "purge"])
def test_kv_command_with_wrong_arguments_is_refused(
    config: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kv", what]) == 1
    assert "expected --config" in capsys.readouterr().err
    assert main(["kv", what, "--config", str(config), "hare"]) == 1
    assert "no such model: hare" in capsys.readouterr().err
    config.write_text("models: 3")
    assert main(["kv", what, "--config", str(config)]) == 1
    assert "models" in capsys.readouterr().err


def test_verify_of_a_slot_replaced_meanwhile_reports_no_damage(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest was read, then its file went for a newer one that is in the manifest now."""
    verify = ModelStore.verify

    def late(store: ModelStore, entry: Entry) -> str:
        other = ModelStore(NAME, store.files.folder)
        other.read()
        other.forget(entry.file)
        other.commit()
        return verify(store, entry)

    monkeypatch.setattr(ModelStore, "verify", late)
    assert main(["kv", "verify", "--config", str(config)]) == 0
    assert capsys.readouterr() == ("", "")


def test_shutdown_timeout_includes_saves(tmp_path: Path) -> None:
    """Apart from drain and grace period, which may be over before it is."""
    limits = []
    for kv in ("off", {"timeout": 50}):
        path = write(tmp_path / "config.yaml", demo_argv(), kv=kv)
        limits.append(stop_limit_s(load_config([path])))

    assert limits[1] >= limits[0] + 50


def test_list_creates_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of ours is where the state is, and listing does not create it."""
    path = write(tmp_path / "config.yaml", demo_argv())
    state = tmp_path / "state"

    assert main(["kv", "list", "--config", str(path), "--state-dir", str(state)]) == 0
    assert capsys.readouterr().out == "no saved caches\n"
    assert not state.exists()
    assert prefix_of(NAME).startswith("swapchart-")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A configuration whose one model has two conversations in its library."""
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    argv = demo_command(model, slots=2)

    async def live() -> None:
        async with keeping(tmp_path / "kv", argv, SETTINGS) as kept, kept.life() as life:
            await told(kept, life, "red", "blue")

    anyio.run(live)
    command = [*argv, "--slot-save-path", str(tmp_path / "kv")]
    return write(tmp_path / "config.yaml", command, kv={"library": "1GiB"})


def test_list_shows_conversations_and_their_words_only_if_asked(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kv", "list", "--config", str(library)]) == 0
    plain = capsys.readouterr().out
    assert main(["kv", "list", "--words", "--config", str(library)]) == 0
    with_words = capsys.readouterr().out
    assert main(["kv", "list", "--json", "--config", str(library)]) == 0
    rows = json.loads(capsys.readouterr().out)

    assert plain.count("restored 0 times, which saved 0.0 s") == 2
    assert "red red" not in plain
    assert "red red" in with_words
    assert [("words" in row, row["restores"], row["is_used"]) for row in rows] == [
        (False, 0, True), (False, 0, True),
    ]  # fmt: skip


def test_verify_and_purge_cover_the_library(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kv", "verify", "--config", str(library)]) == 0
    assert capsys.readouterr().out.count(": ok\n") == 2
    path = min((library.parent / "kv").glob("*.kv"))
    os.truncate(path, 100)
    assert main(["kv", "verify", "--config", str(library)]) == 1
    assert main(["kv", "purge", "--config", str(library)]) == 0
    assert "2 conversations" in capsys.readouterr().out

    assert list((library.parent / "kv").glob("*.kv*")) == []


def test_newer_library_is_named_and_not_purged(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = min((library.parent / "kv").glob("*.kv.json"))
    path.write_text('{"version": 99}')
    for command in ("list", "purge"):
        assert main(["kv", command, "--config", str(library)]) == 1
        assert "was written by a newer program" in capsys.readouterr().err

    assert path.read_text() == '{"version": 99}'
