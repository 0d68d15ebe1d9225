"""Cost of a library for a server that is busy, and the wait of a request for a save under way.

Load: clients that never pause, each with a conversation of its own, alternate between a proxy with
a library and one without. Both stay up, and a pair of runs asks for the same, so that a pair sees
the same weather. Waits: a request is sent at the moment a background save begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .llama import NAMES, Reply, ask, conversation, proxy, running, says
from .report import median, table

CLIENTS = 4
_MODEL = NAMES[0]
_WRITTEN = 24  # tokens of a response
_LIMIT_S = 60.0
_POLL_S = 0.0005
_SAVE_S = 5.0  # within which a save begins, if one does
_GROWTH = 20  # words of a turn that is saved


@dataclass(slots=True)
class Run:
    """One run under load.

    Attributes:
        replies: All of them.
        seconds: Its length.
    """

    replies: list[Reply]
    seconds: float

    @property
    def waits_ms(self) -> list[float]:
        """Times to the first token."""
        return [reply.wait_s * 1000 for reply in self.replies]

    @property
    def token_ms(self) -> list[float]:
        """Times of each token after the first one, by response."""
        return [
            (reply.whole_s - reply.wait_s) * 1000 / max(reply.written - 1, 1)
            for reply in self.replies
        ]

    @property
    def rate(self) -> float:
        """Generated tokens per second, of all clients together."""
        return sum(reply.written for reply in self.replies) / self.seconds


@dataclass(slots=True)
class Load:
    """Runs with and without a library, in pairs.

    Attributes:
        off: Without.
        on: With, unless this is a control.
        is_control: Both sides are without a library, which shows the noise of the machine.
    """

    is_control: bool = False
    off: list[Run] = field(default_factory=list)
    on: list[Run] = field(default_factory=list)


def measure(
    folder: Path, server: Any, model: Path, *, pairs: int, turns: int, is_control: bool
) -> Load:
    """Return *pairs* pairs of runs, in which each client has *turns* turns.

    Args:
        folder: Of both proxies.
        server: The llama-server.
        model: File of its model.
        pairs: Number of pairs.
        turns: Turns of each client in a run.
        is_control: Both sides are without a library, which shows the noise of the machine.
    """
    found, keys = Load(is_control), {"slots": CLIENTS, "tokens": 2048}
    kv = "off" if is_control else {"library": "8GiB", "timeout": 60}
    with (
        proxy(folder / "off", server, model, **keys, kv="off") as (off, _),
        proxy(folder / "on", server, model, **keys, kv=kv) as (on, _),
    ):
        for port in (off, on):
            _run(port, 99, 1)
        for number in range(pairs):
            sides = [(off, found.off), (on, found.on)]
            for port, runs in sides[:: 1 if number % 2 else -1]:
                _settle(on)
                runs.append(_run(port, number, turns))
    return found


def _run(port: int, seed: int, turns: int) -> Run:
    replies: list[Reply] = []

    def client(number: int) -> None:
        first = 100 * seed + number
        messages = [says(conversation(first, 200))]
        for turn in range(turns):
            replies.append(ask(port, _MODEL, messages, _WRITTEN))
            messages.append(says(conversation(first + 10 * turn + 7, 20)))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(replies) != CLIENTS * turns:
        raise RuntimeError(f"{len(replies)} responses to {CLIENTS * turns} requests")
    return Run(replies, time.perf_counter() - began)


def _settle(port: int) -> None:
    """Wait until the saves of idle moments are over, which would disturb the other side."""
    before, end = -1, time.monotonic() + _LIMIT_S
    while (now := running(port, _MODEL).get("kv")) and time.monotonic() < end:
        if now.get("checkpoints", 0) == before:
            return
        before = now.get("checkpoints", 0)
        time.sleep(0.75)


# ---- requests that meet a save
@dataclass(slots=True)
class Waits:
    """Times from small requests until the server has begun to read their prompts; ms.

    Attributes:
        alone: With an idle server.
        met: Sent at the moment a save began.
    """

    alone: list[float] = field(default_factory=list)
    met: list[float] = field(default_factory=list)


def measure_waits(folder: Path, server: Any, model: Path, *, tokens: int, count: int) -> Waits:
    """Return the waits of *count* requests that meet saves of *tokens* tokens, and of as many."""
    found, keys = Waits(), {"slots": 2, "tokens": tokens * 3 // 2 + 3 * _GROWTH * count}
    kv = {"library": "8GiB", "timeout": 60}
    with proxy(folder, server, model, **keys, kv=kv) as (port, _):
        saved = folder / _MODEL
        messages = [says(conversation(1, tokens))]

        def hello() -> float:
            reply = ask(port, _MODEL, [says("hello")], 1)
            return (reply.wait_s - reply.prefill_s) * 1000

        _save(port, saved, messages, lambda: None)
        for number in range(count):
            found.alone.append(hello())
            messages.append(says(conversation(number, _GROWTH)))
            _save(port, saved, messages, lambda: found.met.append(hello()))
    return found


def _save(
    port: int, folder: Path, messages: Sequence[Mapping[str, str]], meet: Callable[[], None]
) -> None:
    """Have a turn, call *meet* once its save has created a file, and wait until it is complete.

    A turn that is read faster than the conversation is saved has no save.
    """
    known = set(folder.glob("*.kv"))
    ask(port, _MODEL, messages, 1)
    end = time.monotonic() + _SAVE_S
    while not (new := set(folder.glob("*.kv")) - known):
        if time.monotonic() > end:
            return
        time.sleep(_POLL_S)
    meet()
    for path in new:
        while not path.with_name(path.name + ".json").exists() and path.exists():
            time.sleep(_POLL_S)


# ---- the report
def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def text_of(load: Load, turns: int) -> list[str]:
    """Return the parts of the report."""
    rows = []
    for name, figures in (
        ("ms to the first token", lambda run: run.waits_ms),
        ("ms per token", lambda run: run.token_ms),
    ):
        off, on = (
            [value for run in runs for value in figures(run)] for runs in (load.off, load.on)
        )
        for share, limit in ((0.5, "within 3 %"), (0.99, "within 15 %")):
            pairs = [
                percentile(figures(b), share) / percentile(figures(a), share) - 1
                for a, b in zip(load.off, load.on, strict=True)
            ]
            before, after = percentile(off, share), percentile(on, share)
            rows.append(
                [
                    f"{name}, p{share * 100:.0f}", f"{before:.1f}", f"{after:.1f}",
                    f"{after / before - 1:+.1%}", f"{min(pairs):+.0%} to {max(pairs):+.0%}", limit,
                ]
            )  # fmt: skip
    rates = [run.rate for run in load.off], [run.rate for run in load.on]
    changes = [b / a - 1 for a, b in zip(*rates, strict=True)]
    rows.append(
        [
            "tokens per second, median run", f"{median(rates[0]):.1f}", f"{median(rates[1]):.1f}",
            f"{median(changes):+.1%}", f"{min(changes):+.0%} to {max(changes):+.0%}", "within 3 %",
        ]
    )  # fmt: skip
    side = "`kv: off` too" if load.is_control else "`kv: {library: 8GiB}`"
    return [
        f"{CLIENTS} clients on {CLIENTS} slots, {len(load.off)} pairs of runs of {turns} turns "
        f"with {_WRITTEN} tokens each; conversations begin with 200 tokens and grow by 20.",
        table(["", "`kv: off`", side, "change", "pairs", "target"], rows),
    ]


def text_of_waits(waits: Waits, tokens: int) -> list[str]:
    """Return the parts of the report."""
    rows = [
        [name, f"{median(values):.1f}", f"{percentile(values, 0.99):.1f}", f"{max(values):.1f}"]
        for name, values in (("idle server", waits.alone), ("save under way", waits.met))
    ]
    if not waits.met:
        return ["No save was met: on this machine it takes longer than the turn."]
    added = percentile(waits.met, 0.99) - median(waits.alone)
    return [
        f"{len(waits.met)} requests of one token in one of two slots, sent when a save of the "
        f"other one has begun, a conversation of {tokens} tokens and more, and {len(waits.alone)} "
        "without a save. Of the time to the first token, that in which the server reads the "
        "prompt is left out.",
        table(["ms until the prompt is read", "median", "p99", "longest"], rows),
        f"The wait for a save is {added:.0f} ms at p99; the target is 50 ms.",
    ]
