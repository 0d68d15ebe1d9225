"""From a request to its first token after a swap, with and without ``kv: keep``.

Two models alternate behind one proxy, a process of its own, on a real llama-server. Each model has
conversations of a given length, one in each slot. A round asks one model, then the other; what is
timed is the request that swaps back, the save of the one and the restore of the other included.
Where the time goes is read from the transitions that the proxy recorded.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.contenders import own_versions
from lab.processes import Process, free_ports
from lab.report import Weather, document, median, publish, table

_PLOT = Path(__file__).resolve().parent.parent / "docs" / "kv.svg"
_NAMES = ("first", "second")
_LIMIT_S = 900
_WORDS = (
    "river", "stone", "tree", "queue", "green", "light", "paper", "house", "winter", "road",
    "music", "table", "water", "bread",
)  # fmt: skip
#: State that lasts -> what the table calls it.
_PHASES = {
    "draining": "drain", "before_stop": "save", "terminating": "stop", "killing": "stop",
    "reaped": "stop", "before_start": "spawn", "launching": "spawn", "after_start": "spawn",
    "health_checking": "load", "after_healthy": "restore",
}  # fmt: skip
_COLUMNS = ("drain", "save", "stop", "spawn", "load", "restore", "first token")


@dataclass(slots=True, kw_only=True)
class Case:
    """One cell of the table.

    Attributes:
        tokens: Of each conversation, about.
        slots: Conversations, and slots, of each model.
        is_kept: With ``kv: keep``.
        waits_s: From the request that swaps to its first token.
        sums_s: The same for all conversations of that model, one after the other.
        phases_s: Phase -> how long it lasted in each swap.
        read: Tokens that each such request had to read.
    """

    tokens: int
    slots: int
    is_kept: bool
    waits_s: list[float] = field(default_factory=list)
    sums_s: list[float] = field(default_factory=list)
    phases_s: dict[str, list[float]] = field(default_factory=dict)
    read: list[int] = field(default_factory=list)


def real_llama(folder: Path) -> tuple[Any, Path]:
    """Return a llama-server and SmolLM2 for it.

    Raises:
        SystemExit: One of them is not there.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from tools.llama import INSTALL, find_llama, smollm2_path

    model = smollm2_path()
    if model is None:
        raise SystemExit(f"SmolLM2 is not installed: {INSTALL}")
    server, why_not = find_llama(model, folder)
    if server is None:
        raise SystemExit(why_not)
    return server, model


