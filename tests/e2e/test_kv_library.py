"""A library of conversations in a whole proxy, on demo servers: records, and older state."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tools.swapchart_process import CHAT, Serve, SwapchartProcess

from swapchart.adapters.kv.manifest import ModelStore

pytestmark = pytest.mark.slow

STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 20
OLDER = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("state_*"))


def program(folder: Path) -> Path:
    """Write a program of llama-server's name that is a demo server."""
    path = folder / "llama-server"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m swapchart.adapters.demo "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A model with two slots and a library."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    words = [
        str(program(tmp_path)), "--model", str(tmp_path / "model.bin"), "--alias", "demo",
        "--parallel", "2", "--port", "${PORT}", "--slot-save-path", str(tmp_path / "slots"),
        "--prefill-tokens-per-second", "1000", "--tokens-per-second", "0",
    ]  # fmt: skip
    kv = {"library": "1GiB", "minTokens": 64}
    return {"cmd": words, "proxy": "http://127.0.0.1:${PORT}", "kv": kv}


def ask(proxy: SwapchartProcess, text: str, model: str = "m") -> dict[str, Any]:
    """Ask in the conversation of *text*; returns the row of the request."""
    messages = [{"role": "user", "content": text}]
    value = {"model": model, "messages": messages, "max_tokens": 2, "temperature": 0}
    answer = proxy.call("POST", CHAT, value=value)
    assert answer.status == 200, answer
    row: dict[str, Any] = proxy.get("/api/metrics/activity?limit=1")["data"][0]
    return row


def test_record_tells_tokens_source_and_cost(serve: Serve, model: dict[str, Any]) -> None:
    """The request, the timeline, the model's facts and metrics agree about a restore."""
    proxy = serve({"m": model})
    first = [ask(proxy, f"{word} {STORY}") for word in ("red", "blue", "green")]
    slot = ask(proxy, f"green {STORY} go on")
    library = ask(proxy, f"red {STORY} go on")
    kv = proxy.running()["m"]["kv"]
    timeline = proxy.get("/api/timeline")

    assert {row["metadata"]["cache_source"] for row in first} == {"none"}
    assert slot["metadata"]["cache_source"] == "slot"
    assert "cache_restore_ms" not in slot["metadata"]
    assert library["metadata"]["cache_source"] == "library"
    assert float(library["metadata"]["cache_restore_ms"]) > 0
    assert min(row["tokens"]["cache_tokens"] for row in (slot, library)) > 300
    assert [(row["model"], row["tokens"]) for row in timeline["restored"]] == [
        ("m", kv["restored_tokens_total"])
    ]
    assert timeline["restored"][0]["saved_ms"] > 0
    assert kv["last_restore_ms"] == timeline["restored"][0]["restore_ms"]
    assert 'swapchart_kv_restores_total{model="m"} 1.0' in (
        proxy.call("GET", "/metrics").body.decode()
    )


def test_conversation_of_one_api_key_is_not_reused_by_another(
    serve: Serve, model: dict[str, Any]
) -> None:
    """Neither from a slot nor from a file; its own key finds it in both."""
    keys = [{"key": key, "scopes": ["infer", "admin"]} for key in ("sk-one", "sk-two")]
    proxy = serve({"m": model}, config={"apiKeys": keys})
    found = []
    for word, key in (
        ("red", "one"), ("red", "two"), ("blue", "one"), ("green", "one"), ("red", "one"),
        ("red", "one"),
    ):  # fmt: skip
        proxy.headers = {"Authorization": f"Bearer sk-{key}"}
        found.append(ask(proxy, f"{word} {STORY}")["metadata"]["cache_source"])

    assert found == ["none", "none", "none", "none", "library", "slot"]


# ---- state that an older commit wrote
KEPT = [{"checkpoint": "auto"}, {"library": "1GiB"}]


@pytest.fixture(params=OLDER, ids=lambda path: path.name)
def slots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Saved slots of a commit, in the folder of the model."""
    return Path(shutil.copytree(request.param / "slots", tmp_path / "slots"))


@pytest.mark.parametrize("kv", KEPT, ids=str)
def test_saved_slots_of_an_older_commit_stay_with_checkpoints_and_library(
    serve: Serve, model: dict[str, Any], slots: Path, kv: dict[str, Any]
) -> None:
    """They were saved by another server, so they are not restored, and not lost either."""
    (before,) = entries(slots)
    content = (slots / before["file"]).read_bytes()
    proxy = serve({"kept": {**model, "kv": {**kv, "minTokens": 64}}})
    ask(proxy, STORY, "kept")
    ask(proxy, f"red {STORY}", "kept")
    assert proxy.running()["kept"]["kv"]["problem"] is None
    assert proxy.stop() == 0
    store = ModelStore("kept", slots)
    store.read()

    assert before in entries(slots)
    assert (slots / before["file"]).read_bytes() == content
    assert [store.verify(entry) for entry in store.manifest.entries if entry.tokens == 151] == [""]


@pytest.mark.parametrize("kv", KEPT, ids=str)
def test_saved_slots_that_are_too_new_are_left_unchanged(
    serve: Serve, model: dict[str, Any], slots: Path, kv: dict[str, Any]
) -> None:
    """The model serves without persistence, and its facts say why."""
    (path,) = slots.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    before = {path.name: path.read_bytes() for path in slots.iterdir()}
    proxy = serve({"kept": {**model, "kv": {**kv, "minTokens": 64}}})
    ask(proxy, STORY, "kept")
    problem = proxy.running()["kept"]["kv"]["problem"]
    assert proxy.stop() == 0

    assert "version 99" in problem
    assert problem in proxy.output()
    found = {path.name: path.read_bytes() for path in slots.iterdir()}
    assert {name: found.get(name) for name in before} == before
    assert found.keys() - before.keys() <= {".swapchart.lock"}


def entries(slots: Path) -> list[dict[str, Any]]:
    (path,) = [
        path for path in slots.glob("swapchart-*.json") if not path.name.endswith(".kv.json")
    ]
    found: list[dict[str, Any]] = json.loads(path.read_text())["entries"]
    return found
