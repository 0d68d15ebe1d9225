"""Measures of a layout: what ``dot -Tjson`` says about positions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import hypot
from typing import Any, NamedTuple

#: Empty space around a picture; pixels.
MARGIN = 8.0
#: Distance of the points tried along a curve; pixels.
_STEP = 2.0


class TextBox(NamedTuple):
    """Place of one text; pixels, with y upwards from the baseline."""

    left: float
    right: float
    low: float
    high: float


def size(layout: str) -> tuple[float, float]:
    """Return width and height of a layout with its margin, in pixels."""
    _, _, width, height = map(float, json.loads(layout)["bb"].split(","))
    return width + 2 * MARGIN, height + 2 * MARGIN


def faults(layout: str) -> int:
    """Return how many pairs of texts overlap, and how many texts an edge runs through."""
    graph = json.loads(layout)
    boxes = [box for item in _items(graph) for box in texts(item)]
    overlaps = sum(
        min(one.right, other.right) - max(one.left, other.left) > 1
        and min(one.high, other.high) - max(one.low, other.low) > 1
        for one, other in combinations(boxes, 2)
    )
    crossed = sum(
        any(_crosses(operation["points"], box) for operation in _curves(edge))
        for edge in graph.get("edges", ())
        for box in boxes
    )
    return overlaps + crossed


def _curves(edge: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (item for item in edge.get("_draw_", ()) if item["op"] in ("b", "B"))


def _crosses(points: Sequence[Sequence[float]], box: TextBox) -> bool:
    """Return True if the spline through *points* runs through *box*."""
    for at in range(0, len(points) - 3, 3):
        piece = points[at : at + 4]
        xs, ys = [x for x, _ in piece], [y for _, y in piece]
        is_apart = (
            max(xs) < box.left or min(xs) > box.right or max(ys) < box.low or min(ys) > box.high
        )
        if not is_apart and any(
            box.left < x < box.right and box.low < y < box.high for x, y in _course(piece)
        ):
            return True
    return False


def _items(graph: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from graph.get("objects", ())
    yield from graph.get("edges", ())


def texts(item: Mapping[str, Any]) -> Iterator[TextBox]:
    """Yield the place of the ink of each text of *item*."""
    height = 0.0
    for operation in item.get("_ldraw_", ()):
        height = operation.get("size", height)
        if operation["op"] == "T" and operation["text"].strip(" \u00a0"):
            x, y = operation["pt"]
            width = operation["width"]
            left = x - {"l": 0.0, "c": width / 2, "r": width}[operation["align"]]
            yield TextBox(left + 1, left + width - 1, y, y + 0.7 * height)


def _course(piece: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """Yield points along a cubic curve."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = piece
    length = hypot(x1 - x0, y1 - y0) + hypot(x2 - x1, y2 - y1) + hypot(x3 - x2, y3 - y2)
    count = max(4, int(length / _STEP))
    for step in range(count):
        t = step / count
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        yield a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
