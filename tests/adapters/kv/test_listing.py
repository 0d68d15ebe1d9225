"""Overview of saved conversations: what is on the disk before the first start, and its removal."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.kv import NAME, demo_command, keeping

from swapchart.adapters.kv.library.conversation import Conversation
from swapchart.adapters.kv.library.store import ConversationStore, library_prefix
from swapchart.adapters.kv.listing.overview import KvOverview
from swapchart.adapters.kv.settings import KvSettings

pytestmark = pytest.mark.anyio

SETTINGS = KvSettings(min_tokens=64, library_bytes=10**9)


def put(folder: Path, numbers: range) -> None:
    """Write conversations of one slot each, used in the order of their numbers."""
    folder.mkdir(exist_ok=True)
    store = ConversationStore(NAME, folder)
    for number in numbers:
        file = f"{library_prefix(NAME)}-{number:012}.kv"
        (folder / file).write_bytes(b"12345678")
        one = Conversation(
            file=file, model=NAME, fingerprint="f", hashes=[number], tokens=100, size=8,
            sha256="0" * 64, saved_at=1000.0, used_at=2000.0 + number, words=f"word {number}",
        )  # fmt: skip
        store.write(one, is_durable=False)


async def test_overview_shows_the_disk_before_the_first_start(tmp_path: Path) -> None:
    """It is read again when the folder has changed; a purge removes all of it."""
    folder = tmp_path / "kv"
    put(folder, range(30))
    async with keeping(folder, demo_command(tmp_path / "model.bin", slots=2), SETTINGS) as kept:
        overview = KvOverview(kept.keeper)
        found = await overview.describe(NAME, 5, shows_words=False)
        assert (found["total"], found["bytes"], found["tokens"]) == (30, 240, 3000)
        assert [one["used_at"] for one in found["conversations"]] == [
            2029.0, 2028.0, 2027.0, 2026.0, 2025.0
        ]  # fmt: skip
        put(folder, range(30, 40))
        found = await overview.describe(NAME, 1, shows_words=True)
        assert (found["total"], found["conversations"][0]["words"]) == (40, "word 39")

        assert await overview.purge(NAME) == 40
        assert (await overview.describe(NAME, 5, shows_words=False))["total"] == 0
        assert not list(folder.glob("*.kv*"))


async def test_overview_of_a_description_by_a_newer_program_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    put(folder, range(2))
    path = next(folder.glob("*.json"))
    path.write_text('{"version": 99}')
    async with keeping(folder, demo_command(tmp_path / "model.bin", slots=2), SETTINGS) as kept:
        found = await KvOverview(kept.keeper).describe(NAME, 5, shows_words=False)

    assert "newer program" in found["facts"]["problem"]
    assert found["conversations"] == []


async def test_overview_of_an_unknown_model_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    async with keeping(folder, demo_command(tmp_path / "model.bin"), SETTINGS) as kept:
        overview = KvOverview(kept.keeper)

        assert (await overview.describe("other", 5, shows_words=False))["facts"] is None
        assert await overview.purge("other") is None
