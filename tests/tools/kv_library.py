"""Requests to a model with a library of conversations, as the proxy sends them."""

from __future__ import annotations

import json
from typing import Any

from anyio import to_thread

from swapchart.adapters.kv.library.store import library_prefix
from swapchart.adapters.kv.settings import KvSettings

from . import raw
from .kv import NAME, STORY, Answer, Kept, Life
from .net import wait_until_async

PATH = "/v1/completions"
SETTINGS = KvSettings(min_tokens=64, timeout_s=20.0, has_checkpoints=True, library_bytes=10**9)
WORDS = ("red", "blue", "green", "stone", "river", "tree")


def text_of(word: str, repeats: int = 20) -> str:
    return f"{word} {word} {word} " + STORY * repeats


class Said:
    """A response, and how it was served."""

    def __init__(self, value: dict[str, Any], source: str, cost_ms: float) -> None:
        self.cached, self.read = value["timings"]["cache_n"], value["timings"]["prompt_n"]
        self.slot, self.source, self.cost_ms = value.get("id_slot"), source, cost_ms


async def say(
    kept: Kept, life: Life, prompt: str, namespace: str = "", path: str = PATH, **more: Any
) -> Said:
    """Complete *prompt* as a request through the proxy does."""
    body = json.dumps({"prompt": prompt, "max_tokens": 2, "temperature": 0, **more}).encode()
    assigned = await kept.keeper.assign(NAME, path, body, namespace)
    sent = body if assigned is None else assigned.body
    port = life.child.port
    answer = await to_thread.run_sync(
        lambda: raw.call(port, "POST", path, body=sent, timeout_s=60.0)
    )
    record = Answer(NAME, answer.status, [answer.body])
    found = ("", 0.0) if assigned is None else assigned.finish(record)
    kept.keeper.note(record)
    assert answer.status == 200, answer
    return Said(answer.json(), *found)


def descriptions(kept: Kept) -> list[dict[str, Any]]:
    paths = kept.folder.glob(f"{library_prefix(NAME)}-*.json")
    return sorted((json.loads(path.read_text()) for path in paths), key=lambda one: one["words"])


async def told(kept: Kept, life: Life, *words: str) -> None:
    """Say one thing in each conversation, and wait until all are saved."""
    for word in words:
        await say(kept, life, text_of(word))
    await wait_until_async(
        lambda: kept.facts()["conversations"] >= len(words), what=lambda: str(kept.facts())
    )
    await kept.settled()


def director_of(kept: Kept) -> Any:
    """Return the director of the slots of the running process."""
    library = kept.cache().library
    assert library is not None
    return library.director
