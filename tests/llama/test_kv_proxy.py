"""A conversation survives a swap: a real proxy, real servers, one line of configuration."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools import raw
from tools.children import demo_argv
from tools.llama import LlamaServer, chat
from tools.net import wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess

pytestmark = [pytest.mark.llama, pytest.mark.slow]

LONG = os.environ.get("SWAPCHART_LONG") == "1"
repeats = pytest.mark.skipif(
    not LONG, reason="NOT TESTED: tests/e2e/test_kv.py has it on demo servers; SWAPCHART_LONG=1"
)
STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 20


def llama_model(llama: LlamaServer, path: Path, *extra: str, **keys: Any) -> dict[str, Any]:
    argv = llama.argv(path, 0, extra=extra)
    argv[argv.index("--port") + 1] = "${PORT}"
    env = [f"{name}={value}" for name, value in llama.env.items()]
    kv = {"manageArgs": True}
    return {"cmd": argv, "env": env, "proxy": "http://127.0.0.1:${PORT}", "kv": kv, **keys}


def ask(proxy: SwapchartProcess, model: str, text: str, **more: Any) -> dict[str, Any]:
    body = {**chat(text, 2), "model": model, **more}
    answer = proxy.call("POST", CHAT, value=body)
    assert answer.status == 200, answer
    value: dict[str, Any] = answer.json()
    return value


def two(llama: LlamaServer, path: Path, *extra: str, **keys: Any) -> dict[str, Any]:
    return {name: llama_model(llama, path, *extra, **keys) for name in ("one", "two")}


def test_conversations_survive_swaps(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """One line, and what was read before a swap is not read again after it, round after round."""
    proxy = serve(two(real_llama, tiny_gguf))
    first = {name: ask(proxy, name, f"{name} {STORY}")["timings"] for name in ("one", "two")}
    for _ in range(3):
        for name, cold in first.items():
            again = ask(proxy, name, f"{name} {STORY}")["timings"]

            assert cold["cache_n"] == 0
            assert (again["prompt_n"], again["cache_n"]) == (1, cold["prompt_n"] - 1)
    facts = proxy.running()["two"]["kv"]
    assert facts["verdict"] == "works"
    assert facts["failures"] == 0
    assert facts["restores"] == 3
    assert facts["last_save_ms"] > 0 < facts["last_restore_ms"]
    metrics = proxy.call("GET", "/metrics").body.decode()
    assert 'swapchart_kv_verdict{model="two",verdict="works"} 1.0' in metrics
    assert 'swapchart_kv_restores_total{model="two"} 3.0' in metrics
    assert 'swapchart_kv_stored_bytes{model="one"}' in metrics


@repeats
def test_conversation_survives_a_restart_of_the_proxy(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """SIGTERM of the proxy is a stop like any other, and another proxy goes on from there."""
    state = ["--state-dir", str(tiny_gguf.parent / "state")]
    reads = []
    for _ in range(2):
        proxy = serve(two(real_llama, tiny_gguf), options=state)
        reads.append(ask(proxy, "one", STORY)["timings"]["prompt_n"])
        assert proxy.stop() == 0

    assert reads[0] > 300
    assert reads[1] == 1


@repeats
def test_conversation_survives_an_idle_limit(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    proxy = serve(two(real_llama, tiny_gguf, ttl=1))
    ask(proxy, "one", STORY)
    proxy.wait_state("one", "stopped")

    assert ask(proxy, "one", STORY)["timings"]["prompt_n"] == 1


def test_requests_wait_for_the_restore(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """Those that wait for the model when it comes up find it restored, all of them."""
    proxy = serve(two(real_llama, tiny_gguf))
    ask(proxy, "one", STORY)
    ask(proxy, "two", "hello")
    body = {**chat(STORY, 2), "model": "one"}
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(raw.Connection(proxy.port, timeout_s=60.0)) for _ in range(4)
        ]
        for connection in waiting:
            connection.request("POST", CHAT, value=body)
        reads = [connection.read_answer().json()["timings"]["prompt_n"] for connection in waiting]

    assert reads == [1, 1, 1, 1]


def test_request_during_the_save_waits_for_the_next_process(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """It is answered by the next process, from what was saved."""
    slow = {"beforeStop": {"run": "sleep 1"}}
    proxy = serve(two(real_llama, tiny_gguf, **slow))
    ask(proxy, "one", STORY)
    with raw.Connection(proxy.port, timeout_s=60.0) as unloading:
        unloading.request("POST", "/api/models/unload/one")
        proxy.wait_state("one", "before_stop")
        again = ask(proxy, "one", STORY)["timings"]
        assert unloading.read_answer().status == 200

    assert again["prompt_n"] == 1
    assert proxy.running()["one"]["incarnation"] == 2


@pytest.mark.parametrize("is_stream", [False, True] if LONG else [True])
def test_busy_slot_is_drained_then_aborted_and_saved(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path, is_stream: bool
) -> None:
    """A request without an end is cut by the drain's limit, and its conversation is kept."""
    models = two(real_llama, tiny_gguf, "--ctx-size", "100000", drain={"timeout": 0.5})
    proxy = serve(models)
    body = {**chat(STORY, -1), "model": "one", "ignore_eos": True, "stream": is_stream}
    with raw.Connection(proxy.port, timeout_s=60.0) as endless:
        endless.request("POST", CHAT, value=body)
        proxy.wait_busy("one", in_flight=1)
        wait_until(
            lambda: proxy.get("/upstream/one/slots")[0].get("n_prompt_tokens_processed", 0) > 300,
            60.0, what="the prompt read",
        )  # fmt: skip
        assert proxy.unload("one").status == 200
    again = ask(proxy, "one", STORY)["timings"]

    assert again["prompt_n"] == 1
    assert proxy.running()["one"]["kv"]["failures"] == 0


