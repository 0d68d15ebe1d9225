"""Tables in Markdown, with the facts about the machine that a figure needs to mean anything."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "results"


def median(values: Iterable[float]) -> float:
    """Return the median, or nan of nothing."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Describe the machine in one line."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    usable = len(os.sched_getaffinity(0))
    return f"{usable} cores of {model}, Linux {platform.release()}, {platform.machine()}"


class Weather:
    """How busy the machine was with other things while we measured."""

    def __init__(self) -> None:
        self._loads = [os.getloadavg()[0]]
        self._steal = _steal()

    def note(self) -> None:
        """Take the load average once more."""
        self._loads.append(os.getloadavg()[0])

    def __str__(self) -> str:
        """Say it in words."""
        steal, total = (now - then for now, then in zip(_steal(), self._steal, strict=True))
        low, high = min(self._loads), max(self._loads)
        share = 100 * steal / max(total, 1)
        return f"load average {low:.1f} to {high:.1f}, {share:.1f} % of the time stolen"


def _steal() -> tuple[int, int]:
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def document(
    title: str, command: str, parts: Iterable[str], weather: Weather, versions: Mapping[str, str]
) -> str:
    """Put a report together."""
    facts = [
        f"`{command}`, {time.strftime('%Y-%m-%d')}.",
        f"Machine: {machine()}; {weather}.",
        "Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ".",
    ]
    return "\n\n".join([f"# {title}", "\n".join(facts), *parts]) + "\n"


def publish(name: str, text: str, *, keep: bool = False, kept: str | None = None) -> None:
    """Print a report; *keep* it in results/ too, or what is *kept* of it."""
    print(text)
    if kept is None and keep:
        kept = text
    if kept is not None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(kept)


def put_table(heading: str, made: str) -> None:
    """Replace the first table of a section of benchmarks/README.md.

    Raises:
        ValueError: The page has no such heading.
    """
    page = RESULTS.parent / "README.md"
    lines = page.read_text().splitlines()
    first = next(
        number
        for number, line in enumerate(lines)
        if number > lines.index(heading) and line.startswith("|")
    )
    end = first
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    page.write_text("\n".join([*lines[:first], made, *lines[end:]]) + "\n")
