"""A library on demo servers that save into memory: a full one, and its loss."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tools.kv import NAME, demo_command, keeping, warnings_of
from tools.kv_library import SETTINGS, WORDS, say, text_of, told

from swapchart.adapters.kv.files import SlotFiles, prefix_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

_CAPACITY = 16_000  # bytes; a conversation has about 4,500


def limit_memory(monkeypatch: pytest.MonkeyPatch, folder: Path, capacity: int) -> None:
    """Let *folder* be a file system of *capacity* bytes."""
    statvfs = os.statvfs

    def limited(path: Path) -> os.statvfs_result:
        if path != folder:
            return statvfs(path)
        free = max(capacity - sum(file.stat().st_size for file in folder.iterdir()), 0)
        return os.statvfs_result((1, 1, capacity, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", limited)


async def test_library_larger_than_memory_is_kept_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory has the last conversations, and after a reboot none; all of them are restored."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    settings = replace(SETTINGS, tmpfs=tmp_path)
    argv, folder = demo_command(tmp_path / "model.bin", slots=2), tmp_path / "memory"
    limit_memory(monkeypatch, folder, _CAPACITY)
    disk = tmp_path / prefix_of(NAME)
    async with keeping(folder, argv, settings) as kept:
        async with kept.life() as life:
            await told(kept, life, *WORDS)
            again = [await say(kept, life, text_of(word)) for word in WORDS]
            in_memory = len(kept.slot_files())
        shutil.rmtree(folder)
        folder.mkdir()
        async with kept.life() as life:
            after = [await say(kept, life, text_of(word)) for word in WORDS]

    assert [said.cached for said in (*again, *after) if said.cached < 300] == []
    assert {said.source for said in after} == {"library"}
    assert in_memory <= 3 < len(list(disk.glob("*.kv"))) == len(WORDS)
    assert warnings_of(caplog) == []


def test_full_memory_loses_no_file_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is restored at present, nor one that is not on the disk yet."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    files = SlotFiles(memory, "swapchart-1", disk, evicts=True)
    names = [f"swapchart-1-{number}.kv" for number in range(4)]
    for number, name in enumerate(names):
        (memory / name).write_bytes(bytes(1000))
        os.utime(memory / name, (number, number))
        if number:
            files.persist(name)
    limit_memory(monkeypatch, memory, 4200)
    with files.held(names[1]):
        files.remove(files.reserve(900))

    assert sorted(path.name for path in memory.iterdir()) == [names[0], names[1], names[3]]
    assert files.digest(names[2]) == files.kept(names[2])[1]
    assert not (memory / names[1]).exists()
