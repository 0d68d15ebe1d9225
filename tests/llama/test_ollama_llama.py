"""Ollama's Python client and a real llama-server behind the proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from tools.clients import TALK
from tools.llama import LlamaServer, only_program
from tools.net import free_port
from tools.swapchart_process import Proxies

from .test_clients_llama import PICK, TEMPLATE

pytestmark = [pytest.mark.llama, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ollama.Client]:
    only_program(real_llama)
    folder = tmp_path_factory.mktemp("ollama_llama")
    (folder / "tools.jinja").write_text(TEMPLATE)
    extra = ["--jinja", "--chat-template-file", str(folder / "tools.jinja")]
    vectors = ["--embeddings", "--pooling", "mean"]
    models: dict[str, Any] = {
        name: {
            "cmd": [part.replace("1234", "${PORT}") for part in
                    real_llama.argv(tiny_gguf, 1234, alias=name, extra=options)],
            "env": [f"{key}={value}" for key, value in real_llama.env.items()],
        }
        for name, options in (("tiny", extra), ("vectors", vectors))
    }  # fmt: skip
    proxies, port = Proxies(folder), free_port()
    try:
        proxy = proxies.serve(models, config={"ollama": {"listen": f"127.0.0.1:{port}"}})
        proxy.wait_said(f"http://127.0.0.1:{port}")
        with ollama.Client(f"http://127.0.0.1:{port}", trust_env=False) as found:
            yield found
        proxies.end()
    finally:
        proxies.close()


def test_llama_server_chats_and_generates(client: ollama.Client) -> None:
    """Counts and times are those of llama-server, in each mode."""
    short = {"num_predict": 5, "seed": 1, "num_ctx": 512}
    *pieces, last = client.chat("tiny", TALK, stream=True, options=short)

    assert pieces
    assert (last.eval_count, last.done_reason) == (5, "length")
    assert last.prompt_eval_count
    assert last.eval_duration
    for more in ({}, {"raw": True}, {"system": "be short"}):
        found = client.generate("tiny", "the river", options=short, **more)
        assert found.eval_count == 5, more


def test_llama_server_follows_a_schema(client: ollama.Client) -> None:
    found = client.chat("tiny", TALK, format=PICK, options={"num_predict": 60})

    assert json.loads(found.message.content or "")["colour"] in ("red", "blue")
    streamed = client.generate("tiny", "x", format=PICK, stream=True, options={"num_predict": 60})
    text = "".join(part.response or "" for part in streamed)
    assert json.loads(text)["colour"] in ("red", "blue")


def test_llama_server_takes_tools_and_their_results(client: ollama.Client) -> None:
    """The template gets the call and its result; a tool with one choice is called."""
    function = {"name": "pick", "description": "Picks", "parameters": PICK}
    tools: Any = [{"type": "function", "function": function}]
    call = {"function": {"name": "pick", "arguments": {"colour": "red"}}}
    talk: Any = [
        *TALK, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_name": "pick"},
    ]  # fmt: skip

    found = client.chat("tiny", talk, tools=tools, think=False, options={"num_predict": 3})
    assert found.eval_count == 3


def test_llama_server_embeds(client: ollama.Client) -> None:
    found = client.embed("vectors", ["the river", "the tree"])

    assert len(found.embeddings) == 2
    assert found.prompt_eval_count
    assert client.show("vectors").capabilities == ["embedding"]
    assert "llama" in str(client.show("tiny").modelinfo)


def test_llama_server_error_keeps_its_text(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match=r"exceed|too|context") as caught:
        client.generate("tiny", "the river " * 5000)

    assert caught.value.status_code == 400
