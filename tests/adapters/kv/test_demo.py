"""Keeping conversations, on demo servers: each trap, and each kind of bad input."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tools.kv import EAGER, NAME, STORY, Kept, demo_command, keeping, warnings_of
from tools.rows import row

from swapchart.adapters.kv.files import FolderLock, prefix_of
from swapchart.adapters.kv.manager import Place
from swapchart.adapters.kv.settings import KvSettings
from swapchart.runtime import Hook, RunAction

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OTHER = "a short word for the cat and for the dog on a mat of blue wool by the sea "


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
async def kept(tmp_path: Path, model: Path) -> AsyncIterator[Kept]:
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        yield kept


async def one_saved(kept: Kept, text: str = STORY * 5) -> int:
    """Live once and save one conversation; returns its tokens."""
    async with kept.life() as life:
        await life.ask(text)
        await life.save()
        await kept.settled()
    (entry,) = kept.entries()
    tokens: int = entry["tokens"]
    return tokens


async def test_restored_prompt_is_not_evaluated_again(kept: Kept) -> None:
    tokens = await one_saved(kept)
    async with kept.life() as life:
        cached = await life.cached(STORY * 5)

    assert tokens > 50
    assert cached >= tokens - 3
    assert kept.facts()["verdict"] == "works"
    assert kept.facts()["restored_tokens_total"] == tokens


async def test_restore_works_after_a_restart_of_the_proxy(tmp_path: Path, model: Path) -> None:
    """The proxy itself may be started again in between."""
    for round_ in range(2):
        async with keeping(tmp_path / "kv", demo_command(model)) as kept, kept.life() as life:
            cached = await life.cached(STORY * 5)
            await life.save()
        assert (cached > 50) == bool(round_)


@row("E10")
async def test_saved_files_are_private(kept: Kept) -> None:
    """Whatever the server's own umask is."""
    await one_saved(kept)
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()}

    assert modes[".kv"] == modes[".json"] == 0o600


