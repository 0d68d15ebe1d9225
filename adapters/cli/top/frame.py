"""One frame of `top`, drawn by rich."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ....dataclass import dataclass
from .snapshot import HEADER, row, title_lines

_STYLES = {
    "ready": "green", "starting": "yellow", "stopping": "yellow", "sleeping": "cyan",
    "failed": "red", "stopped": "dim",
}  # fmt: skip
_NUMBERS = frozenset({"IN FLIGHT", "WAITING", "MEMORY", "TOKENS/S"})
_ALL_WIDTH, _MOST_WIDTH = 100, 80  # columns with which WHY, and LAST SWAP, have room
_KEYS = "Up/Down or j/k select   l load   u unload   q quit"


@dataclass(slots=True)
class Selection:
    """Model that keys act on; it stays the same when others come and go."""

    name: str = ""

    def index(self, models: Sequence[dict[str, Any]]) -> int:
        """Return the place of the model in *models*; the first one if it is not there."""
        names = [model["model"] for model in models]
        return names.index(self.name) if self.name in names else 0

    def move(self, models: Sequence[dict[str, Any]], step: int) -> None:
        """Select the model *step* places further down, within *models*."""
        if models:
            place = min(max(self.index(models) + step, 0), len(models) - 1)
            self.name = models[place]["model"]


def draw(
    found: dict[str, Any],
    selection: Selection,
    *,
    problem: str,
    message: str,
    size: tuple[int, int],
) -> RenderableType:  # fmt: skip
    """Return the frame.

    Args:
        found: State of the proxy.
        selection: The model that keys act on.
        problem: Why the state is not the present one; empty if it is.
        message: Result of the last key.
        size: Columns and rows of the terminal.
    """
    above = [_line(text, "" if place else "bold") for place, text in enumerate(title_lines(found))]
    if problem:
        above[0] = _line(problem, "bold red")
    width, height = size
    room = max(height - len(above) - 4, 1)  # header of the table, message, keys, a blank line
    models = found["models"]
    chosen = selection.index(models)
    first = min(max(chosen - room // 2, 0), max(len(models) - room, 0))
    table = _table(models[first : first + room], chosen - first, is_old=bool(problem), width=width)
    below = [_line(message, "yellow"), _line(_KEYS, "dim")]
    return Group(*above, table, Text(""), *below)


def _line(text: str, style: str = "") -> Text:
    return Text(" ".join(text.split()), style=style, no_wrap=True, overflow="ellipsis")


def _table(models: Sequence[dict[str, Any]], chosen: int, *, is_old: bool, width: int) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    names = HEADER[: len(HEADER) - (width < _ALL_WIDTH) - (width < _MOST_WIDTH)]
    for name in names:
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", ratio=1 if name == names[-1] else None,
            min_width=8 if name == "MODEL" else None,
            justify="right" if name in _NUMBERS else "left",
        )  # fmt: skip
    now = time.time()
    for place, model in enumerate(models):
        texts = ["-" if cell in (None, "") else str(cell) for cell in row(model, now)]
        cells = [_line(text) for text in texts[: len(names)]]
        if not is_old:
            cells[1].stylize(_STYLES.get(model["state"], ""))
        style = "reverse" if place == chosen else "dim" if is_old else ""
        table.add_row(*cells, style=style)
    return table
