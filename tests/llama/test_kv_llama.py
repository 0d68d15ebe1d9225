"""What was measured of llama-server's slots, and that the keeper holds its own against it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tools import raw
from tools.kv import EAGER, NAME, STORY, Kept, keeping, warnings_of
from tools.kv_library import SETTINGS, say, text_of, told
from tools.llama import LlamaServer, candidates, only_program, refusal
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.kv.settings import KvSettings

pytestmark = [pytest.mark.llama, pytest.mark.slow, pytest.mark.anyio]

LONG = STORY * 30
OTHER = "a word for the model and a cache for the stone on a tree by the river at one time "


def kept_llama(
    folder: Path, llama: LlamaServer, model: Path, *, slots: int = 1, ctx: int = 8192,
    extra: Sequence[str] = (), settings: KvSettings = EAGER,
) -> AbstractAsyncContextManager[Kept]:  # fmt: skip
    argv = llama.argv(model, 0, slots=slots, ctx=ctx, extra=extra)
    at = argv.index("--port")
    del argv[at : at + 2]
    return keeping(folder / "kv", argv, settings, env=dict(llama.env))


async def one_saved(kept: Kept, text: str = LONG) -> int:
    async with kept.life() as life:
        await life.ask(text)
        await life.save()
        await kept.settled()
    (entry,) = kept.entries()
    tokens: int = entry["tokens"]
    return tokens


async def test_restored_prompt_evaluates_one_token(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        tokens = await one_saved(kept)
        async with kept.life() as life:
            warm = (await life.ask(LONG))["timings"]

        assert tokens > 1000
        assert (warm["prompt_n"], warm["cache_n"]) == (1, tokens - 2)
        assert kept.facts()["verdict"] == "works"


async def test_real_model_continues_after_a_restore(
    smollm2_llama: LlamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """The same text as from the cache of the process that was, and no reading."""
    text = "Name three colours of the rainbow, and one animal for each of them, please. " * 3
    async with kept_llama(tmp_path, smollm2_llama, smollm2, ctx=1024) as kept:
        async with kept.life() as life:
            await life.ask(text, 8)
            before = await life.ask(text, 8)
            await life.save()
        async with kept.life() as life:
            after = await life.ask(text, 8)

    assert after["timings"]["prompt_n"] == 1
    assert after["choices"][0]["text"] == before["choices"][0]["text"] != ""


# ---- several slots
async def test_four_conversations_are_restored(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    texts = [f"{first} " + OTHER * 12 for first in ("red", "blue", "green", "stone")]
    async with kept_llama(tmp_path, real_llama, tiny_gguf, slots=4, ctx=16384) as kept:
        async with kept.life() as life:
            for number, text in enumerate(texts):
                await life.ask(text, id_slot=number)
            await life.save()
        async with kept.life() as life:
            read = [(await life.ask(text))["timings"]["prompt_n"] for text in texts]

    assert read == [1, 1, 1, 1]


async def test_shared_prefix_uses_one_slot_without_an_option(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    """With a long system prompt conversations evict each other, so say ``-sps 0.9``."""
    only_program(real_llama)
    texts = [STORY * 10 + f"{word} " * 150 for word in ("red", "blue")]
    saved = {}
    for extra in ([], ["-sps", "0.9"]):
        folder = tmp_path / f"sps{len(extra)}"
        folder.mkdir()
        async with kept_llama(folder, real_llama, tiny_gguf, slots=2, extra=extra) as kept:
            async with kept.life() as life:
                for text in texts:
                    await life.ask(text)
                await life.save()
                await kept.settled()
            saved[len(extra)] = len(kept.entries())

    assert saved == {0: 1, 2: 2}


async def test_server_without_parallel_keeps_the_last_conversation_only(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Idle slots are moved to where they cannot be saved; the keeper warns of that."""
    only_program(real_llama)
    argv = [*real_llama.command, "--model", str(tiny_gguf), "--ctx-size", "8192"]
    async with keeping(tmp_path / "kv", argv, env=dict(real_llama.env)) as kept:
        async with kept.life() as life:
            for first in ("red", "blue", "green"):
                await life.ask(f"{first} " + OTHER * 12)
            await life.save()
            await kept.settled()

        assert len(kept.entries()) == 1
    assert any("without `--parallel N`" in text for text in warnings_of(caplog))