@repeats
def test_command_without_slot_folder_is_unchanged_and_reported(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """Without ``--slot-save-path`` the model starts plainly, unless ``manageArgs`` is on."""
    model = llama_model(real_llama, tiny_gguf, kv="keep")
    proxy = serve({"one": model}, config={"logLevel": "info"})
    ask(proxy, "one", "hello")
    proxy.stop()
    plain = proxy.output()
    managed = serve({"one": llama_model(real_llama, tiny_gguf)}, config={"logLevel": "info"})

    assert "one: kv: nothing is kept: its cmd has no --slot-save-path; add `--slot-" in plain
    if "llama-server" in model["cmd"][0]:
        assert managed.wait_said("kv: adding --slot-save-path") == 1


def test_save_that_is_killed_keeps_earlier_saves(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """The server hangs in the middle of it, and the proxy is killed: the old one is restored."""
    state = ["--state-dir", str(tiny_gguf.parent / "killed")]
    proxy = serve(two(real_llama, tiny_gguf), options=state)
    ask(proxy, "one", STORY)
    ask(proxy, "two", "hello")
    ask(proxy, "one", STORY + "red blue green")
    server = psutil.Process(proxy.running()["one"]["pid"])
    server.suspend()
    with raw.Connection(proxy.port, timeout_s=60.0) as unloading:
        unloading.request("POST", "/api/models/unload/one")
        proxy.wait_state("one", "before_stop")
        proxy.process.kill()
        proxy.wait()
    wait_until(lambda: not proxy.leftovers(), what="nothing left")
    again = serve(two(real_llama, tiny_gguf), options=state)

    assert ask(again, "one", STORY)["timings"]["prompt_n"] == 1


def test_conversation_survives_a_sleep(serve: Serve, tiny_gguf: Path) -> None:
    """Saved before it sleeps, which loses the cache; restored when it wakes, before it answers."""
    slots = tiny_gguf.parent / "asleep"
    slots.mkdir()
    url = "http://127.0.0.1:${PORT}"
    options = ["--slot-save-path", str(slots), "--prefill-tokens-per-second", "1000"]
    argv = demo_argv(*options, model=str(tiny_gguf))
    argv[argv.index("--port") + 1] = "${PORT}"
    model = {
        "cmd": argv, "proxy": url, "kv": {"minTokens": 10},
        "sleep": {
            "after": 1, "enter": {"http": {"url": f"{url}/sleep"}},
            "wake": {"http": {"url": f"{url}/wake_up"}},
        },
    }  # fmt: skip
    proxy = serve({"one": model})
    first = ask(proxy, "one", STORY)["timings"]
    proxy.wait_state("one", "asleep")
    again = ask(proxy, "one", STORY)["timings"]

    assert first["cache_n"] == 0
    assert again["cache_n"] >= first["prompt_n"] - 3
    assert proxy.running()["one"]["incarnation"] == 1


@repeats
def test_kv_can_be_switched_on_while_the_proxy_runs(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """A reload restarts the model, which needs another command; from then on it is kept."""
    proxy = serve(two(real_llama, tiny_gguf, kv="off"))
    ask(proxy, "one", STORY)
    path = proxy.folder / "config.yaml"
    value = json.loads(path.read_text())
    for model in value["models"].values():
        model["kv"] = {"manageArgs": True}
    path.write_text(json.dumps(value))
    assert proxy.call("POST", "/api/config/reload", value={}).json()["ok"]
    ask(proxy, "one", STORY)
    ask(proxy, "two", "hello")
    again = ask(proxy, "one", STORY)["timings"]
    assert proxy.call("POST", "/api/config/reload", value={}).json()["ok"]

    assert again["prompt_n"] == 1
    assert proxy.running()["one"]["kv"]["verdict"] == "works"
    assert proxy.running()["one"]["in_flight"] == 0


DIALECTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": STORY}], "max_tokens": 120},
    "/v1/completions": {"prompt": STORY, "max_tokens": 120},
    "/v1/messages": {"messages": [{"role": "user", "content": STORY}], "max_tokens": 120},
    "/v1/responses": {"input": STORY, "max_output_tokens": 120},
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_effectiveness_is_measured_in_each_dialect(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path, is_stream: bool
) -> None:
    """Long answers too, and streams that tell of the cache at their beginning only."""
    proxy = serve(two(real_llama, tiny_gguf))
    paths = [*DIALECTS] if LONG else [CHAT, "/v1/messages"] if is_stream else ["/v1/responses"]
    for path in paths:
        body = DIALECTS[path]
        value = {**body, "model": "one", "temperature": 0, "stream": is_stream}
        reused = []
        for _ in range(2):
            answer = proxy.call("POST", path, value=value)
            assert answer.status == 200, answer
            assert len(answer.body) > 8000 or not is_stream
            proxy.wait_idle("one")
            facts = proxy.running()["one"]["kv"]
            reused.append(facts["reused_tokens_total"])
            assert proxy.unload("one").status == 200

        assert reused[1] - reused[0] > 300, path
