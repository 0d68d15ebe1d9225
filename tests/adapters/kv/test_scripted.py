"""A llama-server that misbehaves as asked: what it does to a save or a restore, and what is left.

Each is a real server on loopback that plays a part; the builds that do so cannot be had here.
"""

from __future__ import annotations

import asyncio
import json
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tools.kv import EAGER, NAME, is_free, warnings_of
from tools.net import wait_until_async
from tools.scripted_upstream import Upstream, serving

from swapchart.adapters.kv import manager as keeper_module
from swapchart.adapters.kv.effectiveness import CacheUsage, cache_usage
from swapchart.adapters.kv.files import FolderLock, KvStoreError
from swapchart.adapters.kv.manager import KvManager, Place
from swapchart.adapters.kv.manifest import ModelStore
from swapchart.adapters.kv.model_cache import ModelCache
from swapchart.adapters.kv.settings import KvSettings
from swapchart.runtime import CallAction, Command, HookContext, ServiceSpec, fence

pytestmark = pytest.mark.anyio

#: (status, answer) of a slot action, or None: it is not answered, or the connection is closed.
Part = Callable[[int, str, str], tuple[int, dict[str, Any]] | None]


class Play:
    """A server with two slots, 400 and 300 tokens in them.

    Attributes:
        folder: Where it saves.
        part: What it does instead of a slot action; None: what it should.
        asked: Slot actions, in order.
        slots_status: Of ``/slots``.
        lora: Of the last request of slot 1.
        hangs: Where there is no answer, nothing is closed either.
        gate: Slot actions wait for it.
        is_asleep: Its caches are gone, and slot actions would wake it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.weights = folder, folder / "weights"
        self.weights.write_bytes(b"weights")
        self.part: Part | None = None
        self.asked: list[tuple[int, str]] = []
        self.slots_status, self.hangs, self.is_asleep = 200, False, False
        self.lora: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def script(self, up: Upstream, reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            body = await up.read_request(reader)
            method, target, _ = up.requests[-1][0].decode().split(" ", 2)
            if target.startswith("/slots/"):
                await self.gate.wait()
            answer = self.answer(method, target, body)
            if answer is None and self.hangs:
                await reader.read()
            if answer is None:
                return
            data = json.dumps(answer[1]).encode()
            head = f"HTTP/1.1 {answer[0]} OK\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any] | None:
        if target == "/props":
            settings = {"n_ctx": 4096, "params": {"lora": []}}
            return 200, {
                "total_slots": 2, "model_path": str(self.weights), "build_info": "b1",
                "default_generation_settings": settings, "is_sleeping": self.is_asleep,
            }  # fmt: skip
        if target == "/slots":
            rows = [{"id_task": 7, "n_prompt_tokens": count} for count in (400, 300)]
            rows[1]["params"] = {"lora": self.lora}  # type: ignore[assignment]
            return self.slots_status, rows if self.slots_status == 200 else {}
        number, action = int(target.split("/")[2][0]), target.rpartition("=")[2]
        self.asked.append((number, action))
        if action == "erase":
            return 200, {"n_erased": 1}
        name = json.loads(body)["filename"]
        if self.part is not None:
            return self.part(number, action, name)
        return self.do(number, action, name)

    def do(self, number: int, action: str, name: str) -> tuple[int, dict[str, Any]]:
        """Do what a slot action should."""
        path = self.folder / name
        if action == "save":
            count = 400 - 100 * number
            tokens = range(1000 * number, 1000 * number + count)
            path.write_bytes(struct.pack(f"<III{count}i", 0x67677371, 2, count, *tokens))
            return 200, {"n_saved": count, "n_written": 12 + 4 * count}
        size = path.stat().st_size
        return 200, {"n_restored": (size - 12) // 4, "n_read": size}


class Stage:
    """A keeper, and the server that it has to do with."""

    def __init__(self, play: Play, keeper: KvManager, port: int) -> None:
        self.play, self.keeper, self.port = play, keeper, port
        self.settings = EAGER

    async def hook(self, point: str, index: int) -> None:
        """Run one hook of ours as the runtime would."""
        await self.prepared(point, index)()
        if self.keeper.facts(NAME) is not None:
            await self.model.settled()

    def prepared(self, point: str, index: int) -> Callable[[], Awaitable[None]]:
        argv = ("llama-server", "--parallel", "2", "--slot-save-path", str(self.play.folder))
        plain = ServiceSpec(name=NAME, command=Command(argv=argv), endpoint="http://127.0.0.1:1")
        action = self.keeper.add_hooks(plain, self.settings).hooks[point][index].action
        assert isinstance(action, CallAction)
        context = HookContext(
            service=NAME, point=point, endpoint=f"http://127.0.0.1:{self.port}", pid=1,
            incarnation=1, reason="test", after_healthy="completed",
        )  # fmt: skip
        return partial(action.function, context)

    async def save(self) -> None:
        await self.hook("beforeStop", -1)

    async def restore(self) -> None:
        self.play.asked.clear()
        await self.hook("afterHealthy", 0)

    @property
    def model(self) -> ModelCache:
        model = self.keeper.open(NAME, Place(self.play.folder))
        assert model is not None
        return model

    def tokens(self) -> list[int]:
        """Return what is kept, after a look at the disk: tokens, the largest first."""
        store = self.model.state.store
        assert {path.name for path in self.play.folder.glob("*.kv")} == {
            entry.file for entry in store.manifest.entries
        }
        return sorted((entry.tokens for entry in store.manifest.entries), reverse=True)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    play, keeper = Play(tmp_path), KvManager(None)
    async with serving(play.script) as (up, _), keeper.running():
        yield Stage(play, keeper, up.port)


# ---- saves
async def test_save_and_restore_begin_with_the_largest_slot(stage: Stage) -> None:
    await stage.save()
    assert stage.tokens() == [400, 300]
    await stage.restore()

    assert stage.play.asked == [(0, "restore"), (1, "restore")]
    assert [entry.tokens for entry in stage.model.state.run.restored.values()] == [400, 300]


async def test_save_of_a_refused_slot_does_not_affect_the_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """As some builds refuse one that holds images: 501. It is said once, and tried again."""
    stage.play.part = lambda number, action, name: (
        (501, {"error": {"message": "not with images"}})
        if number == 0
        else stage.play.do(number, action, name)
    )
    for _ in range(2):
        await stage.save()

        assert stage.tokens() == [300]
    assert stage.model.facts()["failures"] == 2
    (text,) = warnings_of(caplog)
    assert text == f"{NAME}: kv: not saved: save of slot 0: status 501: not with images"


async def test_server_that_dies_in_a_save_keeps_earlier_saves(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed with half a file written: that one goes, the ones before stay."""
    await stage.save()

    def die(number: int, action: str, name: str) -> None:
        (stage.play.folder / name).write_bytes(b"half")

    stage.play.part = die
    await stage.save()

    assert stage.tokens() == [400, 300]
    assert any("what was saved before is kept" in text for text in warnings_of(caplog))


