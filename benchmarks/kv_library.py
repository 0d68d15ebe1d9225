"""Conversations of a library: more than slots, over swaps, over a kill, and under load.

Each part runs with ``kv: {library: ...}`` and with ``kv: off``, on a real llama-server with SmolLM2
behind a proxy of its own. `turns`: conversations of a given length take turns on two slots, with a
swap to another model between turns. `kill`: then server and proxy are killed, and each has another
turn. `load`: clients that never pause, in paired runs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kv import conversation, real_llama
from lab.contenders import own_versions
from lab.processes import Process, free_ports
from lab.report import Weather, document, median, publish, table

_LIMIT_S = 900
_IDLE_S = 3.0  # between the last turn and the kill
_NEXT = "Please go on with that, and say a little more about the river and the stone."


@dataclass(slots=True)
class Reply:
    """One response.

    Attributes:
        wait_s: Until its first content; seconds.
        cached: Prompt tokens that were reused.
        read: Prompt tokens that were read.
        written: Generated tokens.
        rate: Generated tokens per second.
    """

    wait_s: float
    cached: int
    read: int
    written: int
    rate: float


@dataclass(slots=True)
class Talk:
    """One conversation.

    Attributes:
        messages: All of them.
        known: Tokens that were read or written before.
        again: Tokens that were read again, of each turn.
    """

    messages: list[dict[str, str]]
    known: int = 0
    again: list[int] = field(default_factory=list)


@contextmanager
def proxy(
    folder: Path, server: Any, model: Path, *, slots: int, tokens: int, has_library: bool
) -> Iterator[tuple[int, Process]]:
    """Run a proxy for two models of *slots* slots; yields its port, and its process."""
    first = free_ports(8)
    models = {}
    for name in ("first", "second"):
        saved = folder / name
        saved.mkdir(parents=True, exist_ok=True)
        argv = server.argv(
            model, 0, slots=slots, ctx=slots * (tokens * 3 // 2 + 1024), alias=name,
            save_path=saved,
        )  # fmt: skip
        argv[argv.index("--port") + 1] = "${PORT}"
        models[name] = {
            "cmd": argv, "proxy": "http://127.0.0.1:${PORT}",
            "env": [f"{key}={value}" for key, value in server.env.items()],
            "kv": {"library": "8GiB", "timeout": 60} if has_library else "off",
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


def ask(port: int, model: str, messages: Sequence[dict[str, str]], limit: int = 4) -> Reply:
    """Ask for a stream of at most *limit* tokens."""
    body = {
        "model": model, "messages": list(messages), "max_tokens": limit, "temperature": 0,
        "stream": True, "ignore_eos": True,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    began, reply = time.perf_counter(), Reply(0.0, 0, 0, 0, 0.0)
    try:
        fields = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), fields)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()!r}")
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            delta = event["choices"][0]["delta"] if event["choices"] else {}
            if delta.get("content") and not reply.wait_s:
                reply.wait_s = time.perf_counter() - began
            if timings := event.get("timings"):
                reply.cached, reply.read = timings["cache_n"], timings["prompt_n"]
                reply.written = timings["predicted_n"]
                reply.rate = timings.get("predicted_per_second", 0.0)
    finally:
        connection.close()
    return reply


def turn(port: int, talk: Talk) -> Reply:
    """Ask one question more in *talk*; the reply is left out, as it has no meaning."""
    reply = ask(port, "first", talk.messages)
    total = reply.cached + reply.read
    if talk.known:
        talk.again.append(max(reply.read - max(total - talk.known, 0), 0))
    talk.known = total
    talk.messages.append({"role": "user", "content": _NEXT})
    return reply


def turns(
    folder: Path, server: Any, model: Path, *, count: int, tokens: int, rounds: int,
    has_library: bool,
) -> tuple[list[float], float, float]:  # fmt: skip
    """Return waits, the share of tokens that was read again, and the same after a kill."""
    talks = [Talk([{"role": "user", "content": conversation(n, tokens)}]) for n in range(count)]
    keep = {"slots": 2, "tokens": tokens, "has_library": has_library}
    waits: list[float] = []
    with proxy(folder, server, model, **keep) as (port, process):
        for talk in talks:
            turn(port, talk)
        for _ in range(rounds):
            ask(port, "second", [{"role": "user", "content": "hello"}])
            ask(port, "first", [{"role": "user", "content": "hello"}])  # the swap itself
            waits += [turn(port, talk).wait_s for talk in talks]
        share = sum(sum(talk.again) for talk in talks) / (rounds * sum(t.known for t in talks))
        time.sleep(_IDLE_S)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/running")
        rows = json.loads(connection.getresponse().read())["running"]
        os.kill(next(row["pid"] for row in rows if row["model"] == "first"), signal.SIGKILL)
        process.process.kill()
    with proxy(folder, server, model, **keep) as (port, _):
        for talk in talks:
            talk.again.clear()
        if has_library:
            for talk in talks:
                turn(port, talk)
    worst = max((max(talk.again, default=0) for talk in talks), default=0)
    return waits, share, float(worst)


def load(
    folder: Path, server: Any, model: Path, *, seconds: float, has_library: bool
) -> list[Reply]:
    """Return the replies to four clients that never pause, in one run."""
    replies: list[Reply] = []
    with proxy(folder, server, model, slots=4, tokens=2000, has_library=has_library) as (port, _):
        ask(port, "first", [{"role": "user", "content": "hello"}])
        end = time.monotonic() + seconds

        def client(number: int) -> None:
            messages = [{"role": "user", "content": conversation(number, 200)}]
            while time.monotonic() < end:
                replies.append(ask(port, "first", messages, 24))
                messages.append({"role": "user", "content": conversation(number + 7, 20)})

        threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return replies


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and once; nothing is kept")
    parser.add_argument("--pairs", type=int, default=10, help="paired runs under load")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run under load")
    options = parser.parse_args()
    count, tokens, rounds = (4, 300, 1) if options.quick else (12, 1000, 1)
    pairs, seconds = (1, 2.0) if options.quick else (options.pairs, options.seconds)
    weather, rows = Weather(), []
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        server, model = real_llama(Path(name))
        found = {}
        for has_library in (False, True):
            folder = Path(name) / f"turns{has_library}"
            found[has_library] = turns(
                folder, server, model, count=count, tokens=tokens, rounds=rounds,
                has_library=has_library,
            )  # fmt: skip
            weather.note()
            print(has_library, found[has_library], file=sys.stderr, flush=True)
        off, on = found[False], found[True]
        ratio = median(off[0]) / median(on[0])
        rows = [
            ["tokens read again, turns", f"{off[1]:.1%}", f"{on[1]:.1%}", "at most 5 %"],
            [
                "first token, turns, median s", f"{median(off[0]):.3f}",
                f"{median(on[0]):.3f} ({ratio:.0f} times shorter)", "20 times shorter",
            ],
            ["tokens read again after SIGKILL, worst", "all", f"{on[2]:.0f}", "one turn"],
        ]  # fmt: skip
        replies: dict[bool, list[Reply]] = {False: [], True: []}
        for number in range(pairs):
            for has_library in ((False, True), (True, False))[number % 2]:
                folder = Path(name) / f"load{number}{has_library}"
                replies[has_library] += load(
                    folder, server, model, seconds=seconds, has_library=has_library
                )
            weather.note()
        for text, get in (
            ("first token, load", lambda reply: reply.wait_s),
            ("ms per token, load", lambda reply: 1000 / max(reply.rate, 1e-3)),
        ):
            for share, limit in ((0.5, "within 3 %"), (0.99, "within 15 %")):
                before, after = (
                    _percentile([get(reply) for reply in replies[kind]], share)
                    for kind in (False, True)
                )
                change = f"{after:.3f} ({after / before - 1:+.1%})"
                rows.append([f"{text}, p{share * 100:.0f}", f"{before:.3f}", change, limit])
    parts = [
        f"{count} conversations of {tokens} tokens take turns on two slots of a real llama-server "
        f"({server.name}, {model.name}), with a swap between turns; then server and proxy are "
        f"killed. Load: 4 clients on 4 slots, {pairs} paired runs of {seconds:g} s.",
        table(["figure", "kv: off", "kv: {library: 8GiB}", "target"], rows),
    ]
    text = document("Library of conversations", "./dev bench kv_library", parts, weather,
                    own_versions())  # fmt: skip
    publish("kv_library", text, keep=not options.quick)


if __name__ == "__main__":
    main()
