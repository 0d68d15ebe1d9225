"""Checkpoints of a real llama-server behind a real proxy, both of which are killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tools.llama import LlamaServer
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess

from .test_kv_proxy import STORY, ask, llama_model

pytestmark = [pytest.mark.llama, pytest.mark.slow]


def facts(proxy: SwapchartProcess) -> dict[str, Any]:
    found: dict[str, Any] = proxy.running()["one"]["kv"]
    return found


def kill_all(proxy: SwapchartProcess) -> None:
    """Kill the server, then the proxy, with nothing in between."""
    os.kill(proxy.running()["one"]["pid"], signal.SIGKILL)
    proxy.process.kill()
    proxy.wait()
    wait_until(lambda: not proxy.leftovers(), what="nothing left")


def entries(folder: Path) -> list[Any]:
    """Return what the manifest of the only model in a state folder has."""
    found = [json.loads(path.read_text())["entries"] for path in folder.glob("kv/*/*.json")]
    return [entry for each in found for entry in each]


def test_conversations_survive_a_kill_of_proxy_and_server(
    serve: Serve, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    """Each loses at most its last turn; here none of it, as the server was idle after each."""
    folder = tiny_gguf.parent / "checkpoints"
    state = ["--state-dir", str(folder)]
    kv = {"manageArgs": True, "checkpoint": "auto"}
    models = {"one": {**llama_model(real_llama, tiny_gguf, "--parallel", "2"), "kv": kv}}
    proxy = serve(models, options=state)
    for word in ("red", "blue"):
        count = facts(proxy)["checkpoints"] if word == "blue" else 0
        ask(proxy, "one", f"{word} {STORY}")
        wait_until(lambda: facts(proxy)["checkpoints"] > count, what="a checkpoint")  # noqa: B023
    # The facts tell of a save before it is on the disk.
    wait_until(lambda: len(entries(folder)) == 2, what=lambda: str(facts(proxy)))
    kill_all(proxy)
    again = serve(models, options=state)
    found = [ask(again, "one", f"{word} {STORY}")["timings"] for word in ("red", "blue")]

    assert [each["prompt_n"] for each in found] == [1, 1]
    assert (
        'swapchart_kv_checkpoints_total{model="one"}' in again.call("GET", "/metrics").body.decode()
    )
