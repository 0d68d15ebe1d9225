"""Colors of diagrams, on light and on dark pages.

Text has a contrast of at least 4.5 to every background on which it can stand (WCAG 2.2, 1.4.3).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Shade: TypeAlias = Literal["light", "dark"]

#: Purpose -> color on a light and on a dark page. The light ones differ from each other, so that
#: `DARK_OF` can translate a drawing.
COLORS: dict[str, tuple[str, str]] = {
    "page": ("#ffffff", "#0d1117"),
    "ink": ("#1f2933", "#e6edf3"),
    "muted": ("#4b5866", "#a5b1bd"),
    "user": ("#1a5593", "#82bdff"),
    "activity": ("#1d6336", "#63d475"),
    "timer": ("#7f4a05", "#e3b341"),
    "process": ("#a3211a", "#ff8f87"),
    "chart": ("#56449b", "#c3b0ff"),
    "box": ("#fefefe", "#0e1218"),
    "box line": ("#52606d", "#8b949e"),
    "folded": ("#eaf1fb", "#172536"),
    "folded line": ("#3b5b86", "#6f9bd1"),
    "outside": ("#fafafa", "#10151c"),
    "outside line": ("#8d99a6", "#626c78"),
    "serving": ("#d9f2e0", "#12331e"),
    "serving line": ("#2a7d46", "#3fb950"),
    "quiet": ("#e4e7eb", "#2a3038"),
    "quiet line": ("#7b8794", "#7d8894"),
    "active": ("#ffe08a", "#4d3a00"),
    "active line": ("#c77700", "#f0b72f"),
    "taken": ("#f0e7ff", "#2a1c45"),
    "taken line": ("#6f3fc9", "#cfa9ff"),
    "cluster 0": ("#f5f7fa", "#141a22"),
    "cluster 1": ("#ecf0f6", "#19202a"),
    "cluster 2": ("#e5ebf3", "#1e2631"),
    "cluster 3": ("#dee6f0", "#232c38"),
    "cluster line": ("#9aa8ba", "#4a5663"),
}

#: Color on a light page -> color on a dark page.
DARK_OF = dict(COLORS.values())

#: Sender of an event -> what its color means.
ORIGINS = {
    "user": "request from outside",
    "activity": "result of an activity",
    "timer": "timer expired",
    "process": "process ended",
    "chart": "raised by the chart",
    "": "at once",
}
#: Role of a state -> what its color means.
ROLES = {"serving": "serves requests", "quiet": "no process"}


class Palette:
    """Colors by purpose, for one kind of page."""

    def __init__(self, shade: Shade) -> None:
        self._index = ("light", "dark").index(shade)

    def __getitem__(self, purpose: str) -> str:
        """Return the color for *purpose* as ``#rrggbb``."""
        return COLORS[purpose][self._index]

    def origin(self, origin: str) -> str:
        """Return the color of the events that *origin* sends."""
        return self[origin or "muted"]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors ``#rrggbb``, from 1 to 21, by WCAG's definition."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
