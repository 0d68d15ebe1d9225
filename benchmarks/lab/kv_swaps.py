"""From a request to its first token after a swap, with and without ``kv: keep``.

Two models alternate. Each has conversations of a given length, one in each slot. A round asks one
model, then the other; what is timed is the request that swaps back, the save of the one and the
restore of the other included. Where the time goes is read from the transitions that the proxy
recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .llama import NAMES, ask, conversation, get, proxy, says
from .report import median, table

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


def phases(port: int, going: str, coming: str, waited_s: float) -> dict[str, float]:
    """Return where the time of the last swap went; seconds."""
    found = dict.fromkeys(_COLUMNS, 0.0)
    for model, last, states in (
        (going, "ready", ("drain", "save", "stop")),
        (coming, "stopped", ("spawn", "load", "restore")),
    ):
        for row in get(port, f"/api/models/{quote(model)}/history?limit=40")["data"]:
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
    going, coming = NAMES[1], NAMES[0]
    kept = {"mode": "keep", "timeout": 60} if case.is_kept else "off"
    keys = {"slots": case.slots, "tokens": case.tokens * 5 // 4 + 256, "kv": kept}
    with proxy(folder, server, model, **keys) as (port, _):
        for text in texts:
            ask(port, coming, [says(text)])
        for number in range(rounds):
            ask(port, going, [says(other)])
            order = texts[number % case.slots :] + texts[: number % case.slots]
            reply = ask(port, coming, [says(order[0])])
            for phase, seconds in phases(port, going, coming, reply.wait_s).items():
                case.phases_s.setdefault(phase, []).append(seconds)
            case.waits_s.append(reply.wait_s)
            case.read.append(reply.read)
            rest = sum(ask(port, coming, [says(text)]).wait_s for text in order[1:])
            case.sums_s.append(reply.wait_s + rest)


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


def text_of(cases: Sequence[Case], rounds: int) -> list[str]:
    """Return the parts of the report."""
    columns = ["median s", "to first token", "to all", "tokens read", *_COLUMNS]
    return [
        f"Two models alternate; {rounds} rounds. A row is tokens of a conversation x conversations "
        "of a model, one in each slot. `to first token`: of the request that swaps, everything "
        "included. `to all`: until each conversation has had its next token, one after the other.",
        table(columns, rows_of(cases)),
    ]


def plot(cases: Sequence[Case]) -> str:
    """Draw the waits as bars on a logarithmic scale, in SVG."""
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
