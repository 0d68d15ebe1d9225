"""Views: the part of a chart that one diagram shows, and how it is shown.

`View` says what to draw; `drawing` selects it from a document. A composite state beyond the depth
of a view is one box, and the edges of what is inside it start and end at that box. A view with a
focus shows a composite state from the inside, with the neighbors that its edges lead to, or an
atomic state among its neighbors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from ...dataclass import dataclass, field
from ..document import Document
from ..errors import ChartError
from .diagram_model import Picture, picture
from .trace import HasTrace, TraceMove

#: Most boxes of an overview.
MOST_BOXES = 12
#: Parts that a view can hide.
HIDEABLE = ("bookkeeping", "ignored", "guards", "actions", "internal", "incoming")

Direction: TypeAlias = Literal["auto", "TB", "LR"]
Theme: TypeAlias = Literal["auto", "light", "dark"]
_LABELS: list[Literal["auto", "beside", "between"]] = ["beside", "between"]
_SPACINGS = (1.0, 1.6)
_ORIGINS = ("user", "activity", "timer", "process", "chart", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Selection of what a diagram shows.

    Attributes:
        depth: Levels of states to draw, counted from the outermost ones or, with a composite focus,
            from its children; >= 1. None means all of them.
        focus: State to draw with its neighbors; empty means the whole chart.
        collapse: Composite states to draw as one box.
        only: Origins of the transitions to draw, of user, activity, timer, process,
            chart (raised events) and "" (eventless); empty means all.
        hide: Parts to leave out. ``bookkeeping``: actions that only start or cancel timers or
            cancel activities. ``ignored``: transitions without target and actions. ``guards``,
            ``actions``: these parts of each label. ``internal``: transitions without target.
            ``incoming``: edges that lead into the focus.
        direction: TB (top to bottom), LR (left to right), or auto: the one that fits `max_width`.
        max_width: Width in pixels of the page that the diagram is for, >= 200. Wider diagrams get
            another direction or less depth, as far as those are not given. None means any width.
        theme: Colors; auto follows the reader's system, in SVG only.
        trace: Steps to highlight: moves, a checker's finding for its moves, or events such as
            ``submit(value=50)``, which an instance of the chart takes from its creation on.
        active: Configuration to highlight.
        title: Caption; None means the name of the chart and of the focus.
        legend: Add a legend of the colors in use.
        links: State -> address of the page that its box leads to, in SVG only.
        edges: Course of the edges: curved, straight or orthogonal.
        labels: Place of labels: ``beside`` their edges, or ``between`` two halves, which other
            edges and labels rarely touch; auto: the one in which fewer do.
        spacing: Distance of boxes, relative to the usual one; 0.2 to 10. None means the usual one,
            or a larger one if labels touch.
    """

    depth: int | None = None
    focus: str = ""
    collapse: Collection[str] = ()
    only: Collection[str] = ()
    hide: Collection[str] = ("bookkeeping", "ignored")
    direction: Direction = "auto"
    max_width: int | None = 900
    theme: Theme = "auto"
    trace: Sequence[TraceMove | str] | HasTrace = ()
    active: Collection[str] = ()
    title: str | None = None
    legend: bool = True
    links: Mapping[str, str] = field(default_factory=dict)
    edges: Literal["curved", "straight", "orthogonal"] = "curved"
    labels: Literal["auto", "beside", "between"] = "auto"
    spacing: float | None = None

    @property
    def moves(self) -> tuple[TraceMove, ...]:
        """Moves of `trace`.

        Raises:
            ChartError: It has events, whose moves only `swapchart.machine.render` finds.
        """
        steps = self.trace if isinstance(self.trace, Sequence) else self.trace.trace
        if any(isinstance(step, str) for step in steps):
            raise ChartError("trace", "expected moves; `render` and `draw` accept events too")
        return tuple(step for step in steps if not isinstance(step, str))

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            ChartError: A value is out of range.
        """
        if self.depth is not None and self.depth < 1:
            raise ChartError("depth", f"expected at least 1 level, got {self.depth}")
        if self.max_width is not None and self.max_width < 200:
            raise ChartError("max_width", f"expected at least 200 px, got {self.max_width}")
        if self.spacing is not None and not 0.2 <= self.spacing <= 10:
            raise ChartError("spacing", f"expected 0.2 to 10, got {self.spacing}")
        for name, values, known in (
            ("hide", self.hide, HIDEABLE),
            ("only", self.only, _ORIGINS),
            ("direction", [self.direction], ("auto", "TB", "LR")),
            ("theme", [self.theme], ("auto", "light", "dark")),
            ("edges", [self.edges], ("curved", "straight", "orthogonal")),
            ("labels", [self.labels], ("auto", "beside", "between")),
        ):
            unknown = sorted(set(values) - set(known))
            if unknown:
                raise ChartError(
                    name, f"expected {', '.join(filter(None, known))}; got {unknown[0]!r}"
                )


def levels(picture_: Picture) -> int:
    """Return the number of levels of the chart."""
    return max((len(node.above) + 1 for node in picture_.nodes.values()), default=1)


def overview_depth(picture_: Picture) -> int:
    """Return the largest depth at which a diagram has at most `MOST_BOXES` boxes."""
    for depth in range(levels(picture_), 1, -1):
        boxes = [
            node
            for node in picture_.nodes.values()
            if len(node.above) + 1 == depth or (len(node.above) + 1 < depth and not node.children)
        ]
        if len(boxes) <= MOST_BOXES:
            return depth
    return 1


def overview(document: Document) -> View:
    """Return the view that shows a whole chart in at most `MOST_BOXES` boxes, without actions."""
    return View(depth=overview_depth(picture(document)), hide=("bookkeeping", "ignored", "actions"))


def full(document: Document) -> View:
    """Return the view that shows every state and action of a chart, in any width."""
    return View(depth=levels(picture(document)), hide=(), max_width=None)


def inside(document: Document, state: str) -> View:
    """Return the view of the inside of the composite *state*, one level deep."""
    return View(focus=state, depth=1)


def composites(document: Document) -> list[str]:
    """Return the states that have states inside, outermost first."""
    return [node.id for node in picture(document).nodes.values() if node.children]


def views(document: Document) -> dict[str, View]:
    """Return name -> view: ``overview``, then one for the inside of each composite state."""
    return {"overview": overview(document)} | {
        name: inside(document, name) for name in composites(document)
    }


def fitting(document: Document, view: View) -> Iterator[list[View]]:
    """Yield the views that may be drawn in place of *view* to fit its width, by depth.

    All views of a list have the same depth; the first one is the best if they fit equally well.
    """
    directions = [view.direction]
    if view.direction == "auto":
        directions = ["TB", "LR"] if view.max_width is not None else ["TB"]
    labels = [view.labels] if view.labels != "auto" else _LABELS
    depths: list[int | None] = [view.depth]
    if view.depth is None and not view.focus and view.max_width is not None:
        depths += range(levels(picture(document)) - 1, 0, -1)
    for depth in depths:
        yield [
            replace(view, depth=depth, direction=direction, labels=place, spacing=spacing)
            for direction in directions
            for place in labels
            for spacing in ([view.spacing] if view.spacing is not None else _SPACINGS)
        ]
