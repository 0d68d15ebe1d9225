"""A real llama-server behind a proxy of its own, and clients that time its first token."""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import Process, free_ports

NAMES = ("first", "second")
_LIMIT_S = 900
_WORDS = (
    "river", "stone", "tree", "queue", "green", "light", "paper", "house", "winter", "road",
    "music", "table", "water", "bread",
)  # fmt: skip


@dataclass(slots=True)
class Reply:
    """One response.

    Attributes:
        wait_s: Until its first content; seconds.
        whole_s: Until its end; seconds.
        cached: Prompt tokens that were reused.
        read: Prompt tokens that were read.
        written: Generated tokens.
        prefill_s: Time in which the server read the prompt, as it reports it.
        text: Generated text.
    """

    wait_s: float = 0.0
    whole_s: float = 0.0
    cached: int = 0
    read: int = 0
    written: int = 0
    prefill_s: float = 0.0
    text: str = ""


def real_llama(folder: Path) -> tuple[Any, Path]:
    """Return a llama-server and SmolLM2 for it.

    Raises:
        SystemExit: One of them is not there.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from tools.llama import INSTALL, find_llama, smollm2_path

    model = smollm2_path()
    if model is None:
        raise SystemExit(f"SmolLM2 is not installed: {INSTALL}")
    server, why_not = find_llama(model, folder)
    if server is None:
        raise SystemExit(why_not)
    return server, model


@contextmanager
def proxy(
    folder: Path, server: Any, model: Path, *, slots: int, tokens: int, kv: object
) -> Iterator[tuple[int, Process]]:
    """Run a proxy for two models, `NAMES`; yields its port, and its process.

    Args:
        folder: Of the proxy, and of saved slots; it may be used again.
        server: The llama-server.
        model: File of its model.
        slots: Slots of each model.
        tokens: Tokens of each slot.
        kv: Of the configuration.
    """
    first = free_ports(8)
    models = {}
    for name in NAMES:
        saved = folder / name
        saved.mkdir(parents=True, exist_ok=True)
        argv = server.argv(
            model, 0, slots=slots, ctx=slots * tokens, alias=name, save_path=saved
        )  # fmt: skip
        argv[argv.index("--port") + 1] = "${PORT}"
        models[name] = {
            "cmd": argv, "proxy": "http://127.0.0.1:${PORT}", "kv": kv,
            "env": [f"{key}={value}" for key, value in server.env.items()],
        }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(json.dumps({"startPort": first, "models": models}))
    argv = [
        sys.executable, "-m", "swapchart", "serve", "--config", str(path),
        "--listen", f"127.0.0.1:{first + 7}", "--state-dir", str(folder / "state"),
    ]  # fmt: skip
    with Process(argv, folder) as process:
        process.wait_answering(first + 7)
        try:
            yield first + 7, process
        except BaseException:
            print(process.output()[-4000:], file=sys.stderr)
            raise


def conversation(seed: int, tokens: int) -> str:
    """Return a text of about *tokens* tokens; other seeds begin otherwise."""
    chance = random.Random(seed)
    return " ".join(chance.choice(_WORDS) for _ in range(tokens))


def says(text: str) -> dict[str, str]:
    """Return a message of the user."""
    return {"role": "user", "content": text}


def ask(port: int, model: str, messages: Sequence[Mapping[str, str]], limit: int = 4) -> Reply:
    """Ask for a stream of *limit* tokens.

    Raises:
        RuntimeError: It failed, or has no content.
    """
    body = {
        "model": model, "messages": list(messages), "max_tokens": limit, "temperature": 0,
        "stream": True, "ignore_eos": True,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    began, reply = time.perf_counter(), Reply()
    try:
        target, fields = "/v1/chat/completions", {"content-type": "application/json"}
        connection.request("POST", target, json.dumps(body), fields)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()!r}")
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            delta = event["choices"][0]["delta"] if event["choices"] else {}
            reply.text += delta.get("content") or ""
            if reply.text and not reply.wait_s:
                reply.wait_s = time.perf_counter() - began
            if timings := event.get("timings"):
                reply.cached, reply.read = timings["cache_n"], timings["prompt_n"]
                reply.written = timings["predicted_n"]
                reply.prefill_s = timings["prompt_ms"] / 1000
    finally:
        connection.close()
    reply.whole_s = time.perf_counter() - began
    if not reply.wait_s:
        raise RuntimeError("an answer without any content")
    return reply


def get(port: int, target: str) -> Any:
    """Return the JSON of *target*."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def running(port: int, model: str) -> dict[str, Any]:
    """Return the row of *model* in ``/running``."""
    found: dict[str, Any] = next(
        row for row in get(port, "/running")["running"] if row["model"] == model
    )
    return found
