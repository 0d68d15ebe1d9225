"""A chart as Graphviz source, in UML notation.

All nodes are written first, each inside its cluster, then all edges at the root: Graphviz adds a
node to the cluster in which it is first mentioned, also by an edge. Edges of compound states are
clipped at their cluster (``lhead``, ``ltail``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from html import escape

from ..document import Document
from .diagram_model import Edge, Label, Node, Picture, picture

_INK = "#1f2933"
_MUTED = "#5f6b7a"
_ORIGINS = {
    "user": ("#1d5fa8", "asked for from outside"),
    "activity": ("#2a7d46", "answer of an activity"),
    "timer": ("#a8620b", "a timer ran out"),
    "process": ("#b3261e", "the process ended"),
    "chart": ("#5b4b9a", "raised by the chart"),
    "": (_MUTED, "at once"),
}
_TINTS = ("#f4f6f9", "#e9eef5", "#dfe7f1", "#d5dfec")
_ROLES = {
    "serving": ("#d9f2e0", "#2a7d46"),
    "quiet": ("#e4e7eb", "#7b8794"),
    "": ("#ffffff", "#52606d"),
}
_ACTIVE = ("#ffe08a", "#c77700")
_WRAP = 34
_FONT = 'fontname="Helvetica,Arial,sans-serif"'


def to_dot(
    document: Document,
    *,
    active: Collection[str] = (),
    hide_actions: bool = False,
    hide_targetless: bool = True,
    legend: bool = True,
) -> str:
    """Write *document* as a graph for ``dot``.

    Args:
        document: The chart.
        active: Configuration to highlight.
        hide_actions: Leave out entry, exit and transition actions.
        hide_targetless: Leave out transitions without a target.
        legend: Add a legend of the colors.
    """
    return "\n".join(_Writer(document, active, hide_actions, hide_targetless).lines(legend)) + "\n"


class _Writer:
    def __init__(
        self,
        document: Document,
        active: Collection[str],
        hide_actions: bool,
        hide_targetless: bool,
    ) -> None:
        self._document, self._active = document, frozenset(active)
        self._hide_actions, self._hide_targetless = hide_actions, hide_targetless
        self._picture: Picture = picture(document)

    def lines(self, legend: bool) -> Iterator[str]:
        yield f'digraph "{self._picture.name}" {{'
        yield "  compound=true; rankdir=TB; newrank=true; splines=true;"
        yield '  nodesep=0.35; ranksep=0.55; pad=0.3; bgcolor="white"; outputorder=edgesfirst;'
        yield f'  graph [{_FONT}, fontsize=13, fontcolor="{_INK}", style="rounded,filled"];'
        yield f'  node [{_FONT}, fontsize=12, fontcolor="{_INK}", shape=box];'
        yield f"  edge [{_FONT}, fontsize=10, arrowsize=0.7, penwidth=1.1];"
        yield self._initial("", "  ")
        for node in self._picture.children(()):
            yield from self._node(node, "  ")
        yield from self._legend() if legend else ()
        yield from self._initial_edges()
        for edge in self._picture.edges:
            yield self._edge(edge)
        yield "}"

    # ---- nodes ---------------------------------------------------------------------------
    def _initial(self, parent: str, indent: str) -> str:
        return (
            f'{indent}"{_start(parent)}" [shape=circle, label="", width=0.13, fixedsize=true, '
            f'style=filled, fillcolor="{_INK}", color="{_INK}"];'
        )

    def _node(self, node: Node, indent: str) -> Iterator[str]:
        if node.children:
            yield from self._cluster(node, indent)
        elif node.kind == "choice":
            fill, line = self._colors(node)
            yield (
                f'{indent}"{node.id}" [shape=diamond, style=filled, fillcolor="{fill}", '
                f'color="{line}", height=0.55, margin="0.02,0.02", fontsize=10, '
                f'label="{node.id}"];'
            )
        elif node.kind in ("history", "deep_history"):
            text = "H*" if node.kind == "deep_history" else "H"
            yield f'{indent}"{node.id}" [shape=circle, width=0.3, fixedsize=true, label="{text}"];'
        else:
            fill, line = self._colors(node)
            peripheries = ", peripheries=2" if node.kind == "final" else ""
            width = 2.2 if node.id in self._active else 1.1
            yield (
                f'{indent}"{node.id}" [style="rounded,filled", fillcolor="{fill}", '
                f'color="{line}", penwidth={width}{peripheries}, margin="0.12,0.07", '
                f"label=<{self._body(node)}>];"
            )

    def _cluster(self, node: Node, indent: str) -> Iterator[str]:
        tint = _TINTS[min(len(node.above), len(_TINTS) - 1)]
        line, width = ("#9aa8ba", 1.0)
        if node.id in self._active:
            line, width = _ACTIVE[1], 2.2
        yield f'{indent}subgraph "cluster_{node.id}" {{'
        inner = indent + "  "
        yield (
            f'{inner}label=<{self._body(node)}>; labeljust=l; margin=14; fillcolor="{tint}"; '
            f'color="{line}"; penwidth={width};'
        )
        if node.kind != "parallel":
            yield self._initial(node.id, inner)
        if node.kind == "parallel":
            yield f'{inner}"{_any(node.id)}" [shape=point, style=invis, width=0.05];'
        elif self._needs_any(node):
            yield (
                f'{inner}"{_any(node.id)}" [shape=plain, fontsize=10, fontcolor="{_MUTED}", '
                f"label=<<I>any state of {node.id}</I>>];"
            )
        for child in self._picture.children((*node.above, node.id)):
            yield from self._node(child, inner)
        yield f"{indent}}}"

    def _colors(self, node: Node) -> tuple[str, str]:
        if node.id in self._active:
            return _ACTIVE
        promises = self._document.promises
        role = "serving" if node.id in promises.serving else ""
        return _ROLES["quiet" if node.id in promises.quiet else role]

    def _body(self, node: Node) -> str:
        rows = [f"<B>{escape(node.id)}</B>"]
        if not self._hide_actions:
            for word, actions in (("entry", node.enter), ("exit", node.exit)):
                if actions:
                    rows += _small(wrapped(f"{word} / ", actions))
        if not self._hide_targetless:
            for label in node.inside:
                rows += [f'<FONT POINT-SIZE="9">{row}</FONT>' for row in self._label(label)]
        if len(rows) == 1:
            return rows[0]
        return '<BR ALIGN="LEFT"/>'.join(rows) + '<BR ALIGN="LEFT"/>'

    # ---- edges ---------------------------------------------------------------------------
    def _initial_edges(self) -> Iterator[str]:
        yield self._initial_edge("", self._picture.initial)
        for node in self._picture.nodes.values():
            if node.initial:
                yield self._initial_edge(node.id, node.initial)

    def _initial_edge(self, parent: str, child: str) -> str:
        node = self._picture.nodes[child]
        if not node.children:
            return self._line(_start(parent), child, "", "", _INK)
        lhead = f'lhead="cluster_{child}"'
        return self._line(_start(parent), self._anchor(node, first=True), "", lhead, _INK)

    def _needs_any(self, node: Node) -> bool:
        """Return True if an edge leads from *node* to a state inside it."""
        nodes = self._picture.nodes
        return any(
            edge.source == node.id
            and (node.id in nodes[edge.target].above or edge.target == node.id)
            for edge in self._picture.edges
        )

    def _edge(self, edge: Edge) -> str:
        nodes = self._picture.nodes
        source, target = nodes[edge.source], nodes[edge.target]
        origins = {label.origin for label in edge.labels}
        color = _ORIGINS[origins.pop()][0] if len(origins) == 1 else _INK
        tail, head = edge.source, edge.target
        options = []
        if source.children:
            if source.id in target.above or source.id == target.id:
                tail = _any(source.id)
            else:
                tail = self._anchor(source, first=False)
                if target.id not in source.above:
                    options.append(f'ltail="cluster_{source.id}"')
        if target.children:
            head = self._anchor(target, first=True)
            if target.id not in source.above and target.id != source.id:
                options.append(f'lhead="cluster_{target.id}"')
        rows = (row for label in edge.labels for row in self._label(label))
        text = "".join(f'&#160;{row}&#160;<BR ALIGN="LEFT"/>' for row in rows)
        return self._line(tail, head, text, ", ".join(options), color)

    def _anchor(self, node: Node, *, first: bool) -> str:
        """Return a drawn node inside *node* to attach an edge to."""
        if node.kind == "parallel":
            return _any(node.id)
        if first:
            return _start(node.id)
        last = self._picture.nodes[node.children[-1]]
        return self._anchor(last, first=False) if last.children else last.id

    def _line(self, tail: str, head: str, label: str, options: str, color: str) -> str:
        parts = [f'color="{color}"']
        if label:
            parts.append(f"label=<{label}>")
        if options:
            parts.append(options)
        return f'  "{tail}" -> "{head}" [{", ".join(parts)}];'

    def _label(self, label: Label) -> list[str]:
        color = _ORIGINS[label.origin][0]
        text = ", ".join(label.events)
        first = f'<FONT COLOR="{color}"><B>{escape(text)}</B></FONT>' if text else ""
        if label.guard:
            first += f' <FONT COLOR="{_INK}">[{escape(label.guard)}]</FONT>'
        actions = () if self._hide_actions else label.actions
        short = len(text) + len(label.guard) + len(", ".join(actions)) + 4 <= _WRAP
        if actions and short:
            first += f' <FONT COLOR="{_MUTED}">/ {escape(", ".join(actions))}</FONT>'
        if not actions or short:
            return [first]
        more = wrapped("/ ", actions)
        return [first, *(f'<FONT COLOR="{_MUTED}">  {escape(row)}</FONT>' for row in more)]

    def _legend(self) -> Iterator[str]:
        origins = dict.fromkeys(
            label.origin for edge in self._picture.edges for label in edge.labels
        )
        rows = [
            (f'<FONT COLOR="{color}"><B>{origin or "[guard]"}</B></FONT>', meaning, "")
            for origin, (color, meaning) in _ORIGINS.items()
            if origin in origins
        ]
        promises = self._document.promises
        for role, states, meaning in (
            ("serving", promises.serving, "requests are served"),
            ("quiet", promises.quiet, "there is no process"),
        ):
            if states:
                fill, line = _ROLES[role]
                rows.append(("state", meaning, f' BGCOLOR="{fill}" BORDER="1" COLOR="{line}"'))
        cells = "".join(
            f'<TR><TD ALIGN="LEFT"{look}>{sign}</TD><TD ALIGN="LEFT">{meaning}</TD></TR>'
            for sign, meaning, look in rows
        )
        yield (
            '  "legend" [shape=plain, fontsize=10, label=<<TABLE BORDER="0" CELLSPACING="2" '
            f'CELLPADDING="2">{cells}</TABLE>>];'
        )


def _start(parent: str) -> str:
    return f"{parent} start"


def _any(parent: str) -> str:
    return f"{parent} any"


def _small(rows: Iterable[str]) -> list[str]:
    return [f'<FONT POINT-SIZE="9" COLOR="{_MUTED}">{escape(row)}</FONT>' for row in rows]


def wrapped(lead: str, names: tuple[str, ...], width: int = _WRAP) -> list[str]:
    """Break *names*, separated by commas after *lead*, into rows of at most *width* characters."""
    rows = [lead]
    for index, name in enumerate(names):
        piece = name if index == len(names) - 1 else f"{name}, "
        if len(rows[-1]) + len(piece.rstrip()) > width and rows[-1].strip() != lead.strip():
            rows.append(" " * len(lead))
        rows[-1] += piece
    return [row.rstrip() for row in rows]
