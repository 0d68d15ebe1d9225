"""Places of states for a drawing in a browser, which has no Graphviz.

States inside of one another are boxes inside of boxes. Within a box, a state is in the row behind
that of the nearest state that leads to it, counted from the initial state; long rows are wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...dataclass import dataclass
from .diagram_model import Picture

#: Pixels; a letter is as wide as the average of DejaVu Sans Bold at 13 px, a wide font.
_LETTER, _NAME_HEIGHT, _SIDE, _GAP_X, _GAP_Y, _PADDING = 9.0, 28.0, 28.0, 26.0, 18.0, 14.0
_WIDEST = 760.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Box of a state in pixels, from the top left corner of the drawing."""

    x: float
    y: float
    width: float
    height: float


def places(picture: Picture) -> dict[str, Place]:
    """Return the place of each state of *picture*; no two boxes of one parent overlap."""
    roots = [name for name, node in picture.nodes.items() if not node.above]
    sizes: dict[str, tuple[float, float]] = {}
    offsets: dict[str, tuple[float, float]] = {}
    _arrange(picture, "", roots, picture.initial, sizes, offsets)
    found: dict[str, Place] = {}
    for name, node in picture.nodes.items():  # ancestors come first
        x, y = offsets[name]
        if node.above:
            parent = found[node.above[-1]]
            x, y = x + parent.x, y + parent.y
        found[name] = Place(x=x, y=y, width=sizes[name][0], height=sizes[name][1])
    return found


def _arrange(
    picture: Picture, parent: str, children: Sequence[str], initial: str,
    sizes: dict[str, tuple[float, float]], offsets: dict[str, tuple[float, float]],
) -> None:  # fmt: skip
    """Set the sizes of *children*, their offsets in *parent*, and the size of *parent*."""
    for name in children:
        node = picture.nodes[name]
        width = len(name) * _LETTER + _SIDE
        if node.children:
            _arrange(picture, name, node.children, node.initial, sizes, offsets)
        else:
            sizes[name] = width, _NAME_HEIGHT
    top = _NAME_HEIGHT + _PADDING / 2 if parent else 0.0
    widest = len(parent) * _LETTER + _SIDE
    y = top
    for row in _wrapped(_rows(picture, children, initial), sizes):
        x = _PADDING if parent else 0.0
        for name in row:
            offsets[name] = x, y
            x += sizes[name][0] + _GAP_X
        widest = max(widest, x - _GAP_X + _PADDING)
        y += max(sizes[name][1] for name in row) + _GAP_Y
    sizes[parent] = widest, y - _GAP_Y + _PADDING


def _rows(picture: Picture, children: Sequence[str], initial: str) -> list[list[str]]:
    """Return *children* by their distance from *initial*; those that nothing leads to come last."""
    holder = {
        name: next((each for each in (*node.above, name) if each in children), "")
        for name, node in picture.nodes.items()
    }
    follows: dict[str, list[str]] = {name: [] for name in children}
    for edge in picture.edges:
        source, target = holder[edge.source], holder[edge.target]
        if source and target and source != target:
            follows[source].append(target)
    start = initial if initial in follows else children[0]
    distance = _distances(follows, start)
    last = max(distance.values()) + 1
    rows: list[list[str]] = [[] for _ in range(last + 1)]
    for name in children:
        rows[distance.get(name, last)].append(name)
    return [row for row in rows if row]


def _distances(follows: Mapping[str, Sequence[str]], start: str) -> dict[str, int]:
    distance = {start: 0}
    ahead = [start]
    for name in ahead:  # grows while it is read
        for target in follows[name]:
            if target not in distance:
                distance[target] = distance[name] + 1
                ahead.append(target)
    return distance


def _wrapped(
    rows: Sequence[Sequence[str]], sizes: Mapping[str, tuple[float, float]]
) -> list[list[str]]:
    found: list[list[str]] = []
    for row in rows:
        width = _WIDEST + 1
        for name in row:
            if width + sizes[name][0] > _WIDEST:
                found.append([])
                width = 0.0
            found[-1].append(name)
            width += sizes[name][0] + _GAP_X
    return found
