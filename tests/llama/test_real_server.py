"""What llama-server really does, where the product relies on it.

Measured on build b10434. When one of these fails with a newer build, read what the product makes
of the fact before changing the test; the demo server copies most of them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import raw, shown
from tools.children import Child
from tools.llama import LlamaServer, chat
from tools.make_tiny_gguf import write_tiny_gguf
from tools.net import free_port, is_listening, wait_until
from tools.raw import status as raw_status

pytestmark = [pytest.mark.llama, pytest.mark.slow]

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 20


@pytest.fixture
def pristine(real_llama: LlamaServer) -> LlamaServer:
    """Only llama-server's own program: how it handles signals is in question."""
    if not real_llama.is_real:
        pytest.skip(f"{real_llama.name} has a signal handling of its own")
    return real_llama


@pytest.fixture(scope="module")
def two_slots(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("slots")
    with real_llama.start(tiny_gguf, cwd=folder, slots=2, save_path=folder) as child:
        yield child.wait_healthy()


def act(child: Child, slot: object, action: str, filename: str | None = None) -> raw.Answer:
    value = None if filename is None else {"filename": filename}
    return raw.call(child.port, "POST", f"/slots/{slot}?action={action}", value=value)


def complete(child: Child, text: str, limit: int = 2, **more: object) -> Any:
    body = {"prompt": text, "max_tokens": limit, "temperature": 0, **more}
    return raw.call(child.port, "POST", COMPLETION, value=body, timeout_s=60).json()


def open_endless(child: Child, *, stream: bool = True) -> raw.Connection:
    """Begin a generation that ends with the context only."""
    body = {"prompt": "go on", "max_tokens": -1, "ignore_eos": True, "stream": stream}
    connection = raw.Connection(child.port)
    connection.request("POST", COMPLETION, value=body)
    if stream:
        assert connection.read_head().status == 200
        connection.read_chunk()
    else:
        wait_until(lambda: is_busy(child), what="busy")
    return connection


def is_busy(child: Child) -> bool:
    slots = raw.call(child.port, "GET", "/slots").json()
    return any(slot["is_processing"] for slot in slots)


def health(port: int) -> int:
    try:
        return raw.call(port, "GET", "/health").status
    except ConnectionRefusedError:
        return 0


def terminate_deaf(child: Child) -> None:
    """Send SIGTERM and wait until it is being followed."""
    child.signal()
    wait_until(lambda: not is_listening(child.port), what="no new connections")


# ---- start and end -----------------------------------------------------------------


def test_server_that_loads_returns_503_until_healthy(
    smollm2_llama: LlamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """Before health there is refusal, then 503, and nothing else."""
    seen: list[int] = []
    with smollm2_llama.start(smollm2, cwd=tmp_path, ctx=512) as child:

        def is_over() -> bool:
            seen.append(health(child.port))
            return seen[-1] == 200 or child.process.poll() is not None

        wait_until(is_over, 60.0, what="healthy")

    assert set(seen) <= {0, 503, 200}
    assert seen[-1] == 200
    assert seen == sorted(seen, key=[0, 503, 200].index)


def test_stream_has_the_chunks_that_clients_know(two_slots: Child) -> None:
    body = chat("the red tree", 3, stream=True, stream_options={"include_usage": True})
    answer = raw.call(two_slots.port, "POST", CHAT, value=body)
    events = answer.events()

    assert answer.header("content-type") == "text/event-stream"
    assert answer.header("transfer-encoding") == "chunked"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert events[-1]["timings"]["predicted_n"] == 3
    assert answer.chunks[-1] == b"data: [DONE]\n\n"


def test_sigterm_ends_an_idle_server_with_code_0(
    pristine: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with pristine.start(tiny_gguf, cwd=tmp_path) as child:
        child.wait_healthy()
        # Health may come some milliseconds before the handler of signals.
        wait_until(lambda: "listening on" in child.output(), what="handler")
        complete(child, "a")
        child.signal()

        assert child.wait() == 0


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_sigterm_in_flight_hangs_until_the_client_leaves(
    pristine: LlamaServer, tiny_gguf: Path, tmp_path: Path, stream: bool
) -> None:
    with pristine.start(tiny_gguf, cwd=tmp_path, ctx=8192) as child:
        client = open_endless(child.wait_healthy(), stream=stream)
        terminate_deaf(child)
        wait_until(lambda: client.is_silent_for(0.2), what="silence")

        assert client.is_silent_for(1.0)
        assert child.process.poll() is None
        client.close()
        assert child.wait() == 0


def test_sigterm_twice_ends_with_code_1(
    pristine: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with (
        pristine.start(tiny_gguf, cwd=tmp_path, ctx=8192) as child,
        open_endless(child.wait_healthy()),
    ):
        terminate_deaf(child)
        child.signal()

        assert child.wait() == 1


def test_server_with_a_missing_model_ends_with_code_1(
    pristine: LlamaServer, tmp_path: Path
) -> None:
    with pristine.start(tmp_path / "missing.gguf", cwd=tmp_path) as child:
        assert child.wait() == 1
        assert "failed to load model" in child.output()


def test_server_on_a_port_in_use_ends_with_code_1(
    pristine: LlamaServer, tiny_gguf: Path, two_slots: Child, tmp_path: Path
) -> None:
    """It may end before it has written why; the one that has the port is not disturbed."""
    with pristine.start(tiny_gguf, cwd=tmp_path, port=two_slots.port) as child:
        assert child.wait() == 1
    assert raw_status(two_slots.port) == 200


def test_server_without_a_model_is_healthy(pristine: LlamaServer, tmp_path: Path) -> None:
    """A command that lost its model argument starts a router: health proves no model."""
    port = free_port()
    argv = [*pristine.command, "--host", "127.0.0.1", "--port", str(port)]
    env = {**pristine.env, "LLAMA_CACHE": str(tmp_path)}
    with Child(argv, cwd=tmp_path, port=port, env=env) as child:
        child.wait_healthy()


def test_client_that_leaves_frees_the_slot(two_slots: Child) -> None:
    client = open_endless(two_slots)
    client.close()

    wait_until(lambda: not is_busy(two_slots), 5.0, what="idle slots")


# ---- slots ---------------------------------------------------------------------------


def test_props_and_slots_report_the_slot_count(two_slots: Child) -> None:
    props = raw.call(two_slots.port, "GET", "/props").json()
    slots = raw.call(two_slots.port, "GET", "/slots").json()

    assert props["total_slots"] == 2
    assert props["build_info"]
    assert props["default_generation_settings"]["n_ctx"] == 2048  # half of 4096 each
    assert [slot["id"] for slot in slots] == [0, 1]


def test_slot_numbers_wrap(two_slots: Child) -> None:
    complete(two_slots, "the red tree", id_slot=1)
    erased = act(two_slots, 99, "erase").json()

    assert erased["n_erased"] > 1
    assert erased["id_slot"] == 99  # echoed, so it tells nothing
    assert act(two_slots, 1, "erase").json()["n_erased"] == 0
    assert act(two_slots, -1, "erase").status == 200
    assert act(two_slots, "x", "erase").status == 400


def test_saved_slot_leaves_one_token_to_evaluate_after_a_restart(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with real_llama.start(tiny_gguf, cwd=tmp_path, save_path=tmp_path) as before:
        cold = complete(before.wait_healthy(), STORY)
        saved = act(before, 0, "save", "s.bin").json()
    with real_llama.start(tiny_gguf, cwd=tmp_path, save_path=tmp_path) as after:
        restored = act(after.wait_healthy(), 0, "restore", "s.bin").json()
        warm = complete(after, STORY)

    assert cold["timings"]["cache_n"] == 0
    assert cold["timings"]["prompt_n"] > 100
    assert saved["n_saved"] == restored["n_restored"] > 100
    assert saved["n_written"] == restored["n_read"] == (tmp_path / "s.bin").stat().st_size
    assert warm["timings"]["prompt_n"] == 1
    assert warm["timings"]["cache_n"] == cold["timings"]["prompt_n"] - 1
    assert warm["usage"]["prompt_tokens_details"]["cached_tokens"] == warm["timings"]["cache_n"]


def test_empty_slot_overwrites_a_good_file(two_slots: Child) -> None:
    complete(two_slots, "the red tree", id_slot=0)
    good = act(two_slots, 0, "save", "same.bin").json()
    act(two_slots, 0, "erase")
    empty = act(two_slots, 0, "save", "same.bin").json()

    assert good["n_saved"] > 0 == empty["n_saved"]
    assert act(two_slots, 0, "restore", "same.bin").json()["n_restored"] == 0


def test_busy_slot_is_saved_when_it_is_idle(two_slots: Child) -> None:
    with raw.Connection(two_slots.port) as client:
        body = {"prompt": "go", "max_tokens": 300, "ignore_eos": True, "stream": True, "id_slot": 1}
        client.request("POST", COMPLETION, value=body)
        client.read_head()
        saved = act(two_slots, 1, "save", "busy.bin").json()

    assert saved["n_saved"] > 300


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 100])
def test_bad_file_is_refused_and_leaves_the_slot_empty(
    two_slots: Child, tmp_path_factory: pytest.TempPathFactory, content: bytes | None
) -> None:
    complete(two_slots, "the red tree", id_slot=0)
    if content is not None:
        (save_folder(two_slots) / "bad.bin").write_bytes(content)
    answer = act(two_slots, 0, "restore", "missing.bin" if content is None else "bad.bin")

    assert answer.status == 400
    assert "Unable to restore slot" in answer.json()["error"]["message"]
    assert act(two_slots, 0, "erase").json()["n_erased"] == 0


def save_folder(child: Child) -> Path:
    argv = child.process.args
    assert isinstance(argv, list)
    return Path(str(argv[argv.index("--slot-save-path") + 1]))


@pytest.mark.parametrize("name", ["../x.bin", "a/b.bin", "x" * 256])
def test_filename_stays_in_its_folder(two_slots: Child, name: str) -> None:
    answer = act(two_slots, 0, "save", name)

    assert (answer.status, answer.json()["error"]["message"]) == (400, "Invalid filename")


def test_slot_files_without_a_folder_are_refused(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with real_llama.start(tiny_gguf, cwd=tmp_path) as child:
        assert act(child.wait_healthy(), 0, "save", "a.bin").status == 501


def test_file_of_other_weights_of_the_same_shape_is_taken(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Silently wrong: a store of slots must be keyed by the model file's content."""
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    with real_llama.start(tiny_gguf, cwd=tmp_path, save_path=tmp_path) as child:
        complete(child.wait_healthy(), STORY)
        n_saved = act(child, 0, "save", "s.bin").json()["n_saved"]
    with real_llama.start(other, cwd=tmp_path, save_path=tmp_path) as child:
        assert act(child.wait_healthy(), 0, "restore", "s.bin").json()["n_restored"] == n_saved


def test_truncated_file_is_refused_or_aborts_the_server(
    pristine: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Never restored: but the server may be gone, so sizes are checked before it is asked."""
    with pristine.start(tiny_gguf, cwd=tmp_path, save_path=tmp_path) as child:
        complete(child.wait_healthy(), STORY)
        act(child, 0, "save", "s.bin")
        whole = (tmp_path / "s.bin").read_bytes()
        (tmp_path / "s.bin").write_bytes(whole[:-8])
        try:
            status = act(child, 0, "restore", "s.bin").status
        except (OSError, EOFError):
            status = 0
            assert child.wait() == -signal.SIGABRT

    assert status in (0, 400)


def test_real_model_responds_from_its_restored_cache(
    smollm2_llama: LlamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """The use case, on a model that says something: the same text, and no prompt evaluation."""
    body = chat("Name three colours of the rainbow, please, and one animal for each.", 8)
    answers = []
    for round_ in range(2):
        with smollm2_llama.start(smollm2, cwd=tmp_path, ctx=1024, save_path=tmp_path) as child:
            child.wait_healthy(60.0)
            if round_:
                act(child, 0, "restore", "chat.bin")
            answer = raw.call(child.port, "POST", CHAT, value=body, timeout_s=60.0)
            answers.append(answer.json())
            warm = raw.call(child.port, "POST", CHAT, value=body, timeout_s=60.0).json()
            act(child, 0, "save", "chat.bin")

    texts = [answer["choices"][0]["message"]["content"] for answer in [warm, answers[1]]]
    assert answers[0]["timings"]["prompt_n"] > 30
    assert answers[1]["timings"]["prompt_n"] == 1
    assert texts[0] == texts[1] != ""


def test_docs_option_of_llama_server_exists(pristine: LlamaServer) -> None:
    """The options of llama-server that the documents advise are options of it."""
    done = subprocess.run(
        [*pristine.command, "--help"], capture_output=True, text=True, check=True,
        env={**os.environ, **pristine.env},
    )  # fmt: skip
    known = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", done.stdout))
    advised = {command.split()[0] for _, command in shown.items(shown.LLAMA)}

    assert len(advised) > 3
    assert advised - known == set()