@contextmanager
def proxy(folder: Path, server: Any, model: Path, case: Case) -> Iterator[int]:
    """Run a proxy for two models; yields its port."""
    first = free_ports(8)
    models = {}
    for name in _NAMES:
        slots = folder / name
        slots.mkdir(parents=True)
        ctx = case.slots * (case.tokens * 5 // 4 + 256)
        argv = server.argv(model, 0, slots=case.slots, ctx=ctx, alias=name, save_path=slots)
        argv[argv.index("--port") + 1] = "${PORT}"
        models[name] = {
            "cmd": argv, "proxy": "http://127.0.0.1:${PORT}",
            "env": [f"{key}={value}" for key, value in server.env.items()],
            "kv": {"mode": "keep", "timeout": 60} if case.is_kept else "off",
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
            yield first + 7
        except BaseException:
            print(process.output()[-4000:], file=sys.stderr)
            raise


def conversation(seed: int, tokens: int) -> str:
    """Return a text of about *tokens* tokens; other seeds begin otherwise."""
    chance = random.Random(seed)
    return " ".join(chance.choice(_WORDS) for _ in range(tokens))


def first_token(port: int, model: str, text: str) -> tuple[float, int]:
    """Ask for a stream; returns seconds to its first content, and tokens that were read."""
    body = {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4,
        "temperature": 0, "stream": True, "ignore_eos": True,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    began, waited, read = time.perf_counter(), 0.0, 0
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
            if delta.get("content") and not waited:
                waited = time.perf_counter() - began
            read = event.get("timings", {}).get("prompt_n", read)
    finally:
        connection.close()
    if not waited:
        raise RuntimeError("an answer without any content")
    return waited, read


def transitions(port: int, model: str) -> list[Mapping[str, Any]]:
    """Return the last transitions of *model*, the newest first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/api/models/{quote(model)}/history?limit=40")
        data: list[Mapping[str, Any]] = json.loads(connection.getresponse().read())["data"]
        return data
    finally:
        connection.close()


def phases(port: int, going: str, coming: str, waited_s: float) -> dict[str, float]:
    """Return where the time of the last swap went; seconds."""
    found = dict.fromkeys(_COLUMNS, 0.0)
    for model, last, states in (
        (going, "ready", ("drain", "save", "stop")),
        (coming, "stopped", ("spawn", "load", "restore")),
    ):
        for row in transitions(port, model):
            phase = _PHASES.get(row["source"], "")
            if phase in states:
                found[phase] += row["seconds"]
            if row["source"] == last:
                break
    found["first token"] = max(waited_s - sum(found.values()), 0.0)
    return found


def measure(folder: Path, server: Any, model: Path, case: Case, rounds: int) -> None:
    """Fill *case* in."""
    texts = [conversation(seed, case.tokens) for seed in range(case.slots)]
    other = conversation(99, case.tokens if case.is_kept else 8)  # it needs no cache to be stopped
    going, coming = _NAMES[1], _NAMES[0]
    with proxy(folder, server, model, case) as port:
        for text in texts:
            first_token(port, coming, text)
        for number in range(rounds):
            first_token(port, going, other)
            order = texts[number % case.slots :] + texts[: number % case.slots]
            waited, read = first_token(port, coming, order[0])
            for phase, seconds in phases(port, going, coming, waited).items():
                case.phases_s.setdefault(phase, []).append(seconds)
            case.waits_s.append(waited)
            case.read.append(read)
            rest = sum(first_token(port, coming, text)[0] for text in order[1:])
            case.sums_s.append(waited + rest)


# ---- the report
def rows_of(cases: Sequence[Case]) -> list[list[str]]:
    """Return the rows of the table; seconds."""
    rows = []
    for case in cases:
        parts = [f"{median(case.phases_s[phase]):.3f}" for phase in _COLUMNS]
        rows.append(
            [
                f"{case.tokens} x {case.slots}, {'kept' if case.is_kept else 'without'}",
                f"{median(case.waits_s):.2f}", f"{median(case.sums_s):.2f}",
                f"{median(case.read):.0f}", *parts,
            ]
        )  # fmt: skip
    return rows


def plot(cases: Sequence[Case]) -> str:
    """Draw the waits as bars on a logarithmic scale, in SVG."""
    import math

    bar, gap, left, width = 18, 8, 170, 640
    waits = [median(case.waits_s) for case in cases]
    low = math.floor(math.log10(min(waits)))
    high = math.ceil(math.log10(max(waits)))
    scale = (width - left - 70) / max(high - low, 1)
    height = len(cases) * (bar + gap) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="8" y="18">Seconds from a request to its first token, swap included</text>',
    ]
    for power in range(low, high + 1):
        x = left + (power - low) * scale
        parts.append(f'<path d="M{x:.1f} 30V{height - 24}" stroke="#ccc"/>')
        label = f"{10**power:g} s"
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for number, (case, wait) in enumerate(zip(cases, waits, strict=True)):
        y = 34 + number * (bar + gap)
        length = max((math.log10(wait) - low) * scale, 1)
        colour = "#2a7f62" if case.is_kept else "#b0413e"
        conversations = f"{case.slots} x {case.tokens} tokens"
        name = f"{conversations}, {'kv: keep' if case.is_kept else 'without'}"
        parts += [
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>',
            f'<text x="{left + length + 5:.1f}" y="{y + 13}">{wait:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and once; nothing is kept")
    parser.add_argument(
        "--cases", default="1000x1,4000x1,8000x1,1000x4,4000x4",
        help="tokens x conversations of a model; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    words = "300x1" if options.quick else options.cases
    wanted = [tuple(map(int, word.split("x"))) for word in words.split(",")]
    rounds = 1 if options.quick else options.rounds
    weather, cases = Weather(), []
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        server, model = real_llama(Path(name))
        for tokens, slots in wanted:
            for is_kept in (False, True):
                case = Case(tokens=tokens, slots=slots, is_kept=is_kept)
                measure(Path(name) / f"case{len(cases)}", server, model, case, rounds)
                cases.append(case)
                weather.note()
                print(rows_of([case])[0], file=sys.stderr, flush=True)
    columns = ["median s", "to first token", "to all", "tokens read", *_COLUMNS]
    parts = [
        f"Two models alternate on a real llama-server ({server.name}, {model.name}); {rounds} "
        "rounds. A row is tokens of a conversation x conversations of a model, one in each slot. "
        "`to first token`: of the request that swaps, everything included. `to all`: until each "
        "conversation has had its next token, one after the other.",
        table(columns, rows_of(cases)),
    ]  # fmt: skip
    versions = own_versions()
    text = document("Conversations over a swap", "./dev bench kv", parts, weather, versions)
    publish("kv", text, keep=not options.quick)
    if not options.quick:
        _PLOT.write_text(plot(cases))


if __name__ == "__main__":
    main()
