"""The charts that tests of the machine share."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from swapchart.machine import Document, lifecycle, read

FOLDER = Path(__file__).parent.parent / "charts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def chart(name: str) -> Document:
    """Return a chart of tests/charts, or our own under the name ``lifecycle``."""
    if name == "lifecycle":
        return lifecycle()
    return read((FOLDER / f"{name}.yaml").read_text("utf-8"))
