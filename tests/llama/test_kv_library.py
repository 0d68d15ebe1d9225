"""A library of conversations on a real llama-server behind a real proxy."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from tools.llama import LlamaServer, chat
from tools.net import wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess

from .test_kv_checkpoints import kill_all
from .test_kv_proxy import LONG, STORY, ask, llama_model

pytestmark = [pytest.mark.llama, pytest.mark.slow]

WORDS = ("red", "blue", "green", "stone")


def models(llama: LlamaServer, path: Path, **more: Any) -> dict[str, Any]:
    kv = {"manageArgs": True, "library": "1GiB", **more}
    return {
        "one": {**llama_model(llama, path, "--parallel", "2"), "kv": kv},
        "two": llama_model(llama, path),
    }


def saved(proxy: SwapchartProcess) -> int:
    return int(proxy.running()["one"]["kv"]["conversations"])


def turn(proxy: SwapchartProcess, word: str, more: str = "") -> dict[str, Any]:
    timings: dict[str, Any] = ask(proxy, "one", f"{word} {STORY} {more}")["timings"]
    return timings


def test_more_conversations_than_slots_survive_swap_and_kill(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """Four of them in two slots: what was read once is not read again."""
    folder = tiny_gguf.parent / "library"
    state = ["--state-dir", str(folder)]
    proxy = serve(models(real_llama, tiny_gguf), options=state)
    first = {word: turn(proxy, word)["prompt_n"] for word in WORDS}
    again = [turn(proxy, word, "go on")["cache_n"] for word in WORDS]
    ask(proxy, "two", "hello")
    swapped = [turn(proxy, word, "go on")["cache_n"] for word in WORDS]
    wait_until(lambda: len(list(folder.rglob("*.kv.json"))) == 4, what="all on the disk")
    kill_all(proxy)
    second = serve(models(real_llama, tiny_gguf), options=state)
    killed = [turn(second, word, "go on")["cache_n"] for word in WORDS]

    least = min(first.values())
    assert least > 1000
    for found in (again, swapped, killed):
        assert min(found) > 0.95 * least, (again, swapped, killed)
    rows = second.get("/api/metrics/activity?limit=1")
    assert "cache_source" in json.dumps(rows)


DIALECTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "WORD " + STORY}], "max_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "WORD " + STORY}], "max_tokens": 2},
    "/v1/completions": {"prompt": "WORD " + STORY, "max_tokens": 2},
    "/v1/responses": {"input": "WORD " + STORY, "max_output_tokens": 2},
}


@pytest.mark.parametrize("path", [*DIALECTS][: None if LONG else 2])
def test_each_dialect_has_a_library(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path, path: str
) -> None:
    """Those that llama-server renders itself, and those that are known by their JSON."""
    proxy = serve(models(real_llama, tiny_gguf, minTokens=100))
    for is_again in (False, True):
        for number, word in enumerate(WORDS, 1):
            text = json.dumps({**DIALECTS[path], "model": "one", "temperature": 0}).replace(
                "WORD", word
            )
            answer = proxy.call("POST", path, value=json.loads(text))
            assert answer.status == 200, answer
            if not is_again:
                wait_until(lambda: saved(proxy) >= number, what="a save")  # noqa: B023
    facts = proxy.running()["one"]["kv"]

    assert facts["verdict"] == "works"
    assert facts["restores"] >= 2
    assert facts["reused_tokens_total"] > 2000
    assert facts["failures"] == 0


def test_changed_template_makes_no_wrong_response(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Another template renders another prompt; the first one is found again with its own."""
    state = ["--state-dir", str(tiny_gguf.parent / "template")]
    read = []
    for word in ("one", "another", "one"):
        template = tmp_path / "template.jinja"
        template.write_text(word + " {% for m in messages %}{{ m.content }}{% endfor %}")
        both = models(real_llama, tiny_gguf)
        both["one"]["cmd"] += ["--chat-template-file", str(template)]
        proxy = serve(both, options=state)
        read.append(turn(proxy, "red")["prompt_n"])
        assert proxy.stop() == 0

    assert min(read[:2]) > 1000
    assert read[2] < 100


def test_model_without_library_is_not_touched(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """No id of a slot is sent, and nothing is asked of its server besides."""
    proxy = serve({"one": llama_model(real_llama, tiny_gguf, "--parallel", "2")})
    ask(proxy, "one", STORY)
    body = {**chat(STORY, 2), "model": "one"}
    assert proxy.call("POST", CHAT, value=body).status == 200

    assert "conversations" not in proxy.running()["one"]["kv"]


@pytest.mark.measures
@pytest.mark.skipif(not LONG, reason="NOT TESTED: `./dev bench kv` measures it; SWAPCHART_LONG=1")
def test_request_that_meets_a_save_waits_for_less_than_the_limit(
    serve: Serve, smollm2_llama: LlamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """The limit is 50 ms; a save of 600 tokens, 14 MB, takes 10. `./dev bench kv` has the p99."""
    kv = {"library": "1GiB", "dir": str(tmp_path)}
    options = ("--parallel", "2", "--ctx-size", "4096", "--slot-save-path", str(tmp_path))
    proxy = serve({"one": {**llama_model(smollm2_llama, smollm2, *options), "kv": kv}})

    def wait_of_hello() -> float:
        began = time.perf_counter()
        ask(proxy, "one", "hello")
        return time.perf_counter() - began

    text, alone, met = STORY + STORY[:300], list[float](), list[float]()
    ask(proxy, "one", text)
    wait_until(lambda: saved(proxy) == 1, what="a save")
    for _ in range(4):
        alone.append(wait_of_hello())
        known = set(tmp_path.glob("*.kv"))
        text += " and so on, until the red stone has come to the river and to the tree again"
        ask(proxy, "one", text)
        wait_until(lambda: set(tmp_path.glob("*.kv")) - known, what="a save")  # noqa: B023
        met.append(wait_of_hello())

    assert statistics.median(met) - statistics.median(alone) < 5 * 0.05
