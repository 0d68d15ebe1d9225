"""GGUF files, and the folders of saved slots: what is read, what is refused, what is left alone."""

from __future__ import annotations

import os
import stat
import struct
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.growth import growth
from tools.kv import with_metadata
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.kv.checksums import Checksums
from swapchart.adapters.kv.files import FolderLock, KvStoreError, SlotFiles, is_name_of_ours
from swapchart.adapters.llama_cpp.gguf import GgufError, file_identity, read_gguf, shards
from swapchart.runtime.fence import Fence


class Usage(NamedTuple):
    """What ``os.statvfs`` tells."""

    f_bavail: int
    f_frsize: int
    f_blocks: int


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


# ---- GGUF
def test_gguf_metadata_is_read_without_the_tensors(tiny: Path) -> None:
    head = read_gguf(tiny)

    assert head.architecture == "llama"
    assert head.values["llama.block_count"] == 2
    assert head.sliding_window == 0


def test_gguf_sliding_window_is_read(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "a.gguf")
    with_metadata(path, "llama.attention.sliding_window", 512)

    assert read_gguf(path).sliding_window == 512


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24, 40, 200, 5000])
def test_gguf_that_ends_early_is_refused(tiny: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes()[:size])
    with pytest.raises(GgufError):
        read_gguf(path)


def packed(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def test_gguf_arrays_and_long_texts_are_passed_over(tmp_path: Path) -> None:
    """What stands behind a long vocabulary and a long template is read; they are not kept."""
    words = b"".join(packed(b"w" * (n % 40)) for n in range(60_000))
    path = tmp_path / "a.gguf"
    path.write_bytes(
        b"GGUF" + struct.pack("<IQQ", 3, 0, 5)
        + packed(b"words") + struct.pack("<IIQ", 9, 8, 60_000) + words
        + packed(b"long words") + struct.pack("<IIQ", 9, 8, 3) + packed(b"x" * (1 << 20)) * 3
        + packed(b"scores") + struct.pack("<IIQ", 9, 6, 60_000) + bytes(4 * 60_000)
        + packed(b"template") + struct.pack("<I", 8) + packed(b"t" * 100_000)
        + packed(b"general.architecture") + struct.pack("<I", 8) + packed(b"llama")
    )  # fmt: skip

    assert read_gguf(path).values == {"general.architecture": "llama"}


def test_gguf_is_read_in_time_in_proportion_to_its_size(tmp_path: Path) -> None:
    """A million texts of a vocabulary take little time, and little memory whatever their length."""
    paths = []
    for count in (250_000, 1_000_000):
        path = tmp_path / f"{count}.gguf"
        path.write_bytes(
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
            + packed(b"k") + struct.pack("<IIQ", 9, 8, count) + packed(b"abcdef") * count
        )  # fmt: skip
        tracemalloc.start()
        read_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        paths.append(path)
        assert peak < 2 << 20
    small, large = paths

    assert (
        growth(lambda: read_gguf(small), lambda: read_gguf(large), limit=9.0, floor_s=0.02) <= 9.0
    )


@pytest.mark.parametrize(
    "data",
    [
        b"not a model at all",
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 61),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 99, 1),
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 5000)
        + (packed(b"k") + struct.pack("<IB", 0, 1)) * 5000,
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + packed(b"k")
        + struct.pack("<IIQ", 9, 8, 5 << 20)
        + bytes(40 << 20),
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + packed(b"k")
        + struct.pack("<IIQ", 9, 8, 2)
        + packed(b"x")
        + struct.pack("<Q", 1 << 63),
    ],
)
def test_gguf_with_false_counts_is_refused_cheaply(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GgufError):
        read_gguf(path)


@given(st.binary(max_size=300))
def test_gguf_of_any_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + data)
    try:
        read_gguf(path)
    except GgufError:
        return


def test_gguf_arrays_of_arrays_are_refused(tmp_path: Path) -> None:
    """However deep, and not by the limit of the interpreter."""
    deep = struct.pack("<IQ", 9, 1) * 100_000
    path = tmp_path / "deep.gguf"
    path.write_bytes(
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 9) + deep
    )
    with pytest.raises(GgufError):
        read_gguf(path)


def test_fingerprint_changes_with_one_byte_of_a_large_file(tmp_path: Path) -> None:
    """At the beginning, at the very end, and where samples are taken between."""
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    os.utime(path, ns=(1, 1))
    seen = {file_identity(path)}
    places = (0, ((64 << 20) - (16 << 10)) * 100 // 255, (64 << 20) - 1)
    for at in places:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"x")
        os.utime(path, ns=(1, 1))
        seen.add(file_identity(path))

    assert len(seen) == 1 + len(places)


def test_fingerprint_changes_when_a_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"x")
    before = file_identity(path)
    os.utime(path, ns=(5, 5))

    assert file_identity(path) != before


