"""A chart as Graphviz source, in UML notation.

All nodes are written first, each inside its cluster, then all edges at the root: Graphviz adds a
node to the cluster in which it is first mentioned, also by an edge. Edges of compound states are
clipped at their cluster (``lhead``, ``ltail``): they start at an invisible point below the states
inside and end at the initial one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from ..document import Document
from .diagram_model import Label
from .palette import ORIGINS, ROLES, Palette
from .selection import Arrow, Box, Drawing, Entry, select
from .views import View

#: Fonts with equal widths, so that a text fits wherever one of them is installed.
FONT = "Liberation Sans,Arial,Helvetica,sans-serif"
#: Sizes in pixels: titles, names of states, everything else.
TITLE, NAME, SMALL = 15, 13, 11
_WRAP = 26
_CONNECTIVE = re.compile(r" (?=(?:and|or|if|else) )")
_LEGEND_COLUMNS = 4
_SPLINES = {"curved": "true", "straight": "polyline", "orthogonal": "ortho"}


def to_dot(document: Document, view: View | None = None) -> str:
    """Write *document* as a graph for ``dot``.

    Args:
        document: The chart.
        view: Part of the chart to show; None means all of it.

    Raises:
        ChartError: The view names a state that the chart does not have.
    """
    return dot_source(select(document, view or View()))


def dot_source(drawing: Drawing) -> str:
    """Write *drawing* as a graph for ``dot``."""
    return "\n".join(_Writer(drawing).lines()) + "\n"


class _Writer:
    """Writes one drawing."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing, self._view = drawing, drawing.view
        self._palette = Palette("dark" if drawing.view.theme == "dark" else "light")
        arrows = drawing.arrows
        inside = {a.source for a in arrows if self._leads_inside(a)}
        self._any = {name for name in inside if drawing.boxes[name].children}
        self._leaving = {
            a.source for a in arrows if a.source not in inside and drawing.boxes[a.source].children
        } | {a.source for a in arrows if not self._leads_inside(a)} & self._any

    def _leads_inside(self, arrow: Arrow) -> bool:
        target = self._drawing.boxes[arrow.target]
        return arrow.source == arrow.target or arrow.source in target.above

    def lines(self) -> Iterator[str]:
        """Yield the lines of the graph."""
        view, ink, font = self._view, self._palette["ink"], f'fontname="{FONT}"'
        direction = "LR" if view.direction == "LR" else "TB"
        yield f'digraph "{_quoted(self._drawing.title)}" {{'
        yield f"  compound=true; newrank=true; rankdir={direction}; splines={_SPLINES[view.edges]};"
        wide, high = (size * (view.spacing or 1) for size in (0.25, 0.35))
        yield f"  nodesep={wide:g}; ranksep={high:g}; pad=0.15; outputorder=edgesfirst;"
        yield f'  bgcolor="{self._palette["page"]}";'
        yield f'  graph [{font}, fontsize={NAME}, fontcolor="{ink}", style="rounded,filled"];'
        yield f'  node [{font}, fontsize={NAME}, fontcolor="{ink}", shape=box];'
        yield f"  edge [{font}, fontsize={SMALL}, arrowsize=0.7, penwidth=1.1];"
        yield f"  labelloc=t; labeljust=l; label=<{self._caption()}>;"
        if self._drawing.initial:
            yield self._initial("", "  ")
        for box in self._drawing.children(""):
            yield from self._box(box, "  ")
        yield from self._between("", "  ")
        yield from self._regions()
        yield from self._initial_edges()
        for arrow in self._drawing.arrows:
            yield from self._arrow(arrow)
        yield "}"

    # ---- boxes ---------------------------------------------------------------------------
    def _initial(self, parent: str, indent: str) -> str:
        ink = self._palette["ink"]
        return (
            f'{indent}"{_start(parent)}" [shape=circle, label="", width=0.13, fixedsize=true, '
            f'style=filled, fillcolor="{ink}", color="{ink}"];'
        )

    def _box(self, box: Box, indent: str) -> Iterator[str]:
        if box.children:
            yield from self._cluster(box, indent)
            return
        fill, line = self._colors(box)
        parts = [f'fillcolor="{fill}"', f'color="{line}"', *self._extras(box)]
        style = "rounded,filled,dashed" if box.is_region else "rounded,filled"
        match box.kind:
            case "choice":
                parts += ["shape=diamond, style=filled, height=0.5", 'margin="0.01,0.01"']
                parts += [f"fontsize={SMALL}", f'label="{_quoted(box.text)}"']
            case "history" | "deep_history":
                mark = "H*" if box.kind == "deep_history" else "H"
                parts += [f'shape=circle, width=0.3, fixedsize=true, label="{mark}"']
            case _:
                width = 2.4 if box.is_active or box.is_taken else 1.1
                parts += [f'style="{style}", penwidth={width}, margin="0.11,0.06"']
                parts += ["peripheries=2"] * (box.kind == "final")
                parts.append(f"label=<{self._body(box)}>")
        yield f'{indent}"{box.id}" [{", ".join(parts)}];'

    def _cluster(self, box: Box, indent: str) -> Iterator[str]:
        line, width = self._palette["cluster line"], 1.0
        if box.is_active or box.is_taken:
            line, width = self._colors(box)[1], 2.4
        look = "rounded,filled,dashed" if box.is_region else "rounded,filled"
        inner = indent + "  "
        yield f'{indent}subgraph "cluster_{box.id}" {{'
        yield (
            f'{inner}label=<{self._body(box)}>; labeljust=l; margin=10; style="{look}"; '
            f'fillcolor="{self._palette[f"cluster {min(len(box.above), 3)}"]}"; '
            f'color="{line}"; penwidth={width}; {"; ".join(self._extras(box))}'
        )
        if box.initial:
            yield self._initial(box.id, inner)
        if box.kind == "parallel":
            yield f'{inner}"{_first(box.id)}" [shape=point, style=invis, width=0.02];'
        if box.id in self._leaving:
            yield f'{inner}"{_last(box.id)}" [shape=point, style=invis, width=0.02];'
        if box.id in self._any:
            yield (
                f'{inner}"{_any(box.id)}" [shape=plain, fontsize={SMALL}, '
                f'fontcolor="{self._palette["muted"]}", label=<<I>any state</I>>];'
            )
        for child in self._drawing.children(box.id):
            yield from self._box(child, inner)
        yield from self._between(box.id, inner)
        yield f"{indent}}}"

    def _extras(self, box: Box) -> list[str]:
        text = [f'id="state-{_quoted(box.id)}"', f'tooltip="{_quoted(box.title)}"']
        return text + ([f'URL="{_quoted(box.link)}"'] if box.link else [])

    def _colors(self, box: Box) -> tuple[str, str]:
        purpose = box.role or "box"
        if box.kind in ("folded", "outside"):
            purpose = box.kind
        if box.is_taken:
            purpose = "taken"
        if box.is_active:
            purpose = "active"
        return self._palette[purpose], self._palette[f"{purpose} line"]

    def _body(self, box: Box) -> str:
        rows = [f"<B>{escape(box.text)}</B>"]
        if box.kind == "parallel":
            rows[0] += self._small(" (parallel)")
        if box.kind == "folded":
            rows.append(self._small(f"{box.size} state{'s' * (box.size != 1)} inside"))
        for entry in box.entered:
            rows += self._entry(entry)
        for word, actions in (("entry", box.enter), ("exit", box.exit)):
            if actions:
                rows += map(self._small, wrapped(f"{word} / ", actions, _WRAP + 6))
        for label in box.inside:
            rows += [self._sized(row) for row in self._label(label)]
        if len(rows) == 1:
            return rows[0]
        return '<BR ALIGN="LEFT"/>'.join(rows) + '<BR ALIGN="LEFT"/>'

    def _entry(self, entry: Entry) -> Iterator[str]:
        mark = ":" if entry.labels else ""
        for row in wrapped("from ", (*entry.sources[:-1], entry.sources[-1] + mark), _WRAP):
            yield self._small(row)
        for label in entry.labels:
            yield from (f"{self._small('  ')}{self._sized(row)}" for row in self._label(label))

    def _small(self, text: str) -> str:
        return self._sized(f'<FONT COLOR="{self._palette["muted"]}">{escape(text)}</FONT>')

    def _sized(self, markup: str) -> str:
        return f'<FONT POINT-SIZE="{SMALL}">{markup}</FONT>'

    def _regions(self) -> Iterator[str]:
        """Keep regions in document order, and the ends of edges of a cluster above and below it."""
        for box in self._drawing.boxes.values():
            children = [self._drawing.boxes[name] for name in box.children]
            if box.kind == "parallel":
                heads = " -> ".join(f'"{self._head(child)}"' for child in children)
                yield f"  {{ rank=same; {heads} [style=invis]; }}"
                for child in children:
                    yield f'  "{_first(box.id)}" -> "{self._head(child)}" [style=invis];'
            if box.id in self._leaving:
                regions = children if box.kind == "parallel" else children[-1:]
                for child in regions:
                    yield f'  "{self._tail(child)}" -> "{_last(box.id)}" [style=invis];'

    def _head(self, box: Box) -> str:
        """Return the drawn node of *box* at which edges end."""
        if not box.children:
            return box.id
        return _first(box.id) if box.kind == "parallel" else _start(box.id)

    def _tail(self, box: Box) -> str:
        """Return the drawn node of *box* at which edges start."""
        if not box.children:
            return box.id
        if box.id in self._leaving:
            return _last(box.id)
        return self._tail(self._drawing.boxes[box.children[-1]])

    # ---- edges ---------------------------------------------------------------------------
    def _initial_edges(self) -> Iterator[str]:
        starts = {"": self._drawing.initial}
        starts |= {box.id: box.initial for box in self._drawing.boxes.values()}
        for parent, child in starts.items():
            if child:
                box = self._drawing.boxes[child]
                lhead = f', lhead="cluster_{child}"' if box.children else ""
                yield (
                    f'  "{_start(parent)}" -> "{self._head(box)}" '
                    f'[color="{self._palette["ink"]}"{lhead}];'
                )

    def _arrow(self, arrow: Arrow) -> Iterator[str]:
        boxes = self._drawing.boxes
        source, target = boxes[arrow.source], boxes[arrow.target]
        origins = {label.origin for label in arrow.labels}
        color = self._palette["ink"]
        if len(origins) == 1:
            color = self._palette.origin(origins.pop())
        options = []
        tail = arrow.source
        if source.children:
            if self._leads_inside(arrow):
                tail = _any(source.id)
            else:
                tail = _last(source.id)
                if target.id not in source.above:
                    options.append(f'ltail="cluster_{source.id}"')
        if target.children and target.id not in source.above and target.id != source.id:
            options.append(f'lhead="cluster_{target.id}"')
        if arrow.steps:
            color = self._palette["taken line"]
            options.append("penwidth=2.6")
        look = [f'color="{color}"', f'tooltip="{_quoted(arrow.title)}"']
        head = self._head(target)
        if self._is_between(arrow):
            middle = _middle(arrow)
            first = [*look, *(o for o in options if not o.startswith("lhead"))]
            second = [*look, *(o for o in options if not o.startswith("ltail"))]
            yield f'  "{tail}" -> "{middle}" [{", ".join(first)}, arrowhead=none];'
            yield f'  "{middle}" -> "{head}" [{", ".join(second)}];'
            return
        text = self._text(arrow)
        if text:
            look += [f"label=<{text}>", f'labeltooltip="{_quoted(arrow.title)}"']
        yield f'  "{tail}" -> "{head}" [{", ".join([*look, *options])}];'

    def _text(self, arrow: Arrow) -> str:
        """Return the label of *arrow* as markup; may be empty."""
        rows = [row for label in arrow.labels for row in self._label(label)]
        if arrow.steps:
            numbers = ", ".join(map(str, arrow.steps))
            color = self._palette["taken line"]
            rows.insert(0, f'<FONT COLOR="{color}"><B>step {numbers}</B></FONT>')
        return "".join(f'&#160;{row}&#160;<BR ALIGN="LEFT"/>' for row in rows)

    def _is_between(self, arrow: Arrow) -> bool:
        return self._view.labels == "between" and bool(self._text(arrow))

    def _between(self, parent: str, indent: str) -> Iterator[str]:
        """Yield the labels that are nodes, each in the innermost cluster around both ends."""
        boxes = self._drawing.boxes
        for arrow in filter(self._is_between, self._drawing.arrows):
            ends = [boxes[arrow.source], boxes[arrow.target]]
            around = [(*box.above, box.id) if box.children else box.above for box in ends]
            if arrow.source == arrow.target or not self._leads_inside(arrow):
                around = [box.above for box in ends]
            common = [a for a, b in zip(*around, strict=False) if a == b]
            if (common or [""])[-1] == parent:
                yield (
                    f'{indent}"{_middle(arrow)}" [shape=plain, fontsize={SMALL}, '
                    f'tooltip="{_quoted(arrow.title)}", label=<{self._text(arrow)}>];'
                )

    def _label(self, label: Label) -> list[str]:
        """Return the rows of *label*, broken between names."""
        color, muted = self._palette.origin(label.origin), self._palette["muted"]
        rows: list[str] = []
        width = 0
        for row in wrapped("", label.events, _WRAP) if label.events else ():
            rows.append(f'<FONT COLOR="{color}"><B>{escape(row)}</B></FONT>')
            width = len(row)
        for text, ink in (
            (f"[{label.guard}]" if label.guard else "", self._palette["ink"]),
            (f"/ {', '.join(label.actions)}" if label.actions else "", muted),
        ):
            if not text:
                continue
            pieces = [text]
            if len(text) > _WRAP:
                is_guard = text[0] == "["
                pieces = _clauses(text) if is_guard else wrapped(text[:2], label.actions, _WRAP)
            for index, piece in enumerate(pieces):
                markup = f'<FONT COLOR="{ink}">{escape(piece)}</FONT>'
                if rows and not index and width + len(piece) < _WRAP:
                    rows[-1] += f" {markup}"
                    width += len(piece) + 1
                else:
                    rows.append(markup)
                    width = len(piece)
        return rows

    # ---- caption -------------------------------------------------------------------------
    def _caption(self) -> str:
        title = f'<FONT POINT-SIZE="{TITLE}"><B>{escape(self._drawing.title)}</B></FONT>'
        cells = list(self._legend()) if self._view.legend else []
        rows = [f'<TR><TD ALIGN="LEFT" COLSPAN="{_LEGEND_COLUMNS}">{title}</TD></TR>']
        rows += (
            f"<TR>{''.join(cells[at : at + _LEGEND_COLUMNS])}</TR>"
            for at in range(0, len(cells), _LEGEND_COLUMNS)
        )
        return (
            '<TABLE BORDER="0" CELLSPACING="3" CELLPADDING="2" CELLBORDER="0">'
            f"{''.join(rows)}</TABLE>"
        )

    def _legend(self) -> Iterator[str]:
        """Yield a cell for each color in use."""
        drawing, palette = self._drawing, self._palette
        origins = {label.origin for arrow in drawing.arrows for label in arrow.labels}
        origins |= {label.origin for box in drawing.boxes.values() for label in box.inside}
        for origin, meaning in ORIGINS.items():
            if origin in origins:
                sign = f'<FONT COLOR="{palette.origin(origin)}"><B>{origin or "[guard]"}</B></FONT>'
                yield f'<TD ALIGN="LEFT">{self._sized(f"{sign} {meaning}")}</TD>'
        shown = {box.role for box in drawing.boxes.values()}
        meanings = [(role, ROLES[role]) for role in ROLES if role in shown]
        meanings += [("active", "active now")] * any(b.is_active for b in drawing.boxes.values())
        meanings += [("taken", "on the trace")] * any(b.is_taken for b in drawing.boxes.values())
        for purpose, meaning in meanings:
            look = f'BGCOLOR="{palette[purpose]}" BORDER="1" COLOR="{palette[f"{purpose} line"]}"'
            yield f'<TD ALIGN="LEFT" {look}>{self._sized(meaning)}</TD>'


def _start(parent: str) -> str:
    return f"{parent} start"


def _any(parent: str) -> str:
    return f"{parent} any"


def _first(parent: str) -> str:
    return f"{parent} first"


def _last(parent: str) -> str:
    return f"{parent} last"


def _middle(arrow: Arrow) -> str:
    return f"{arrow.source} to {arrow.target}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _clauses(text: str) -> list[str]:
    """Break a condition before its connectives, into rows of at most `_WRAP` where that fits."""
    rows: list[str] = []
    for clause in _CONNECTIVE.split(text):
        if rows and len(rows[-1]) + 1 + len(clause) <= _WRAP:
            rows[-1] += f" {clause}"
        else:
            rows.append(clause)
    return rows


def wrapped(lead: str, names: tuple[str, ...], width: int = _WRAP) -> list[str]:
    """Break *names*, separated by commas after *lead*, into rows of at most *width* characters."""
    rows = [lead]
    for index, name in enumerate(names):
        piece = name if index == len(names) - 1 else f"{name}, "
        if len(rows[-1]) + len(piece.rstrip()) > width and rows[-1].strip() != lead.strip():
            rows.append(" " * len(lead))
        rows[-1] += piece
    return [row.rstrip() for row in rows]
