"""The main job on a real llama-server: conversations survive a swap, and nothing hangs or leaks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import raw
from tools.llama import LlamaServer, chat
from tools.net import LONG_S, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess

pytestmark = [pytest.mark.llama, pytest.mark.slow]

# As the users of the original request write it: hooks that are plain curl commands.
SEED = r"""
macros:
  cache_dir: {cache}
  4k_context: 4096
models:
  ada:
    afterHealthy: "curl -s -X POST \"http://127.0.0.1:${{PORT}}/slots/0?action=restore\" -H \"Content-Type: application/json\" -d '{{\"filename\": \"ada.bin\"}}'"
    beforeStop: "curl -s -X POST \"http://127.0.0.1:${{PORT}}/slots/0?action=save\" -H \"Content-Type: application/json\" -d '{{\"filename\": \"ada.bin\"}}'"
    cmd: |
      {command}
      --slot-save-path ${{cache_dir}}
      --ctx-size ${{4k_context}}
    proxy: http://127.0.0.1:${{PORT}}
    aliases:
      - smol
    ttl: 0
  eve: {eve}
"""  # noqa: E501 - as its author wrote it

# At least 1,000 tokens: as many words of common English, none of them repeating the last ones.
_WORDS = ("the river", "a stone", "every tree", "one queue", "my friend", "this house")
TEXT = " ".join(f"{word} {n}" for n in range(36) for word in _WORDS)


def model(server: LlamaServer, path: Path, *extra: str, **keys: Any) -> dict[str, Any]:
    """Return a model of the configuration that *server* serves."""
    argv = server.argv(path, 0, extra=extra)
    argv[argv.index("--port") + 1] = "${PORT}"
    env = [f"{name}={value}" for name, value in server.env.items()]
    return {"cmd": argv, "proxy": "http://127.0.0.1:${PORT}", "env": env, **keys}


def seeds_config(server: LlamaServer, path: Path, cache: Path) -> dict[str, Any]:
    """The seed's file with its paths filled in, and a model without hooks beside it."""
    eve = model(server, path, "--threads", "1")
    command = " \\\n      ".join([*server.command, f"--model {path}", "--host 127.0.0.1",
                                  "--port ${PORT}", "--parallel 1", "--threads 1"])  # fmt: skip
    text = SEED.format(cache=cache, command=command, eve="{}")
    config: dict[str, Any] = yaml.safe_load(text)
    config["models"]["ada"]["env"] = eve["env"]
    config["models"]["eve"] = eve
    return config


def timings(proxy: SwapchartProcess, name: str) -> dict[str, float]:
    """Ask *name* about the long text; returns what it says about its work."""
    answer = proxy.call("POST", CHAT, value={"model": name, **chat(TEXT, 8)}, timeout_s=120.0)
    assert answer.status == 200, answer
    found: dict[str, float] = answer.json()["timings"]
    return found


def test_conversation_survives_a_swap(
    serve: Serve, smollm2_llama: LlamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """With the seed's hooks a prompt of 1,000 tokens is not evaluated again; without, it is."""
    cache = tmp_path / "cache"
    cache.mkdir()
    proxy = serve(config=seeds_config(smollm2_llama, smollm2, cache))
    found = [(name, timings(proxy, name)) for name in ("eve", "ada", "eve", "ada")]
    for name, facts in found:
        hooks = "with hooks" if name == "ada" else "without hooks"
        numbers = " ".join(f"{key} {facts[key]:g}" for key in ("cache_n", "prompt_n", "prompt_ms"))
        print(f"{name} ({hooks}): {numbers}")
    (_, first), (_, without), (_, again) = found[1:]

    assert first["cache_n"] == 0
    assert first["prompt_n"] >= 1000
    assert without["cache_n"] == 0
    assert again["cache_n"] >= 1000
    assert again["prompt_n"] < 10
    assert again["prompt_ms"] < first["prompt_ms"] / 5
    assert proxy.running()["ada"]["incarnation"] == 2


@pytest.mark.parametrize("stream", [True, False])
def test_unload_with_a_request_in_flight_does_not_hang(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, stream: bool
) -> None:
    """The server would wait for its client for ever: it is drained, cut, saved and ended."""
    post = "curl -sf -X POST -H 'Content-Type: application/json' http://127.0.0.1:${PORT}/slots/0"
    save = post + '?action=save -d \'{"filename": "kv.bin"}\''
    keys = {"drain": {"timeout": 1}, "beforeStop": save}
    options = ("--slot-save-path", str(tmp_path), "--ctx-size", "100000")
    proxy = serve({"a": model(real_llama, tiny_gguf, *options, **keys)})
    value = {"model": "a", "prompt": "go on", "max_tokens": -1, "ignore_eos": True,
             "stream": stream, "n_predict": 1_000_000}  # fmt: skip
    with raw.Connection(proxy.port, timeout_s=LONG_S) as endless:
        endless.request("POST", "/v1/completions", value=value)
        proxy.wait_busy("a", in_flight=1)
        wait_until(lambda: slots(proxy)[0]["is_processing"], LONG_S, what="a busy slot")
        began = time.monotonic()
        answer = proxy.unload("a")
        took = time.monotonic() - began
        left = endless.read_all() if stream else endless.read_answer().body
    print(f"unload with a request in flight (stream: {stream}): {took:.2f} s")

    assert answer.status == 200
    assert 0.9 < took < 10.0, "it waited in vain for the hook or the grace period"
    assert b"[DONE]" not in left
    assert (tmp_path / "kv.bin").stat().st_size > 100
    assert proxy.running() == {}


def slots(proxy: SwapchartProcess) -> Any:
    return proxy.get("/upstream/a/slots")


def test_short_request_in_flight_is_drained(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """One that ends within the limit ends well, and only then the server is asked to end."""
    proxy = serve({"a": model(real_llama, tiny_gguf)})
    value = {"model": "a", "prompt": "go on", "max_tokens": 2000, "ignore_eos": True,
             "stream": True}  # fmt: skip
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.request("POST", "/v1/completions", value=value)
        head = connection.read_head()
        assert proxy.unload("a").status == 200
        assert connection.read_body(head).body.endswith(b"data: [DONE]\n\n")

    assert proxy.running() == {}


def test_twenty_swaps_leave_no_process(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """Ping and pong between two models: every request is answered, one process at a time."""
    models = {name: model(real_llama, tiny_gguf) for name in ("ping", "pong")}
    proxy = serve(models)
    for number in range(20):
        name = ("ping", "pong")[number % 2]
        assert proxy.chat(name).status == 200
        assert [*proxy.running()] == [name]
        assert len(proxy.find(str(tiny_gguf))) == 1

    assert proxy.running()["pong"]["incarnation"] == 10
    assert proxy.unload().status == 200
    assert proxy.find(str(tiny_gguf)) == []
