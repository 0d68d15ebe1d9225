"""A chart as Mermaid source."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..document import Document
from .diagram_model import Edge, Node, Picture, picture

_CLASSES = {
    "serving": "fill:#d9f2e0,stroke:#2a7d46,color:#1f2933",
    "quiet": "fill:#ffffff,stroke:#7b8794,color:#1f2933",
    "active": "fill:#ffe08a,stroke:#c77700,stroke-width:3px,color:#1f2933",
}


def to_mermaid(
    document: Document, *, active: Collection[str] = (), hide_targetless: bool = True
) -> str:
    """Write *document* as a Mermaid ``stateDiagram-v2``.

    Args:
        document: The chart.
        active: Configuration to highlight.
        hide_targetless: Leave out transitions without a target.
    """
    view = picture(document)
    lines = ["stateDiagram-v2", "    direction TB"]
    lines += [
        f"    classDef {name} {style}" for name, style in _CLASSES.items() if name != "active"
    ]
    if active:
        lines.append(f"    classDef active {_CLASSES['active']}")
    lines += _mermaid_level(view, (), view.initial, hide_targetless)
    for edge in view.edges:
        source, target = _mermaid_ends(view, edge)
        text = "<br/>".join(str(label) for label in edge.labels)
        lines.append(f"    {source} --> {target}{f' : {text}' if text else ''}")
    lines += _mermaid_classes(document, view, active)
    return "\n".join(lines) + "\n"


def _mermaid_level(
    view: Picture, above: tuple[str, ...], initial: str, hide_targetless: bool
) -> Iterator[str]:
    indent = "    " * (len(above) + 1)
    if initial:
        yield f"{indent}[*] --> {initial}"
    for index, node in enumerate(view.children(above)):
        if index and above and view.nodes[above[-1]].kind == "parallel":
            yield f"{indent}--"
        yield from _mermaid_node(view, node, indent, hide_targetless)
        if not node.children:
            continue
        yield f"{indent}state {node.id} {{"
        ends = {end for edge in view.edges for end in _mermaid_ends(view, edge)}
        for name, text in ((_any(node.id), f"any state of {node.id}"), (_anew(node.id), "anew")):
            if name in ends:
                yield f'{indent}    state "{text}" as {name}'
        yield from _mermaid_level(view, (*above, node.id), node.initial, hide_targetless)
        yield f"{indent}}}"


def _mermaid_node(view: Picture, node: Node, indent: str, hide_targetless: bool) -> Iterator[str]:
    if node.kind == "choice":
        yield f"{indent}state {node.id} <<choice>>"
        return
    if node.kind in ("history", "deep_history"):
        yield f'{indent}state "{"H*" if node.kind == "deep_history" else "H"}" as {node.id}'
        return
    rows = [node.id]
    rows += [f"entry / {', '.join(node.enter)}"] if node.enter else []
    rows += [f"exit / {', '.join(node.exit)}"] if node.exit else []
    if not hide_targetless:
        rows += [str(label) for label in node.inside]
    yield f'{indent}state "{"<br/>".join(rows)}" as {node.id}'
    if node.kind == "final":
        yield f"{indent}{node.id} --> [*]"


def _mermaid_classes(document: Document, view: Picture, active: Collection[str]) -> Iterator[str]:
    promises = document.promises
    for name, node in view.nodes.items():
        if name in active:
            yield f"    class {name} active"
        elif node.kind == "atomic" and name in promises.serving | promises.quiet:
            yield f"    class {name} {'serving' if name in promises.serving else 'quiet'}"


def _mermaid_ends(view: Picture, edge: Edge) -> tuple[str, str]:
    """Return the ends of *edge*; Mermaid draws no edge between a state and its descendant."""
    source, target = edge.source, edge.target
    if source in view.nodes[target].above or (source == target and view.nodes[source].children):
        return _any(source), _anew(target) if source == target else target
    if target in view.nodes[source].above:
        return source, _anew(target)
    return source, target


def _any(state: str) -> str:
    return f"{state}__any"


def _anew(state: str) -> str:
    return f"{state}__anew"