def test_split_model_files_are_all_found() -> None:
    pieces = shards(Path("/m/qwen-00002-of-00003.gguf"))

    assert [path.name for path in pieces] == [f"qwen-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for name in ("qwen.gguf", "a-of-b.gguf", "x-1-of-2.gguf", "-of-00002.gguf"):
        assert shards(Path(name)) == [Path(name)]


# ---- folders
def test_folder_lock_is_exclusive(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "a" / "b")
    with pytest.raises(KvStoreError, match="another swapchart"):
        FolderLock(tmp_path / "a" / "b")
    lock.close()
    FolderLock(tmp_path / "a" / "b").close()

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self")):
        with pytest.raises(KvStoreError, match="cannot be written"):
            FolderLock(folder)


def test_folder_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / ".swapchart.lock").symlink_to(target)
    with pytest.raises(KvStoreError):
        FolderLock(tmp_path)

    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("swapchart-0123-ab.kv", True), ("swapchart-.kv", True), ("swapchart-x", False),
        ("swapchart-/../a.kv", False), ("../swapchart-a.kv", False), ("a.kv", False), ("", False),
    ],
)  # fmt: skip
def test_slot_file_names_are_distinguished_from_paths(name: str, is_ours: bool) -> None:
    assert is_name_of_ours(name) == is_ours


def test_full_disk_is_detected_before_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SlotFiles(tmp_path, "swapchart-x")
    monkeypatch.setattr(os, "statvfs", lambda path: Usage(1000, 4096, 1_000_000))
    with pytest.raises(KvStoreError, match="3 MiB left"):
        files.reserve(0)

    assert list(tmp_path.iterdir()) == []


def test_small_disk_keeps_a_share_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of a small memory disk would be all of it: then a twentieth."""
    files = SlotFiles(tmp_path, "swapchart-x")
    monkeypatch.setattr(os, "statvfs", lambda path: Usage(5000, 4096, 10_000))
    files.reserve(10 << 20)
    with pytest.raises(KvStoreError):
        files.reserve(19 << 20)


# ---- slots in memory
@pytest.fixture
def tiers(tmp_path: Path) -> SlotFiles:
    for name in ("memory", "disk"):
        (tmp_path / name).mkdir()
    return SlotFiles(tmp_path / "memory", "swapchart-x", tmp_path / "disk")


def test_copy_outlives_the_memory(tiers: SlotFiles) -> None:
    name = tiers.reserve()
    tiers.path(name).write_bytes(b"content")
    tiers.persist(name)
    digest = tiers.digest(name)
    tiers.path(name).unlink()

    assert tiers.size(name) < 0
    assert tiers.digest(name) == digest
    assert tiers.path(name).read_bytes() == b"content"
    assert stat.S_IMODE(tiers.path(name).stat().st_mode) == 0o600


def test_copies_in_memory_and_on_disk_are_removed_together(tiers: SlotFiles) -> None:
    name = tiers.reserve()
    tiers.path(name).write_bytes(b"content")
    tiers.persist(name)
    tiers.remove(name)

    assert tiers.sweep([name]) == {name}
    assert tiers.disk is not None
    assert [*tiers.folder.iterdir(), *tiers.disk.iterdir()] == []


def test_copy_that_does_not_fit_into_memory_stays_on_the_disk(
    tiers: SlotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tiers.reserve()
    tiers.path(name).write_bytes(b"content")
    tiers.persist(name)
    tiers.path(name).unlink()
    monkeypatch.setattr(os, "statvfs", lambda path: Usage(0, 4096, 1000))
    with pytest.raises(KvStoreError):
        tiers.digest(name)

    assert tiers.disk is not None
    assert (tiers.disk / name).read_bytes() == b"content"


def test_copy_that_fails_leaves_no_file(tiers: SlotFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    name = tiers.reserve()
    tiers.path(name).write_bytes(b"content")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KvStoreError, match="No space left"):
        tiers.persist(name)

    assert tiers.disk is not None
    assert list(tiers.disk.iterdir()) == []


# ---- checksums
def test_checksum_is_computed_once_and_again_after_a_change(tmp_path: Path) -> None:
    files = SlotFiles(tmp_path, "swapchart-x")
    asked: list[str] = []

    class Counting(SlotFiles):
        def digest(self, name: str) -> str:
            asked.append(name)
            return super().digest(name)

    seen: list[str] = []

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            digests = Checksums(Counting(tmp_path, "swapchart-x"), Fence(tasks))
            files.path("a").write_bytes(b"one")
            digests.begin("a")
            seen.extend([await digests.of("a"), await digests.of("a")])
            files.path("a").write_bytes(b"other")
            seen.append(await digests.of("a"))
            with pytest.raises(OSError, match="missing"):
                await digests.of("missing")

    anyio.run(work)

    assert seen[0] == seen[1] != seen[2]
    assert asked == ["a", "a", "missing"]
