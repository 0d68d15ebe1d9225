"""A chart as Mermaid source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ..document import Document
from .diagram_model import Label
from .palette import Palette
from .selection import Arrow, Box, Drawing, Entry, select
from .views import View

#: Signs that Mermaid or the Markdown in its labels takes for markup; they are written as entities.
_MARKUP = re.compile(r"[^\w\s,./()+='!?\[\]-]")


def to_mermaid(document: Document, view: View | None = None) -> str:
    """Write *document* as a Mermaid ``stateDiagram-v2``.

    Args:
        document: The chart.
        view: Part of the chart to show; None means all of it.

    Raises:
        ChartError: The view names a state that the chart does not have.
    """
    return "\n".join(_lines(select(document, view or View()))) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    view = drawing.view
    yield from ("---", f"title: {json.dumps(drawing.title)}", "---", "stateDiagram-v2")
    yield f"    accTitle: {drawing.title}"
    yield f"    direction {'LR' if view.direction == 'LR' else 'TB'}"
    palette = Palette("dark" if view.theme == "dark" else "light")
    marks = {box.id: _mark(box) for box in drawing.boxes.values() if _mark(box)}
    for mark in dict.fromkeys(marks.values()):
        width = ",stroke-width:3px" if mark in ("active", "taken") else ""
        colors = f"fill:{palette[mark]},stroke:{palette[f'{mark} line']},color:{palette['ink']}"
        yield f"    classDef {mark} {colors}{width}"
    yield from _level(drawing, "", drawing.initial, "    ")
    for arrow in drawing.arrows:
        source, target = _ends(drawing, arrow)
        steps = [f"step {', '.join(map(str, arrow.steps))}"] if arrow.steps else []
        text = "<br/>".join([*steps, *map(_text, arrow.labels)])
        yield f"    {_id(source)} --> {_id(target)}{f' : {text}' if text else ''}"
    for name, mark in marks.items():
        if not drawing.boxes[name].children:  # Mermaid cannot style composite states
            yield f"    class {_id(name)} {mark}"


def _mark(box: Box) -> str:
    if box.is_active:
        return "active"
    if box.is_taken:
        return "taken"
    if box.kind in ("folded", "outside"):
        return box.kind
    return box.role


def _level(drawing: Drawing, parent: str, initial: str, indent: str) -> Iterator[str]:
    if initial:
        yield f"{indent}[*] --> {_id(initial)}"
    is_parallel = bool(parent) and drawing.boxes[parent].kind == "parallel"
    for index, box in enumerate(drawing.children(parent)):
        if index and is_parallel:
            yield f"{indent}--"
        yield from _box(box, indent)
        if not box.children:
            continue
        yield f"{indent}state {_id(box.id)} {{"
        ends = {end for arrow in drawing.arrows for end in _ends(drawing, arrow)}
        for name, text in ((_any(box.id), f"any state of {box.id}"), (_anew(box.id), "anew")):
            if name in ends:
                yield f'{indent}    state "{text}" as {_id(name)}'
        yield from _level(drawing, box.id, box.initial, indent + "    ")
        yield f"{indent}}}"


def _box(box: Box, indent: str) -> Iterator[str]:
    if box.kind == "choice":
        yield f"{indent}state {_id(box.id)} <<choice>>"
        return
    rows = [box.text]
    if box.kind in ("history", "deep_history"):
        rows = ["H*" if box.kind == "deep_history" else "H"]
    if box.kind == "folded":
        rows.append(f"{box.size} states inside")
    rows += map(_text, box.entered)
    rows += [f"entry / {', '.join(box.enter)}"] if box.enter else []
    rows += [f"exit / {', '.join(box.exit)}"] if box.exit else []
    rows += map(_text, box.inside)
    yield f'{indent}state "{"<br/>".join(rows)}" as {_id(box.id)}'
    if box.kind == "final":
        yield f"{indent}{_id(box.id)} --> [*]"


def _ends(drawing: Drawing, arrow: Arrow) -> tuple[str, str]:
    """Return the ends of *arrow*; Mermaid draws no edge between a state and its descendant."""
    source, target = arrow.source, arrow.target
    boxes = drawing.boxes
    if source in boxes[target].above or (source == target and boxes[source].children):
        return _any(source), _anew(target) if source == target else target
    if target in boxes[source].above:
        return source, _anew(target)
    return source, target


def _text(words: Label | Entry) -> str:
    return _MARKUP.sub(lambda sign: f"#{ord(sign[0])};", str(words))


def _id(name: str) -> str:
    return re.sub(r"\W", "__", name)


def _any(state: str) -> str:
    return f"{state}__any"


def _anew(state: str) -> str:
    return f"{state}__anew"