@row("E10")
async def test_saved_file_names_hold_no_model_name(tmp_path: Path, model: Path) -> None:
    """No text of a configuration or a request becomes part of a path."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
        names = [path.name for path in kept.folder.iterdir()]

    assert not any(NAME in name for name in names)
    assert len(names) == 3


def replace_weights(model: Path, content: bytes) -> None:
    """Put other weights there, and let the file look as old as it did."""
    before = model.stat()
    model.write_bytes(content)
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))


# ---- traps
@row("E09")
async def test_server_that_reuses_nothing_is_detected(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """200 proves nothing: the next answers do, and then nothing is saved any more."""
    argv = demo_command(model, "--forgetful")
    async with keeping(tmp_path / "kv", argv) as kept:
        for _ in range(3):
            async with kept.life() as life:
                await life.ask(STORY * 5)
                await life.save()
                await kept.settled()
        facts = kept.facts()
        async with kept.life() as life:
            assert kept.slot_files() == []
            await life.ask(STORY * 5)
            await life.save()
            await kept.settled()

    assert facts["verdict"] == "no-op"
    assert facts["restores"] == 2
    assert kept.slot_files() == []
    assert (kept.facts()["restores"], kept.facts()["saves"]) == (2, facts["saves"])
    assert sum("have no effect" in text for text in warnings_of(caplog)) == 1


async def test_small_prompt_does_not_replace_a_conversation(kept: Kept) -> None:
    """A title for the conversation is asked for in its slot, the only one, before the stop."""
    tokens = await one_saved(kept)
    async with kept.life() as life:
        await life.ask(OTHER)
        await life.save()
    async with kept.life() as life:
        cached = await life.cached(STORY * 5)

    assert cached >= tokens - 3


async def test_slot_that_is_empty_replaces_no_save(kept: Kept) -> None:
    tokens = await one_saved(kept)
    async with kept.life(restore=False) as life:
        await life.save()
        await kept.settled()

    assert [entry["tokens"] for entry in kept.entries()] == [tokens]


async def test_conversation_that_moved_on_replaces_its_own_save(kept: Kept) -> None:
    """Also when it became shorter: the last words were edited."""
    await one_saved(kept)
    async with kept.life() as life:
        await life.ask(STORY * 4 + "and then it was quiet")
        await life.save()
        await kept.settled()

    assert len(kept.entries()) == len(kept.slot_files()) == 1
    async with kept.life() as life:
        assert await life.cached(STORY * 4 + "and then it was quiet") > 60


async def test_new_conversation_replaces_an_old_one_eventually(kept: Kept) -> None:
    """A conversation that is not continued is worth half after each run."""
    await one_saved(kept)
    for _ in range(2):
        async with kept.life() as life:
            await life.ask(OTHER * 3)
            await life.save()
    await kept.settled()
    async with kept.life() as life:
        cached = await life.cached(OTHER * 3)

    assert cached > 40


async def test_file_that_vanished_is_not_restored(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    await one_saved(kept)
    kept.slot_files()[0].unlink()
    async with kept.life() as life:
        assert await life.cached(STORY * 5) == 0
        assert "restore" not in life.child.output()

    assert any("lost" in text for text in warnings_of(caplog))


async def test_prompt_that_leaves_the_saved_one_is_read_from_there_on(
    kept: Kept,
) -> None:
    """Another template, tools or an edit: what comes before it is reused, and no more."""
    await one_saved(kept, STORY * 5)
    async with kept.life() as life:
        answer = await life.ask(STORY * 3 + OTHER * 3)
        again = await life.ask(STORY * 3 + OTHER * 3)
    words = len((STORY * 3).split())

    assert words - 3 <= answer["timings"]["cache_n"] <= words + 3
    assert answer["choices"][0]["text"] == again["choices"][0]["text"]
    assert kept.facts()["verdict"] == "works"


async def test_slot_that_costs_more_than_it_saves_is_not_saved(tmp_path: Path, model: Path) -> None:
    """The demo server reads prompts at once, so nothing is worth a save once that is known."""
    argv = demo_command(model, "--prefill-tokens-per-second", "0")
    async with keeping(tmp_path / "kv", argv) as kept, kept.life() as life:
        await life.ask(STORY * 5)
        await life.save()  # nothing is known of what it costs yet
        await life.ask(STORY * 9)
        await life.save()
        await kept.settled()

        assert kept.facts()["saves"] == 1


async def test_slots_that_are_small_are_not_saved(tmp_path: Path, model: Path) -> None:
    settings = KvSettings(min_tokens=10_000)
    async with keeping(tmp_path / "kv", demo_command(model), settings) as kept, kept.life() as life:
        await life.ask(STORY * 5)
        await life.save()
        await kept.settled()

    assert kept.slot_files() == []


async def test_changed_launch_command_restores_nothing(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does what was saved get lost: with the old line it is good again."""
    tokens = await one_saved(kept)
    async with kept.life("--ctx-size", "4096") as life:
        assert await life.cached(STORY * 5) == 0
        await life.save()
    async with kept.life() as life:
        assert await life.cached(STORY * 5) >= tokens - 3

    assert any("tokens per slot: 8192 -> 4096" in text for text in warnings_of(caplog))


async def test_irrelevant_launch_option_keeps_the_save(kept: Kept) -> None:
    tokens = await one_saved(kept)
    async with kept.life("--alias", "demo", "--host", "127.0.0.1") as life:
        cached = await life.cached(STORY * 5)

    assert cached >= tokens - 3


