"""A conversation survives a swap: a real proxy, real servers, one line of configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.llama import LlamaServer, chat
from tools.swapchart_process import CHAT, Proxies, Serve, SwapchartProcess

pytestmark = [pytest.mark.llama, pytest.mark.slow]

STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 20


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    proxies = Proxies(tmp_path)
    try:
        yield proxies.serve
        proxies.end()
    finally:
        proxies.close()


def llama_model(llama: LlamaServer, path: Path, *extra: str, **keys: Any) -> dict[str, Any]:
    argv = llama.argv(path, 0, extra=extra)
    argv[argv.index("--port") + 1] = "${PORT}"
    env = [f"{name}={value}" for name, value in llama.env.items()]
    return {"cmd": argv, "env": env, "proxy": "http://127.0.0.1:${PORT}", "kv": "keep", **keys}


def ask(proxy: SwapchartProcess, model: str, text: str, **more: Any) -> dict[str, Any]:
    body = {**chat(text, 2), "model": model, **more}
    answer = proxy.call("POST", CHAT, value=body)
    assert answer.status == 200, answer
    value: dict[str, Any] = answer.json()
    return value


def test_a_conversation_survives_a_swap(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """One line, and what was read before the swap is not read again after it."""
    models = {name: llama_model(real_llama, tiny_gguf) for name in ("one", "two")}
    proxy = serve(models, config={"logLevel": "info"})
    first = ask(proxy, "one", STORY)["timings"]
    ask(proxy, "two", "hello")
    again = ask(proxy, "one", STORY)["timings"]
    kv = proxy.running()["one"]["kv"]
    print(proxy.output(), kv)

    assert first["cache_n"] == 0
    assert (again["prompt_n"], again["cache_n"]) == (1, first["prompt_n"] - 1)
