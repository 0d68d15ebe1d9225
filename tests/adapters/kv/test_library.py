"""The library on demo servers: requests with slots, and each fault."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tools.kv import NAME, Kept, demo_command, keeping, warnings_of
from tools.kv_library import (
    PATH,
    SETTINGS,
    WORDS,
    Said,
    descriptions,
    director_of,
    say,
    text_of,
    told,
)
from tools.net import wait_until_async

from swapchart.adapters.kv.library import transfers
from swapchart.adapters.kv.library.store import ConversationStore, library_prefix
from swapchart.adapters.kv.llama_server import LlamaServer
from swapchart.adapters.kv.slots import SlotTransfer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


# ---- what it is for
async def test_more_conversations_than_slots_are_kept(kept: Kept) -> None:
    """Six of them in two slots: none is read again, over turns and over the end of the process."""
    async with kept.life() as life:
        for word in WORDS:
            await say(kept, life, text_of(word))
        turns = [await say(kept, life, text_of(word) + "go on") for word in WORDS]
        await life.save()
    async with kept.life() as life:
        after = [await say(kept, life, text_of(word) + "go on and on") for word in WORDS]

    assert all(said.read < 40 for said in (*turns, *after)), [said.read for said in turns]
    assert {said.source for said in after} == {"library"}
    assert all(said.cost_ms > 0 for said in after)
    assert kept.facts()["verdict"] == "works"
    assert kept.facts()["library_saved_s"] > 1.0


async def test_library_survives_a_kill_of_the_server(kept: Kept) -> None:
    async with kept.life() as life:
        await told(kept, life, *WORDS)
    async with kept.life() as life:
        again = [await say(kept, life, text_of(word)) for word in WORDS]

    assert all(said.read < 80 for said in again)


async def test_continued_conversation_has_one_file(kept: Kept) -> None:
    async with kept.life() as life:
        await told(kept, life, "red")
        (before,) = descriptions(kept)
        await say(kept, life, text_of("red", 30))
        await wait_until_async(lambda: kept.facts()["checkpoints"] == 2, what="a checkpoint")
        await kept.settled()
        (after,) = descriptions(kept)

    assert after["tokens"] > before["tokens"]
    assert len(kept.slot_files()) == 1


async def test_edit_of_an_earlier_message_reuses_what_is_before_it(kept: Kept) -> None:
    """The prefix is shorter, and both versions are kept."""
    async with kept.life() as life:
        await told(kept, life, "red")
        edited = await say(kept, life, text_of("red", 10) + "another end of it " * 40)
        await wait_until_async(lambda: kept.facts()["conversations"] == 2, what="both saved")
        back = await say(kept, life, text_of("red"))

    assert edited.cached > 150
    assert back.cached > 300


# ---- whose it is
async def test_conversation_of_one_key_is_never_offered_to_another(kept: Kept) -> None:
    async with kept.life() as life:
        await say(kept, life, text_of("red"), namespace="one")
        other = [await say(kept, life, text_of("red"), namespace="two") for _ in range(1)]
        await say(kept, life, text_of("blue"), namespace="one")
        await say(kept, life, text_of("green"), namespace="one")
        third = await say(kept, life, text_of("red"), namespace="three")
        mine = await say(kept, life, text_of("red"), namespace="one")

    assert [said.cached for said in (*other, third)] == [0, 0]
    assert mine.cached > 300


# ---- requests that want it otherwise
async def test_slot_of_the_client_is_kept_to(kept: Kept) -> None:
    async with kept.life() as life:
        await told(kept, life, "red", "blue")
        for slot in (1, 0, 1):
            said = await say(kept, life, text_of("red"), path="/completion", id_slot=slot)
            assert said.slot == slot
            assert said.cached > 300


async def test_request_without_cache_leaves_conversations_in_peace(kept: Kept) -> None:
    """It gets the slot whose loss costs least, and leaves nothing to reuse."""
    async with kept.life() as life:
        await told(kept, life, "red", "blue")
        said = await say(kept, life, text_of("red"), cache_prompt=False)
        again = [await say(kept, life, text_of(word)) for word in ("red", "blue")]

    assert said.cached == 0
    assert all(one.cached > 300 for one in again)


async def test_request_that_the_server_places_makes_no_wrong_guess(kept: Kept) -> None:
    """Such as one of two prompts; the list of slots tells afterwards where it was."""
    async with kept.life() as life:
        await told(kept, life, "red", "blue")
        assert await kept.keeper.assign(NAME, "/v1/embeddings", b"{}", "") is None
        await life.ask(text_of("stone", 25))
        again = [await say(kept, life, text_of(word)) for word in ("red", "blue")]

    assert all(one.cached > 300 for one in again)


async def test_server_of_one_slot_has_a_library(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    argv = demo_command(tmp_path / "model.bin", slots=1)
    async with keeping(tmp_path / "kv", argv, SETTINGS) as kept, kept.life() as life:
        for word in ("red", "blue"):
            await say(kept, life, text_of(word))
        again = [await say(kept, life, text_of(word)) for word in ("red", "blue")]

    assert all(one.cached > 300 for one in again)


async def test_requests_wait_for_a_slot_in_turn(kept: Kept) -> None:
    async with kept.life() as life, anyio.create_task_group() as tasks:
        found: list[Said] = []

        async def one(word: str) -> None:
            found.append(await say(kept, life, text_of(word)))

        for word in WORDS:
            tasks.start_soon(one, word)

    assert len(found) == len(WORDS)


async def test_unified_slots_have_no_library(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The conversation in a slot is saved at the stop, as with `kv: keep`."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    argv = demo_command(tmp_path / "model.bin", slots=2)
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(argv[:3])} "$@"\n')
    program.chmod(0o755)
    at = argv.index("--slots")  # as if no --parallel was given
    unified = [str(program), *argv[3:at], *argv[at + 2 :]]
    async with keeping(tmp_path / "kv", unified, SETTINGS) as kept, kept.life() as life:
        said = await say(kept, life, text_of("red"))
        await life.save()
        await kept.settled()

    assert said.source == ""
    assert "the library is not used: llama-server moves idle slots" in caplog.text
    assert [entry["tokens"] > 300 for entry in kept.entries()] == [True]


async def test_conversations_of_other_options_are_not_offered_and_not_lost(kept: Kept) -> None:
    """The fingerprint of the launch decides, as with `kv: keep`."""
    found = []
    async with kept.life() as life:
        await told(kept, life, "red")
    for options in (("--ctx-size", "4096"), ()):
        async with kept.life(*options) as life:
            found.append((await say(kept, life, text_of("red"))).cached)

    assert found[0] == 0
    assert found[1] > 300


async def test_write_budget_holds_for_the_library(tmp_path: Path, command: list[str]) -> None:
    """A conversation has 4,300 bytes, so the budget is for one of them, also at the stop."""
    settings = replace(SETTINGS, write_budget=6000)
    async with keeping(tmp_path / "kv", command, settings) as kept, kept.life() as life:
        await told(kept, life, "red")
        for word in ("blue", "green", "stone"):
            await say(kept, life, text_of(word))
        await life.save()
        await kept.settled()

    assert [one["words"][:3] for one in descriptions(kept)] == ["red"]


# ---- faults
async def test_request_canceled_during_its_restore_frees_the_slot(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore is completed, since the server cannot cancel it, and the next one uses it."""
    restore, begun, gate = LlamaServer.restore, anyio.Event(), anyio.Event()

    async def slow(self: LlamaServer, number: int, filename: str) -> SlotTransfer:
        begun.set()
        await gate.wait()
        return await restore(self, number, filename)

    async with kept.life() as life:
        await told(kept, life, *WORDS)
        monkeypatch.setattr(LlamaServer, "restore", slow)
        body = json.dumps({"prompt": text_of("red"), "max_tokens": 2}).encode()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.keeper.assign, NAME, PATH, body, "")
            await begun.wait()
            tasks.cancel_scope.cancel()
        slots = director_of(kept).slots
        assert any(slot.is_busy for slot in slots)
        gate.set()
        await wait_until_async(lambda: not any(slot.is_busy for slot in slots), what="free")
        said = await say(kept, life, text_of("red"))

    assert said.cached > 300
    assert said.source == "slot"
    assert kept.facts()["failures"] == 0


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
async def test_damaged_file_never_reaches_the_server(
    kept: Kept, damage: Callable[[Path], None]
) -> None:
    async with kept.life() as life:
        await told(kept, life, "red", "blue")
    for path in kept.slot_files():
        damage(path)
    async with kept.life() as life:
        again = [await say(kept, life, text_of(word)) for word in ("red", "blue")]
        assert life.child.process.poll() is None

    assert [one.cached for one in again] == [0, 0]