async def test_save_that_hangs_keeps_earlier_slots(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The largest was written when its time was over."""
    stage.settings = KvSettings(min_tokens=10, timeout_s=0.5)
    stage.play.hangs = True
    stage.play.part = lambda number, action, name: (
        stage.play.do(number, action, name) if number == 0 else None
    )
    await stage.save()

    assert stage.tokens() == [400]
    assert any("save canceled after" in text for text in warnings_of(caplog))


@pytest.mark.parametrize("written", [0, 999])
async def test_save_shorter_than_reported_is_not_kept(
    stage: Stage, caplog: pytest.LogCaptureFixture, written: int
) -> None:
    """A full disk, or a folder that has another name in the server's container."""

    def part(number: int, action: str, name: str) -> tuple[int, dict[str, Any]]:
        (stage.play.folder / name).write_bytes(b"x" * written)
        return 200, {"n_saved": 400, "n_written": 1000}

    stage.play.part = part
    await stage.save()

    assert stage.tokens() == []
    (text,) = warnings_of(caplog)
    assert ("is the disk full" in text) == bool(written)
    assert ("configure it as kv.dir" in text) == (not written)


async def test_slot_of_other_adapters_is_left_out(stage: Stage) -> None:
    """A request that asked for a LoRA of its own filled it: for others that cache is wrong."""
    stage.play.lora = [{"id": 0, "scale": 0.5}]
    await stage.save()

    assert stage.tokens() == [400]


async def test_server_that_hides_its_slots_is_reported(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """With --no-slots: nothing is asked of it, and what was saved stays."""
    await stage.save()
    stage.play.slots_status = 501
    stage.play.asked.clear()
    await stage.save()

    assert stage.play.asked == []
    assert stage.tokens() == [400, 300]
    assert any("GET /slots: status 501" in text for text in warnings_of(caplog))


async def test_server_that_sleeps_is_not_woken_for_a_save(stage: Stage) -> None:
    await stage.save()
    stage.play.is_asleep = True
    stage.play.asked.clear()
    await stage.save()

    assert stage.play.asked == []
    assert stage.tokens() == [400, 300]


async def test_quota_leaves_out_the_slot_that_is_too_large_and_no_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not even written, once it is known how large it would be."""
    await stage.save()
    stage.settings = KvSettings(min_tokens=10, timeout_s=20.0, max_bytes=1400)
    stage.model.state.store.forget(
        *(entry.file for entry in stage.model.state.store.manifest.entries)
    )
    stage.play.asked.clear()
    await stage.save()

    assert stage.play.asked == [(1, "save")]
    assert stage.tokens() == [300]
    assert any("more than maxBytes (1400)" in text for text in warnings_of(caplog))


async def test_manifest_that_cannot_be_written_keeps_the_old_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Old manifest and old files belong together; the new files go."""
    await stage.save()
    before = sorted(path.name for path in stage.play.folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        await stage.save()

    assert sorted(path.name for path in stage.play.folder.iterdir()) == before
    assert stage.tokens() == [400, 300]
    assert any("No space left on device" in text for text in warnings_of(caplog))
    await stage.restore()
    assert len(stage.model.state.run.restored) == 2


@pytest.mark.parametrize("wish", ["off", "removed"])
async def test_kv_switched_off_during_a_save_completes_it(stage: Stage, wish: str) -> None:
    """The save under way ends well, and only then the folder is free for others."""
    stage.play.gate.clear()
    task = asyncio.get_running_loop().create_task(stage.hook("beforeStop", -1))
    await wait_until_async(lambda: len([*stage.play.folder.glob("*.kv")]) == 1, what="a save")
    stage.keeper.apply_settings({NAME: None} if wish == "off" else {})
    with pytest.raises(KvStoreError, match="another swapchart"):
        FolderLock(stage.play.folder)
    stage.play.gate.set()
    await task
    model = ModelStore(NAME, stage.play.folder)

    await wait_until_async(lambda: is_free(stage.play.folder), what="the folder free")
    model.read()
    assert sorted(entry.tokens for entry in model.manifest.entries) == [300, 400]
    assert [model.verify(entry) for entry in model.manifest.entries] == ["", ""]
    assert stage.keeper.facts(NAME) is None


async def test_kv_switched_off_before_a_save_saves_nothing(stage: Stage) -> None:
    """Its process was started with a hook for that, and goes without."""
    await stage.save()
    before = stage.tokens()
    hook = stage.prepared("beforeStop", -1)
    stage.keeper.apply_settings({NAME: None})
    stage.play.asked.clear()
    await hook()

    assert stage.play.asked == []
    assert before == [400, 300]
    await wait_until_async(lambda: is_free(stage.play.folder), what="the folder free")
    assert len([*stage.play.folder.glob("*.kv")]) == 2


# ---- restores
async def test_restore_that_hangs_is_a_plain_start_and_no_crash(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its deadline ends it; nothing is held against the file, and the next start has it."""
    await stage.save()
    stage.settings = KvSettings(min_tokens=10, timeout_s=0.5)
    stage.play.hangs, stage.play.part = True, lambda number, action, name: None
    await stage.restore()
    assert stage.model.state.run.restored == {}
    assert any("restore canceled after 0.5 s" in text for text in warnings_of(caplog))
    stage.play.part, stage.settings = None, EAGER
    await stage.restore()

    assert len(stage.model.state.run.restored) == 2


async def test_restore_that_killed_its_server_is_not_retried(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The mark was on the disk before the restore began; the other file is still good."""
    await stage.save()
    stage.play.part = lambda number, action, name: None
    await stage.restore()
    assert stage.play.asked == [(0, "restore")]
    stage.play.part = None
    await stage.restore()

    assert stage.play.asked == [(0, "restore")]
    assert [entry.tokens for entry in stage.model.state.run.restored.values()] == [300]
    assert stage.tokens() == [300]
    assert any("a server crashed when it was restored" in text for text in warnings_of(caplog))


@pytest.mark.parametrize(
    "answer",
    [(400, {"error": {"message": "invalid slot save file"}}), (200, {}), (200, {"n_restored": 0})],
)
async def test_restore_that_is_refused_drops_that_file_only(
    stage: Stage, caplog: pytest.LogCaptureFixture, answer: tuple[int, dict[str, Any]]
) -> None:
    """The slot may hold anything then, so it is emptied; the next file goes into it."""
    await stage.save()
    refused: list[str] = []

    def part(number: int, action: str, name: str) -> tuple[int, dict[str, Any]]:
        refused.append(name)
        return answer if len(refused) == 1 else stage.play.do(number, action, name)

    stage.play.part = part
    await stage.restore()

    assert stage.play.asked == [(0, "restore"), (0, "erase"), (0, "restore")]
    assert stage.tokens() == [300]
    assert sum("were rejected" in text for text in warnings_of(caplog)) == 1


async def test_restore_of_fewer_tokens_has_failed(stage: Stage) -> None:
    """200 with another number of tokens: the slot is emptied."""
    await stage.save()
    stage.play.part = lambda number, action, name: (200, {"n_restored": 299, "n_read": 1212})
    await stage.restore()

    assert stage.model.state.run.restored == {}
    assert stage.play.asked == [(0, "restore"), (0, "erase")] * 2


async def test_restore_interrupted_by_a_stop_does_not_count_against_the_file(
    stage: Stage,
) -> None:
    """The hook is cancelled by the runtime, not by its own deadline."""
    await stage.save()
    stage.play.hangs, stage.play.part = True, lambda number, action, name: None
    task = asyncio.get_running_loop().create_task(stage.restore())
    await wait_until_async(lambda: stage.play.asked, what="a restore")
    task.cancel()
    await asyncio.wait({task})
    stage.model.state.store.read()

    assert [entry.is_suspect for entry in stage.model.state.store.manifest.entries] == [
        False,
        False,
    ]


# ---- responses
@dataclass
class Answer:
    """A finished exchange, as the keeper sees it."""

    body_chunks: tuple[bytes, ...]
    model: str = NAME
    status: int = 200
    first_chunk: bytes = b""


@pytest.mark.parametrize("number", ["9" * 309, "9" * 310, "9" * 4000, "1e999", "-1", "x"])
async def test_response_number_is_absurd_later_responses_still_count(
    stage: Stage, number: str
) -> None:
    """One number of 310 digits ended the proxy with all models."""
    await stage.save()
    await stage.restore()
    text = '{"timings":{"cache_n":%s,"prompt_n":50,"prompt_ms":9}}'
    for told in (number, "390"):
        stage.keeper.note(Answer((text.replace("%s", told).encode(),)))
    await wait_until_async(lambda: not stage.keeper.has_unread_responses)

    facts = stage.keeper.facts(NAME)
    assert facts is not None
    assert facts["reused_tokens_total"] == 390


async def test_learning_raises_later_responses_still_count(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with one response, it is logged, left out, and the next one counts."""
    await stage.save()
    await stage.restore()
    monkeypatch.setattr(fence, "FIRST_PAUSE_S", 0.01)
    calls: list[bytes] = []

    def wrong_once(ends: bytes) -> CacheUsage | None:
        calls.append(ends)
        if len(calls) == 1:
            raise OverflowError("cannot convert float infinity to integer")
        return cache_usage(ends)

    monkeypatch.setattr(keeper_module, "cache_usage", wrong_once)
    for _ in range(2):
        stage.keeper.note(Answer((b'{"timings":{"cache_n":390,"prompt_n":50}}',)))
    await wait_until_async(lambda: len(calls) == 2 and not stage.keeper.has_unread_responses)

    facts = stage.keeper.facts(NAME)
    assert facts is not None
    assert facts["reused_tokens_total"] == 390
    assert "KvManager._learn failed" in caplog.text
