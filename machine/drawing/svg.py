"""A laid-out chart as SVG, made from what ``dot -Tjson`` says about positions.

Each text has the width that the layout gave it (``textLength``), so that it fits its box in every
font. Each state and edge has a ``title``, for tooltips, and the whole picture a description for
screen readers. With the theme ``auto`` a style sheet changes the colors on dark pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ...dataclass import dataclass
from .layout import MARGIN
from .palette import DARK_OF
from .views import Theme

_FAMILY = "'Liberation Sans', Arial, Helvetica, Arimo, 'Nimbus Sans', sans-serif"
_SHAPES = {"P": "polygon", "p": "polygon", "L": "polyline"}


def to_svg(layout: str, *, theme: Theme = "auto") -> str:
    """Write a layout as SVG.

    Args:
        layout: Output of ``dot -Tjson`` for the source that `to_dot` wrote.
        theme: Colors; must be ``dark`` if the source was written with that theme.
    """
    return "\n".join(_Svg(json.loads(layout), theme).lines()) + "\n"


#: Width of a blank in these fonts; ems.
_BLANK = 0.278


@dataclass(slots=True)
class _Pen:
    """State of the drawing operations of one item."""

    stroke: str = "none"
    fill: str = "none"
    size: float = 0.0
    is_bold: bool = False
    is_italic: bool = False
    style: str = ""


class _Svg:
    """Writes one layout."""

    def __init__(self, graph: Mapping[str, Any], theme: Theme) -> None:
        self._graph, self._theme = graph, theme
        _, _, self._width, self._height = map(float, graph["bb"].split(","))
        self._used: set[tuple[str, str]] = set()

    def lines(self) -> Iterator[str]:
        graph = self._graph
        objects, edges = graph.get("objects", []), graph.get("edges", [])
        body = [self._group(graph, "graph")] if graph.get("_ldraw_") else []
        clusters = [item for item in objects if item["name"].startswith("cluster_")]
        body += (self._group(item, "cluster") for item in clusters)
        body += (self._group(item, "edge") for item in edges)
        body += (self._group(item, "node") for item in objects if item not in clusters)
        width, height = self._width + 2 * MARGIN, self._height + 2 * MARGIN
        has_links = any(item.get("URL") for item in objects)
        role = "graphics-document" if has_links else "img"
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}" role="{role}" '
            f'aria-labelledby="title description" font-family="{_FAMILY}">'
        )
        yield f'<title id="title">{_text(graph["name"])}</title>'
        yield f'<desc id="description">{_text(self._description(objects, edges))}</desc>'
        page = graph.get("bgcolor", "#ffffff")
        background = (
            f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="{width:g}" height="{height:g}"'
            f"{self._colors(fill=page)}/>"
        )
        yield from self._style()
        yield background
        yield from filter(None, body)
        yield "</svg>"

    def _style(self) -> Iterator[str]:
        yield "<style>"
        yield "a:hover text{text-decoration:underline}"
        if self._theme == "auto":
            rules = "".join(
                f".{kind[0]}{color[1:]}{{{kind}:{DARK_OF[color]}}}"
                for kind, color in sorted(self._used)
            )
            yield f"@media (prefers-color-scheme:dark){{{rules}}}"
        yield "</style>"

    def _description(
        self, objects: Iterable[Mapping[str, Any]], edges: Iterable[Mapping[str, Any]]
    ) -> str:
        """Return every state and edge in words."""
        said = [item["tooltip"] for item in (*objects, *edges) if item.get("tooltip")]
        return ". ".join(text.replace("\\n", "; ").replace("\n", "; ") for text in said)

    def _group(self, item: Mapping[str, Any], kind: str) -> str:
        pen = _Pen()
        drawn = "".join(
            self._operation(pen, operation)
            for key in ("_draw_", "_ldraw_", "_hdraw_", "_hldraw_", "_tdraw_", "_tldraw_")
            if kind != "graph" or key == "_ldraw_"
            for operation in item.get(key, ())
        )
        if not drawn:
            return ""
        title = item.get("tooltip", "").replace("\\n", "\n")
        if title:
            drawn = f"<title>{_text(title)}</title>{drawn}"
        if item.get("URL"):
            drawn = f'<a href="{escape(item["URL"])}">{drawn}</a>'
        name = f' id="{escape(item["id"])}"' if item.get("id") else ""
        return f'<g class="{kind}"{name}>{drawn}</g>'

    def _operation(self, pen: _Pen, operation: Mapping[str, Any]) -> str:
        """Return what *operation* draws; those that only change *pen* draw nothing."""
        code = operation["op"]
        shape = _DRAW.get(code)
        if shape is not None:
            return shape(self, pen, operation)
        match code:
            case "c":
                pen.stroke = operation["color"]
            case "C":
                pen.fill = operation["color"]
            case "F":
                pen.size = operation["size"]
            case "t":
                pen.is_bold = bool(operation["fontchar"] & 1)
                pen.is_italic = bool(operation["fontchar"] & 2)
            case "S":
                pen.style = _style(pen.style, operation["style"])
        return ""

    def _points(self, points: Iterable[tuple[float, float]]) -> list[str]:
        return [f"{x:g},{self._height - y:g}" for x, y in points]

    def _polygon(self, pen: _Pen, operation: Mapping[str, Any]) -> str:
        code = operation["op"]
        points = " ".join(self._points(operation["points"]))
        return f'<{_SHAPES[code]} points="{points}"{self._paint(pen, is_filled=code.isupper())}/>'

    def _curve(self, pen: _Pen, operation: Mapping[str, Any]) -> str:
        first, *rest = self._points(operation["points"])
        paint = self._paint(pen, is_filled=operation["op"].isupper())
        return f'<path d="M{first}C{" ".join(rest)}"{paint}/>'

    def _ellipse(self, pen: _Pen, operation: Mapping[str, Any]) -> str:
        x, y, wide, high = operation["rect"]
        paint = self._paint(pen, is_filled=operation["op"].isupper())
        return f'<ellipse cx="{x:g}" cy="{self._height - y:g}" rx="{wide:g}" ry="{high:g}"{paint}/>'

    def _words(self, pen: _Pen, operation: Mapping[str, Any]) -> str:
        text = operation["text"].replace("\u00a0", " ")
        if not text.strip():
            return ""
        x, y = operation["pt"]
        width = operation["width"]
        # Blanks at the ends have a width too, and are not drawn.
        blank = _BLANK * pen.size
        left = len(text) - len(text.lstrip())
        x -= {"l": 0.0, "c": width / 2, "r": width}[operation["align"]]
        x += blank * left
        width -= blank * (len(text) - len(text.strip()))
        look = ' font-weight="bold"' * pen.is_bold + ' font-style="italic"' * pen.is_italic
        return (
            f'<text x="{x:.5g}" y="{self._height - y:.5g}" font-size="{pen.size:g}"{look} '
            f'textLength="{width:.4g}" lengthAdjust="spacingAndGlyphs"'
            f"{self._colors(fill=pen.stroke)}>{_text(text.strip())}</text>"
        )

    def _paint(self, pen: _Pen, *, is_filled: bool) -> str:
        fill = pen.fill if is_filled else "none"
        return f"{self._colors(fill=fill, stroke=pen.stroke)}{pen.style}"

    def _colors(self, **colors: str) -> str:
        """Return the attributes for *colors*, and the classes that change them on dark pages."""
        written, classes = "", []
        for kind, color in colors.items():
            is_clear = len(color) == 9 and color.endswith("00")
            color = "none" if is_clear else color[:7]
            if color == "none" and kind == "stroke":
                continue
            written += f' {kind}="{color}"'
            if self._theme == "auto" and color in DARK_OF:
                self._used.add((kind, color))
                classes.append(f"{kind[0]}{color[1:]}")
        return written + (f' class="{" ".join(classes)}"' if classes else "")


def _style(old: str, style: str) -> str:
    if style.startswith("setlinewidth("):
        width = float(style[len("setlinewidth(") : -1])
        dashes = old[old.find(" stroke-dasharray") :] if "dasharray" in old else ""
        return f' stroke-width="{width:g}"{dashes}'
    width_part = old[: old.find(" stroke-dasharray")] if "dasharray" in old else old
    if style in ("dashed", "dotted"):
        return f'{width_part} stroke-dasharray="{"5,3" if style == "dashed" else "1,4"}"'
    return width_part


def _text(text: str) -> str:
    return escape(text, quote=False)


_DRAW: dict[str, Callable[[_Svg, _Pen, Mapping[str, Any]], str]] = {
    "P": _Svg._polygon,
    "p": _Svg._polygon,
    "L": _Svg._polygon,
    "B": _Svg._curve,
    "b": _Svg._curve,
    "E": _Svg._ellipse,
    "e": _Svg._ellipse,
    "T": _Svg._words,
}