async def test_save_ends_in_its_own_time(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that hangs holds up the stop for no longer than asked for, and loses nothing."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        tokens = await one_saved(kept)
    settings = KvSettings(min_tokens=10, timeout_s=0.3)
    async with keeping(tmp_path / "kv", demo_command(model), settings) as kept:
        async with kept.life() as life:
            await life.ask(STORY * 6)
            life.child.signal(signal.SIGSTOP)
            await life.save()
            life.child.signal(signal.SIGCONT)
        await kept.settled()

        assert [entry["tokens"] for entry in kept.entries()] == [tokens]
    assert any("0.3 s" in text for text in warnings_of(caplog))


async def test_restore_that_crashed_a_server_is_not_retried(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """It died of SIGABRT between its restore and its first answer."""
    await one_saved(kept)
    async with kept.life() as life:
        life.child.signal(signal.SIGABRT)
        life.child.wait()
        life.died(signal.SIGABRT)
    async with kept.life() as life:
        assert await life.cached(STORY * 5) == 0

    assert any("crash" in text for text in warnings_of(caplog))


async def test_server_killed_by_a_signal_does_not_count_against_the_restore(kept: Kept) -> None:
    tokens = await one_saved(kept)
    async with kept.life() as life:
        life.child.signal(signal.SIGKILL)
        life.child.wait()
        life.died(signal.SIGKILL)
    async with kept.life() as life:
        assert await life.cached(STORY * 5) >= tokens - 3


async def test_crash_after_a_response_does_not_count_against_the_restore(kept: Kept) -> None:
    tokens = await one_saved(kept)
    async with kept.life() as life:
        await life.ask(STORY * 5)
        life.died(signal.SIGABRT)
    async with kept.life() as life:
        assert await life.cached(STORY * 5) >= tokens - 3


async def test_restore_that_never_ended_is_not_retried(kept: Kept) -> None:
    """The mark that is set before each restore is on the disk, whatever happens to the proxy."""
    await one_saved(kept)
    async with kept.life(restore=False) as life:
        life.child.signal(signal.SIGKILL)
        life.child.wait()
        await life.restore()  # finds no server
    marked = [entry["is_suspect"] for entry in kept.entries()]

    assert marked == [False]  # it was not asked: the connection had failed before


async def test_restore_that_is_interrupted_saves_nothing(kept: Kept) -> None:
    """A stop while slots are being restored must not put less in the place of more."""
    tokens = await one_saved(kept)
    async with kept.life(restore=False) as life:
        await life.ask(STORY * 6)
        await life.save(after_healthy="interrupted")
        await kept.settled()

    assert [entry["tokens"] for entry in kept.entries()] == [tokens]


# ---- bad input
def make_longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def make_foreign(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    path.rename(path.with_suffix(".x"))
    path.symlink_to(path.with_suffix(".x"))


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILERS: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": make_longer, "another file": make_foreign, "a folder": make_folder,
    "a link": make_link, "a pipe": make_pipe,
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILERS)
@row("E08")
async def test_damaged_file_is_never_restored(
    kept: Kept, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A truncated one would abort the server; flipped bytes would be taken without a word."""
    await one_saved(kept)
    SPOILERS[name](kept.slot_files()[0])
    async with kept.life() as life:
        assert await life.cached(STORY * 5) == 0
        assert "restore" not in life.child.output()
        assert life.child.process.poll() is None

    assert sum("lost" in text for text in warnings_of(caplog)) == 1
    assert kept.entries() == []


@row("E08")
async def test_flipped_bit_is_found_at_any_position(kept: Kept) -> None:
    """One bit, at the beginning, the end, and positions between."""
    await one_saved(kept)
    (path,) = kept.slot_files()
    good = path.read_bytes()
    (entry,) = kept.store().manifest.entries
    for at in [0, 13, len(good) // 2, len(good) - 1]:
        spoilt = bytearray(good)
        spoilt[at] ^= 1
        path.write_bytes(spoilt)
        assert "checksum" in kept.store().verify(entry)


async def test_changed_weights_restore_nothing(
    kept: Kept, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same name, size and time of change: a cache of other weights would be silently wrong."""
    await one_saved(kept)
    replace_weights(model, b"WEIGHTS")
    async with kept.life() as life:
        assert await life.cached(STORY * 5) == 0

    assert any("file --model" in text for text in warnings_of(caplog))


async def test_weights_that_return_restore_their_conversation(kept: Kept, model: Path) -> None:
    tokens = await one_saved(kept)
    replace_weights(model, b"WEIGHTS")
    async with kept.life() as life:
        await life.ask(OTHER * 5)
        await life.save()
    replace_weights(model, b"weights")
    async with kept.life() as life:
        assert await life.cached(STORY * 5) >= tokens - 3


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": "99"}', '{"version": 1}', "\x00", "[" * 100_000],
    ids=range(7),
)
async def test_manifest_that_is_invalid_is_moved_aside(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
    kept.manifest_path.write_text(text)
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
        assert kept.manifest_path.with_suffix(".json.bad").read_text() == text

    assert any("is invalid" in warning for warning in warnings_of(caplog))


@pytest.mark.parametrize("name", ["tokens", "size", "saved_at", "save_ms", "misses"])
@pytest.mark.parametrize("number", ["-1", "NaN", "Infinity", "1" + "0" * 400])
async def test_manifest_with_an_impossible_figure_is_moved_aside(
    tmp_path: Path, model: Path, name: str, number: str
) -> None:
    """Nothing of it is computed with; the model starts plainly."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        pass
    entry = {
        "file": f"{prefix_of(NAME)}-00.kv", "fingerprint": "f", "tokens": 100, "size": 1,
        "sha256": "", "saved_at": 1.0, "save_ms": 1.0, "restore_ms": None, "misses": 0,
        "is_suspect": False, name: 7,
    }  # fmt: skip
    whole = {"version": 1, "model": NAME, "entries": [entry], "facts": {}, "learned": {}}
    kept.manifest_path.write_text(json.dumps(whole).replace(f'"{name}": 7', f'"{name}": {number}'))
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        assert kept.facts()["saved_tokens"] == 0

    assert kept.manifest_path.with_suffix(".json.bad").exists()


@row("E10")
async def test_manifest_cannot_name_a_file_elsewhere(tmp_path: Path, model: Path) -> None:
    """Whoever can write it cannot have us delete or restore what is not ours."""
    precious = tmp_path / "precious.kv"
    precious.write_text("x")
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
    value = kept.manifest()
    value["entries"][0]["file"] = "swapchart-/../../precious.kv"
    kept.manifest_path.write_text(json.dumps(value))
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        assert kept.facts()["saved_tokens"] == 0

    assert kept.manifest_path.with_suffix(".json.bad").exists()
    assert precious.read_text() == "x"


async def test_files_of_a_killed_save_are_removed_at_the_next_start(
    tmp_path: Path, model: Path
) -> None:
    """And what is not ours stays."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
        left = kept.slot_files()[0].with_name(kept.slot_files()[0].name[:-6] + "zz.kv")
    left.write_bytes(b"half")
    (kept.folder / "mine.kv").write_bytes(b"by hand")
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        assert not left.exists()
        assert (kept.folder / "mine.kv").exists()
        assert len(kept.entries()) == 1


async def test_folder_of_another_proxy_is_not_used(
    kept: Kept, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second goes without, says so, and harms nothing."""
    await one_saved(kept)
    async with keeping(kept.folder, demo_command(model)) as second, second.life() as life:
        assert await life.cached(STORY * 5) == 0
        await life.save()
        assert "another swapchart uses" in second.facts()["problem"]
    async with kept.life() as life:
        assert await life.cached(STORY * 5) > 50

    assert sum("another swapchart" in text for text in warnings_of(caplog)) == 1


async def test_folder_is_taken_once_the_other_proxy_leaves_it(tmp_path: Path, model: Path) -> None:
    """Its next start asks again, without a restart of the second proxy."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        tokens = await one_saved(kept)
    other = FolderLock(tmp_path / "kv")
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        async with kept.life() as life:
            assert await life.cached(STORY * 5) == 0
        other.close()
        async with kept.life() as life:
            assert await life.cached(STORY * 5) >= tokens - 3

        assert kept.facts()["problem"] is None


@row("E11")
async def test_full_disk_keeps_earlier_saves(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server itself cannot write: a new save has a name of its own, so the old one is whole."""
    limited = ["prlimit", "--fsize=2000", *demo_command(model)]
    async with keeping(tmp_path / "kv", demo_command(model)) as kept, kept.life() as life:
        await life.ask(STORY * 2)
        await life.save()
    async with keeping(tmp_path / "kv", limited) as kept, kept.life() as life:
        await life.ask(STORY * 20)
        await life.save()
        await kept.settled()

        assert len(kept.entries()) == len(kept.slot_files()) == 1
        assert kept.facts()["failures"] == 1
    assert any("not saved" in text for text in warnings_of(caplog))


async def test_disk_that_is_nearly_full_is_not_filled(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = await one_saved(kept)
    real = os.statvfs(kept.folder)
    full = os.statvfs_result((*real[:4], 5, *real[5:]))
    async with kept.life() as life:
        await life.ask(STORY * 6)
        monkeypatch.setattr(os, "statvfs", lambda path: full)
        await life.save()
        await kept.settled()

    assert [entry["tokens"] for entry in kept.entries()] == [tokens]
    assert any("MiB left" in text for text in warnings_of(caplog))


async def test_folder_that_cannot_be_written_costs_the_cache_only(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path("/proc/self")
    async with keeping(folder, demo_command(model)) as kept, kept.life() as life:
        assert await life.cached(STORY * 5) == 0
        await life.save()

    assert sum("cannot be written" in text for text in warnings_of(caplog)) == 1


async def test_server_that_is_no_llama_server_is_left_alone(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it answers to /props: here, a file server's 404."""
    script = (
        "import sys, http.server as h; h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[-1]))"
    )
    argv = [sys.executable, "-c", script]
    (tmp_path / "health").write_text("ok")
    async with keeping(tmp_path / "kv", argv) as kept, kept.life() as life:
        await life.save()

    assert warnings_of(caplog) == [
        f"{NAME}: kv: nothing is kept: the server has no /props of a llama-server"
    ]


# ---- quota
@row("E11")
async def test_quota_of_bytes_holds(tmp_path: Path, model: Path) -> None:
    """The most valuable stay."""
    async with keeping(tmp_path / "kv", demo_command(model, slots=2)) as kept:
        async with kept.life() as life:
            await life.ask(STORY * 5)
            await life.ask(OTHER * 3)
            await life.save()
            await kept.settled()
        sizes = {entry["tokens"]: entry["size"] for entry in kept.entries()}
    largest = sizes[max(sizes)]
    settings = KvSettings(min_tokens=10, max_bytes=largest + 10, timeout_s=20.0)
    async with keeping(tmp_path / "kv", demo_command(model, slots=2), settings) as kept:
        async with kept.life() as life:
            await life.ask(STORY * 5)
            await life.save()
            await kept.settled()

        assert sum(entry["size"] for entry in kept.entries()) <= largest + 10
        assert len(kept.slot_files()) == 1


async def test_saves_beyond_their_age_are_removed(tmp_path: Path, model: Path) -> None:
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        await one_saved(kept)
    value = kept.manifest()
    value["entries"][0]["saved_at"] -= 3600.0
    kept.manifest_path.write_text(json.dumps(value))
    settings = KvSettings(min_tokens=10, max_age_s=60.0)
    async with keeping(tmp_path / "kv", demo_command(model), settings) as kept:
        async with kept.life() as life:
            assert await life.cached(STORY * 5) == 0
        assert kept.slot_files() == []


# ---- several slots
async def test_conversations_are_saved_and_restored_each(tmp_path: Path, model: Path) -> None:
    """Four of them, in four slots, and the server finds each by its beginning."""
    texts = [f"conversation number {number} " + STORY * (number + 2) for number in range(4)]
    async with keeping(tmp_path / "kv", demo_command(model, slots=4)) as kept:
        async with kept.life() as life:
            for text in texts:
                await life.ask(text)
            await life.save()
        async with kept.life() as life:
            cached = [await life.cached(text) for text in texts]
            unused = [slot for slot in life.slots() if "id_task" not in slot]

    assert all(number > 25 for number in cached)
    assert unused == []


async def test_slots_that_were_not_used_stay_as_they_are(tmp_path: Path, model: Path) -> None:
    """They are not written again, and not lost."""
    async with keeping(tmp_path / "kv", demo_command(model, slots=2)) as kept:
        async with kept.life() as life:
            await life.ask(STORY * 5)
            await life.ask(OTHER * 3)
            await life.save()
        async with kept.life() as life:
            await life.ask(OTHER * 4)
            await life.save()
            await kept.settled()
        assert kept.facts()["saves"] == 3
        async with kept.life() as life:
            assert await life.cached(STORY * 5) > 50
            assert await life.cached(OTHER * 4) > 50


async def test_settings_that_are_equal_make_equal_hooks(kept: Kept) -> None:
    """So that a reload of the configuration restarts nothing."""
    assert kept.spec() == kept.spec()
    assert kept.spec("--ctx-size", "4096").hooks == kept.spec().hooks
    assert kept.spec("--ctx-size", "4096") != kept.spec()


async def test_kv_hooks_run_nearest_to_the_server(kept: Kept) -> None:
    """Nobody's own hook warms a slot before the restore, or is cut off by the save of it."""
    own = Hook(action=RunAction(argv=("true",)))
    points = ("beforeStart", "afterHealthy", "beforeStop", "suspend", "wake")
    plain = kept.plain(hooks=dict.fromkeys(points, (own,)))
    spec = kept.keeper.add_hooks(plain, EAGER)
    found = {
        point: ["own" if hook is own else str(hook.action)[5:] for hook in spec.hooks[point]]
        for point in points
    }

    assert found == {
        "beforeStart": ["kv prepare", "own"], "afterHealthy": ["kv restore", "own"],
        "beforeStop": ["own", "kv save"], "suspend": ["kv save", "own"],
        "wake": ["own", "kv restore"],
    }  # fmt: skip
    ours = [hook for hooks in spec.hooks.values() for hook in hooks if hook is not own]
    assert {hook.timeout_s for hook in ours} == {EAGER.hook_timeout_s}
    assert EAGER.hook_timeout_s > EAGER.timeout_s
    assert {hook.on_error for hook in ours} <= {"warn", "ignore"}


async def test_models_may_share_a_folder(tmp_path: Path, model: Path) -> None:
    """Under another name too: each finds its own, and removes nothing of the other's."""
    async with keeping(tmp_path / "kv", demo_command(model)) as kept:
        tokens = await one_saved(kept)
        (tmp_path / "alias").symlink_to(tmp_path / "kv")
        place = Place(tmp_path / "alias")
        other = kept.keeper.open("hare", place)

        assert other is not None
        assert other.facts()["saved_tokens"] == 0
        async with kept.life() as life:
            assert await life.cached(STORY * 5) >= tokens - 3


# ---- slots in memory
async def test_slots_in_memory_survive_a_reboot_by_their_copies(
    tmp_path: Path, model: Path
) -> None:
    """What is in memory is gone then; what is restored comes from the disk."""
    settings = KvSettings(
        min_tokens=10, timeout_s=20.0, tmpfs=tmp_path / "kv", directory=tmp_path / "disk"
    )
    argv = demo_command(model)
    async with keeping(tmp_path / "kv", argv, settings) as kept, kept.life() as life:
        await life.ask(STORY * 5)
        await life.save()
    assert not kept.manifest_path.exists()
    for path in kept.slot_files():
        path.unlink()
    async with keeping(tmp_path / "kv", argv, settings) as kept, kept.life() as life:
        assert await life.cached(STORY * 5) > 50


async def test_full_memory_folder_leads_to_a_plain_start(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = KvSettings(
        min_tokens=10, timeout_s=20.0, tmpfs=tmp_path / "kv", directory=tmp_path / "disk"
    )
    argv = demo_command(model)
    async with keeping(tmp_path / "kv", argv, settings) as kept, kept.life() as life:
        await life.ask(STORY * 5)
        await life.save()
    for path in kept.slot_files():
        path.unlink()
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 5, *real[5:]))
    async with keeping(tmp_path / "kv", argv, settings) as kept:
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda path: full)
            async with kept.life() as life:
                assert await life.cached(STORY * 5) == 0
        async with kept.life() as life:
            assert await life.cached(STORY * 5) > 50

    assert any("stay on the disk" in text for text in warnings_of(caplog))
