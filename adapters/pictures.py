"""Pictures of charts as SVG and PNG, laid out by Graphviz.

`draw` needs the program ``dot``; the package swapchart.machine writes diagrams as text without it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace

from ..machine import ChartError, Document, SwapchartError
from ..machine.drawing.dot import SMALL, to_dot
from ..machine.drawing.svg import size, to_svg
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
        ChartError: The format is unknown, or the view names a state that the chart does not have.
        SwapchartError: Graphviz is missing or fails.
    """
    if format not in FORMATS:
        raise ChartError("format", f"expected one of {', '.join(FORMATS)}; got {format!r}")
    source, layout, chosen = _fitted(document, view or View())
    if format == "png":
        return _dot(source, "png")
    return to_svg(layout, theme=chosen.theme).encode()


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


def _fitted(document: Document, view: View) -> tuple[str, str, View]:
    """Return DOT source, layout and view of the first candidate that fits, or of the narrowest."""
    best: tuple[float, str, str, View] | None = None
    for candidate in fitting(document, view):
        source = to_dot(document, candidate)
        layout = _dot(source, "json").decode()
        width = size(layout)[0]
        if best is None or width < best[0]:
            best = (width, source, layout, candidate)
        if view.max_width is None or SMALL * view.max_width / width >= SMALLEST:
            return source, layout, candidate
    assert best is not None
    return best[1:]


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
        raise SwapchartError(f"`dot` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