@pytest.mark.parametrize("has_ram", [True, False], ids=["cache", "no cache"])
async def test_longer_match_in_the_servers_cache_in_ram_is_left_to_it(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, has_ram: bool
) -> None:
    """A restore would be of less; where that cache is off, two wrong guesses show it."""
    extra = [] if has_ram else ["--cache-ram", "0"]
    context = kept_llama(
        tmp_path, real_llama, tiny_gguf, slots=2, ctx=16384, extra=extra, settings=SETTINGS
    )
    found = []
    async with context as kept, kept.life() as life:
        await told(kept, life, "red")
        kept.is_idle = False
        kept.cache().paced(SETTINGS).budget.spend(10**12, time.monotonic())  # no save any more
        for repeats in (30, 32, 34):
            text = text_of("red", repeats)
            await say(kept, life, text)
            for word in ("blue", "green"):
                await say(kept, life, text_of(word))
            found.append(await say(kept, life, text))

    if has_ram:
        assert [said.source for said in found] == ["server"] * 3
        assert min(said.cached for said in found) > 2000
    else:
        assert [said.source for said in found[::2]] == ["", "library"]
        assert 1000 < found[2].cached < 2000


async def test_unrelated_prompt_takes_the_least_valuable_slot(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Restores go from slot 0 on by value, and the server takes the last it has not used."""
    async with kept_llama(tmp_path, real_llama, tiny_gguf, slots=2) as kept:
        async with kept.life() as life:
            await life.ask("red " + OTHER * 12, id_slot=0)
            await life.ask("blue " + OTHER * 20, id_slot=1)
            await life.save()
        async with kept.life() as life:
            await life.ask("green " + STORY * 10)
            used = [slot["id"] for slot in life.slots() if "id_task" in slot]

    assert used == [1]


# ---- what must never be offered
async def test_truncated_file_never_reaches_the_server(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        await one_saved(kept)
        (path,) = kept.slot_files()
        os.truncate(path, path.stat().st_size - 8)
        async with kept.life() as life:
            assert await life.cached(LONG) == 0
            assert life.child.process.poll() is None


async def test_flipped_bytes_never_reach_the_server(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        await one_saved(kept)
        (path,) = kept.slot_files()
        spoilt = bytearray(path.read_bytes())
        for at in range(len(spoilt) // 2, len(spoilt) // 2 + 64):
            spoilt[at] ^= 0x55
        (kept.folder / "by-hand.kv").write_bytes(spoilt)
        path.write_bytes(spoilt)
        async with kept.life() as life:
            assert await life.cached(LONG) == 0
            body = {"filename": "by-hand.kv"}
            by_hand = raw.call(life.child.port, "POST", "/slots/0?action=restore", value=body)

    assert by_hand.status == 200  # which is why


async def test_other_weights_of_the_same_shape_restore_nothing(
    real_llama: LlamaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_tiny_gguf(tmp_path / "model.gguf")
    async with kept_llama(tmp_path, real_llama, model) as kept:
        await one_saved(kept)
        write_tiny_gguf(model, seed=1)
        async with kept.life() as life:
            assert await life.cached(LONG) == 0

    assert any("file --model" in text for text in warnings_of(caplog))


@pytest.mark.parametrize(
    "change",
    [["--parallel", "2"], ["--ctx-size", "4096"], ["-ctk", "bf16"], ["-fa", "off"]],
    ids=" ".join,
)
async def test_model_of_another_shape_restores_and_loses_nothing(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, change: list[str]
) -> None:
    """The server would answer 400, or worse; it is not even asked."""
    only_program(real_llama)
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        tokens = await one_saved(kept)
        async with kept.life(*change) as life:
            assert await life.cached(LONG) == 0
            await life.save()
        assert kept.facts()["failures"] == 0
        async with kept.life() as life:
            assert await life.cached(LONG) == tokens - 2


async def test_server_without_prompt_cache_saves_nothing_and_is_reported(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    only_program(real_llama)
    extra = ["--no-cache-prompt"]
    async with kept_llama(tmp_path, real_llama, tiny_gguf, extra=extra) as kept:
        for _ in range(2):
            async with kept.life() as life:
                await life.ask(LONG)
                await life.save()
                await kept.settled()
        assert kept.slot_files() == []
        assert "--no-cache-prompt" in kept.facts()["problem"]

    (text,) = warnings_of(caplog)
    assert "with --no-cache-prompt no cache is used" in text


async def test_server_that_hides_its_slots_is_reported(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``--no-slots`` it is unknown which of them holds what."""
    only_program(real_llama)
    extra = ["--no-slots"]
    async with kept_llama(tmp_path, real_llama, tiny_gguf, extra=extra) as kept:
        async with kept.life() as life:
            await life.ask(LONG)
            await life.save()
            await kept.settled()
        assert kept.slot_files() == []

    assert any("GET /slots: status 501" in text for text in warnings_of(caplog))


async def test_irrelevant_options_keep_the_save(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    only_program(real_llama)
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        tokens = await one_saved(kept)
        options = ["-ub", "256", "--alias", "another", "--threads", "1", "--metrics", "-sps", "0.5"]
        async with kept.life(*options) as life:
            assert await life.cached(LONG) == tokens - 2


async def test_another_build_restores_nothing(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their files differ in version; and a newer build may compute otherwise."""
    others = [
        other for other in candidates()
        if other.name != real_llama.name and not refusal(other, tiny_gguf, tmp_path)
    ]  # fmt: skip
    if not others:
        pytest.skip("there is one build only that this CPU runs")
    async with kept_llama(tmp_path, real_llama, tiny_gguf) as kept:
        await one_saved(kept)
    async with kept_llama(tmp_path, others[0], tiny_gguf) as kept, kept.life() as life:
        assert await life.cached(LONG) == 0

    assert any("build: " in text for text in warnings_of(caplog))


async def test_api_key_of_the_server_is_used(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    only_program(real_llama)
    extra = ["--api-key", "secret-key"]
    async with kept_llama(tmp_path, real_llama, tiny_gguf, extra=extra) as kept:
        async with kept.life() as life:
            raw.call(
                life.child.port, "POST", "/v1/completions",
                value={"prompt": LONG, "max_tokens": 2},
                headers={"authorization": "Bearer secret-key"}, timeout_s=60.0,
            )  # fmt: skip
            await life.save()
            await kept.settled()

        assert len(kept.entries()) == 1
        assert "secret-key" not in kept.manifest_path.read_text()


async def test_server_key_that_is_unknown_is_reported(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    only_program(real_llama)
    keys = tmp_path / "keys"
    keys.write_text("secret-key")
    extra = ["--api-key-file", str(keys)]
    async with (
        kept_llama(tmp_path, real_llama, tiny_gguf, extra=extra) as kept,
        kept.life() as life,
    ):
        await life.save()

    assert all("status 401" in text for text in warnings_of(caplog))
    assert len(warnings_of(caplog)) == 2


# ---- sliding windows
@pytest.fixture
def window(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "window.gguf", window=64)


async def by_hand(kept: Kept) -> tuple[int, int]:
    """Save, start anew and restore by hand; returns tokens restored, and then reused."""
    body = {"filename": "by-hand.kv"}
    async with kept.life(restore=False) as life:
        await life.ask(LONG)
        raw.call(life.child.port, "POST", "/slots/0?action=save", value=body)
    async with kept.life(restore=False) as life:
        answer = raw.call(life.child.port, "POST", "/slots/0?action=restore", value=body)
        assert answer.status == 200
        return answer.json()["n_restored"], await life.cached(LONG)


async def test_sliding_window_restores_only_if_it_is_full(
    real_llama: LlamaServer, window: Path, tmp_path: Path
) -> None:
    """What the server does: 200 and the right number, and then everything is read again."""
    only_program(real_llama)
    found = {}
    for extra in ([], ["--swa-full"]):
        folder = tmp_path / f"by-hand{len(extra)}"
        folder.mkdir()
        async with kept_llama(folder, real_llama, window, extra=extra) as kept:
            found[len(extra)] = await by_hand(kept)

    assert found[0][0] == found[1][0] > 1000
    assert found[0][1] == 0
    assert found[1][1] == found[1][0] - 2


async def test_sliding_window_is_refused_and_logged_once(
    real_llama: LlamaServer, window: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept_llama(tmp_path, real_llama, window) as kept:
        for _ in range(2):
            async with kept.life() as life:
                await life.ask(LONG)
                await life.save()
                await kept.settled()
        assert kept.slot_files() == []

    (text,) = warnings_of(caplog)
    assert text.startswith(f"{NAME}: kv: nothing is kept: gemma3 attends within a sliding window")
    assert "64 tokens" in text
    assert "--swa-full" in text


@pytest.mark.parametrize("allows", [False, True])
async def test_sliding_window_is_saved_only_if_configured(
    real_llama: LlamaServer, window: Path, tmp_path: Path, allows: bool
) -> None:
    """``--swa-full`` alone is not enough: a prompt that leaves early may get wrong answers."""
    only_program(real_llama)
    settings = KvSettings(min_tokens=10, timeout_s=20.0, allows_swa=allows)
    extra = ["--swa-full"]
    async with kept_llama(tmp_path, real_llama, window, extra=extra, settings=settings) as kept:
        async with kept.life() as life:
            await life.ask(LONG)
            await life.save()
            await kept.settled()
        async with kept.life() as life:
            read = (await life.ask(LONG))["timings"]["prompt_n"]

        assert len(kept.slot_files()) == allows
        assert (read == 1) == allows