async def test_folder_that_is_removed_costs_a_warning(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept.life() as life:
        await told(kept, life, "red")
        shutil.rmtree(kept.folder)
        said = [await say(kept, life, text_of(word)) for word in ("blue", "green", "red")]
        await wait_until_async(lambda: bool(warnings_of(caplog)), what="a warning")

    assert len(said) == 3


async def test_full_disk_keeps_what_was_saved(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))
    async with kept.life() as life:
        await told(kept, life, "red")
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda path: full)
            for word in ("blue", "green"):
                await say(kept, life, text_of(word))
            await wait_until_async(lambda: "MiB are needed" in caplog.text, what="a warning")
            again = await say(kept, life, text_of("red"))
            found = descriptions(kept)

    assert again.cached > 300
    assert [one["words"][:3] for one in found] == ["red"]


async def test_server_that_crashes_while_restoring_gets_the_file_once(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that fails, and no crash loop."""
    async with kept.life() as life:
        await told(kept, life, "red")
    restore = LlamaServer.restore

    async def crash(self: LlamaServer, number: int, filename: str) -> SlotTransfer:
        life.child.process.kill()
        life.child.process.wait()
        return await restore(self, number, filename)

    async with kept.life() as life:
        with monkeypatch.context() as patch:
            patch.setattr(LlamaServer, "restore", crash)
            body = json.dumps({"prompt": text_of("red")}).encode()
            assert await kept.keeper.assign(NAME, PATH, body, "") is not None
        life.died(6)
    async with kept.life() as life:
        said = await say(kept, life, text_of("red"))

    assert said.cached == 0
    assert kept.slot_files() == []


async def test_checksum_waits_for_the_request_that_met_the_save(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take a core from the server that reads the prompt; a stop does not wait for it."""
    save = LlamaServer.save

    async def met(self: LlamaServer, number: int, filename: str) -> SlotTransfer:
        kept.is_idle = False
        return await save(self, number, filename)

    monkeypatch.setattr(transfers, "_LATEST_S", 60.0)
    monkeypatch.setattr(LlamaServer, "save", met)
    async with kept.life() as life:
        for count, word in enumerate(("red", "blue"), 1):
            kept.is_idle = True
            await say(kept, life, text_of(word))
            await wait_until_async(
                lambda: kept.facts()["conversations"] == count,  # noqa: B023
                what="a save",
            )
            assert len(descriptions(kept)) == count - 1
        await life.save()
        await kept.settled()

    assert len(descriptions(kept)) == 2


async def test_server_that_crashes_while_saving_leaves_no_file(kept: Kept) -> None:
    async with kept.life() as life:
        await told(kept, life, "red")
        before = kept.slot_files()
        await say(kept, life, text_of("blue"))
        life.child.process.kill()
        life.child.process.wait()
        await wait_until_async(
            lambda: kept.facts()["failures"] > 0 or kept.facts()["conversations"] > 1,
            what="an attempt",
        )
        await kept.settled()

    assert set(before) <= set(kept.slot_files())
    assert len(kept.slot_files()) == kept.facts()["conversations"]


async def test_second_proxy_does_without_the_library(
    kept: Kept, tmp_path: Path, command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with kept.life() as life:
        await told(kept, life, "red")
        async with (
            keeping(kept.folder, command, SETTINGS) as second, second.life() as other,
        ):  # fmt: skip
            said = await say(second, other, text_of("red"))

    assert said.cached == 0
    assert "another swapchart uses" in caplog.text
    assert len(descriptions(kept)) == 1


async def test_newer_library_is_left_unchanged(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.folder.mkdir(exist_ok=True)
    name = f"{library_prefix(NAME)}-0123456789abcdef.kv"
    (kept.folder / name).write_bytes(b"newer")
    (kept.folder / f"{name}.json").write_text('{"version": 99}')
    async with kept.life() as life:
        await say(kept, life, text_of("red"))
        await life.save()
        await kept.settled()

    assert (kept.folder / name).read_bytes() == b"newer"
    assert "version 99, expected 1: it was written by a newer program" in caplog.text
    assert len(kept.entries()) == 1  # as without a library


async def test_useless_restores_end_the_library(tmp_path: Path) -> None:
    """A server whose restores are of no use is asked for two, and then left alone."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    argv = demo_command(tmp_path / "model.bin", "--forgetful", slots=2)
    async with keeping(tmp_path / "kv", argv, SETTINGS) as kept, kept.life() as life:
        for _ in range(2):
            for word in WORDS:
                await say(kept, life, text_of(word))
        restores = kept.facts()["restores"]
        await say(kept, life, text_of("red"))

    assert kept.facts()["verdict"] == "no-op"
    assert kept.facts()["restores"] == restores == 2


async def test_quota_removes_the_least_recently_used(tmp_path: Path, command: list[str]) -> None:
    settings = replace(SETTINGS, library_bytes=10_000)
    async with keeping(tmp_path / "kv", command, settings) as kept, kept.life() as life:
        for word in WORDS:
            await say(kept, life, text_of(word))
        await life.save()  # no further save follows
        await kept.settled()
        found = descriptions(kept)

    assert any(one["words"].startswith("tree") for one in found)
    assert sum(one["size"] for one in found) <= 10_000
    assert 1 <= len(found) < 6
    assert {path.stat().st_size for path in kept.slot_files()} == {one["size"] for one in found}


async def test_descriptions_are_written_one_after_the_other(kept: Kept) -> None:
    """The last of many updates at once is on the disk, and one that was removed stays removed."""
    async with kept.life() as life:
        await told(kept, life, "red", "blue")
        library = director_of(kept)._library
        red, blue = sorted(library.all(), key=lambda one: one.words, reverse=True)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(library.update, replace(red, restores=number))
                tasks.start_soon(library.update, replace(blue, restores=number))
            tasks.start_soon(library.forget, blue.file)
        found = descriptions(kept)

    assert [(one["file"], one["restores"]) for one in found] == [(red.file, 49)]
    assert [path.name for path in kept.slot_files()] == [red.file]


def test_store_opens_after_a_kill_in_the_middle_of_a_save(tmp_path: Path) -> None:
    """A slot file without a description is unknown, and so is a description without a file."""
    store = ConversationStore(NAME, tmp_path)
    prefix = library_prefix(NAME)
    (tmp_path / f"{prefix}-1.kv").write_bytes(b"half")
    (tmp_path / f"{prefix}-2.kv.json").write_text("{")
    (tmp_path / "of-a-user.kv").write_bytes(b"mine")

    assert store.open() == []
    assert os.listdir(tmp_path) == ["of-a-user.kv"]  # noqa: PTH208
