"""Pictures of charts as SVG and PNG, laid out by Graphviz.

`draw` needs the program ``dot``; the package swapchart.machine writes diagrams as text without it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..machine import ChartError, Document, SwapchartError
from ..machine.checking.follow import with_moves
from ..machine.drawing.dot import SMALL, to_dot
from ..machine.drawing.layout import faults, size
from ..machine.drawing.svg import to_svg
from ..machine.drawing.views import View, fitting, views

FORMATS = ("svg", "png")

#: Smallest height of text at the width of the page; pixels.
SMALLEST = 9.0
_LIMIT = 60.0


def draw(document: Document, format: str = "svg", view: View | None = None) -> bytes:  # noqa: A002
    """Return a picture of *document*.

    Args:
        document: The chart.
        format: svg or png.
        view: What it shows: depth, focus, what is hidden; None means as much of the chart as fits.
            If its text would be less than `SMALLEST` high at the view's ``max_width``, another
            direction or less depth is taken, as far as the view leaves them open.

    Raises:
        ChartError: The format is unknown, or the view names a state or event that the chart does
            not have.
        SwapchartError: Graphviz is missing or fails.
    """
    if format not in FORMATS:
        raise ChartError("format", f"expected one of {', '.join(FORMATS)}; got {format!r}")
    found = _fitted(document, with_moves(document, view or View()))
    if format == "png":
        return _dot(found.source, "png")
    return to_svg(found.layout, theme=found.view.theme).encode()


def draw_all(
    document: Document, format: str = "svg", view: View | None = None  # noqa: A002
) -> dict[str, bytes]:  # fmt: skip
    """Return file name -> picture: the overview, and one for the inside of each composite state.

    Folded states link to the picture of their inside, and the neighbors of a focus to the picture
    in which they are drawn.

    Args:
        document: The chart.
        format: svg or png.
        view: Theme, width and the like; its depth and focus are replaced.

    Raises:
        SwapchartError: Graphviz is missing or fails.
    """
    base = view or View()
    files = file_names(document, format)
    pictures = {}
    for name, found in views(document).items():
        asked = replace(
            base, depth=found.depth, focus=found.focus,
            hide=found.hide if view is None or view.hide == View().hide else view.hide,
            links=_links(document, files, found.focus),
        )  # fmt: skip
        pictures[files[name]] = draw(document, format, asked)
    return pictures


def file_names(document: Document, ending: str) -> dict[str, str]:
    """Return name of a view -> name of its file, which is safe and unique."""
    names: dict[str, str] = {}
    for name in views(document):
        safe = re.sub(r"[^\w-]", "_", name)
        while f"{safe}.{ending}" in names.values():
            safe += "_"
        names[name] = f"{safe}.{ending}"
    return names


def _links(document: Document, files: Mapping[str, str], focus: str) -> dict[str, str]:
    """Return state -> file of the picture that shows its inside, or else the state itself."""
    links = {}
    for name, definition, above in document.states():
        if definition.get("states"):
            links[name] = files[name] if name != focus else files["overview"]
        elif focus not in above:
            links[name] = files[above[-1]] if above else files["overview"]
    return {name: link for name, link in links.items() if focus or link != files["overview"]}


class _DotError(SwapchartError):
    """Graphviz failed."""


class _Layout(NamedTuple):
    """A layout of a view; the smallest one is the best."""

    is_wide: bool
    faults: int
    width: float
    layout: str
    source: str
    view: View


def _fitted(document: Document, view: View) -> _Layout:
    """Return a layout that fits the page of *view* with the fewest faults, or the narrowest."""
    narrowest: _Layout | None = None
    failure: SwapchartError | None = None
    for group in fitting(document, view):
        found: list[_Layout] = []
        for candidate in group:
            if any(one.is_wide and _is_closer(one.view, candidate) for one in found):
                continue
            try:
                found.append(_laid_out(document, candidate))
            except _DotError as error:  # dot has faults of its own, which another layout avoids
                failure = failure or error
                continue
            if not found[-1].is_wide and not found[-1].faults:
                return found[-1]
        best = min(
            found, key=lambda one: (one.is_wide, one.faults if not one.is_wide else one.width)
        )
        if not best.is_wide:
            return best
        if narrowest is None or best.width < narrowest.width:
            narrowest = best
    if narrowest is None:
        assert failure is not None
        raise failure
    return narrowest


def _is_closer(one: View, other: View) -> bool:
    """Return True if only the spacing of *one* is another and smaller than that of *other*."""
    return replace(one, spacing=other.spacing) == other and (one.spacing or 1) < (
        other.spacing or 1
    )


def _laid_out(document: Document, view: View) -> _Layout:
    source = to_dot(document, view)
    layout = _dot(source, "json").decode()
    width = size(layout)[0]
    is_wide = view.max_width is not None and SMALL * view.max_width / width < SMALLEST
    return _Layout(is_wide, faults(layout), width, layout, source, view)


def _dot(source: str, format_: str) -> bytes:
    dot = shutil.which("dot")
    if dot is None:
        raise SwapchartError(
            "pictures need Graphviz, but there is no `dot`; on Debian: apt-get install graphviz"
        )
    try:
        done = subprocess.run(
            [dot, f"-T{format_}"], input=source.encode(), capture_output=True, check=False,
            timeout=_LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SwapchartError(
            f"`dot` took more than {_LIMIT:g} s; draw less of the chart"
        ) from error
    if done.returncode:
        raise _DotError(f"`dot` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
