"""A chart as PlantUML source."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..document import Document
from .diagram_model import Label
from .palette import Palette
from .selection import Box, Drawing, Entry, select
from .views import View

#: Signs that PlantUML takes for markup or for a line break.
_MARKUP = re.compile(
    r"<(?![\s=0-9])|\\|~|%|&|\*(?=\*)|/(?=/)|_(?=_)|\"(?=\")|-(?=-)|(?<=\[)\[|(?<=\])\]"
)


def to_plantuml(document: Document, view: View | None = None) -> str:
    """Write *document* as a PlantUML state diagram.

    Args:
        document: The chart.
        view: Part of the chart to show; None means all of it.

    Raises:
        ChartError: The view names a state that the chart does not have.
    """
    return "\n".join(_lines(select(document, view or View()))) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    view = drawing.view
    palette = Palette("dark" if view.theme == "dark" else "light")
    yield "@startuml"
    yield f"title {drawing.title}"
    yield "hide empty description"
    yield f"{'left to right' if view.direction == 'LR' else 'top to bottom'} direction"
    yield f"skinparam backgroundColor {palette['page']}"
    yield "skinparam state {"
    for key, purpose in (
        ("BackgroundColor", "box"), ("BorderColor", "box line"), ("FontColor", "ink"),
        ("AttributeFontColor", "muted"), ("StartColor", "ink"), ("EndColor", "ink"),
    ):  # fmt: skip
        yield f"  {key} {palette[purpose]}"
    yield "}"
    yield f"skinparam arrowFontColor {palette['ink']}"
    yield from _level(drawing, palette, "", drawing.initial, "")
    for arrow in drawing.arrows:
        origins = {label.origin for label in arrow.labels}
        color = palette.origin(origins.pop()) if len(origins) == 1 else palette["ink"]
        line = f"-[{palette['taken line']},bold]->" if arrow.steps else f"-[{color}]->"
        steps = [f"step {', '.join(map(str, arrow.steps))}"] if arrow.steps else []
        text = "\\n".join([*steps, *map(_text, arrow.labels)])
        yield f"{_id(arrow.source)} {line} {_id(arrow.target)}{f' : {text}' if text else ''}"
    yield "@enduml"


def _level(
    drawing: Drawing, palette: Palette, parent: str, initial: str, indent: str
) -> Iterator[str]:
    has_regions = _has_regions(drawing, parent)
    for index, box in enumerate(drawing.children(parent)):
        if index and has_regions:
            yield f"{indent}--"
        yield from _box(drawing, palette, box, indent)
    if initial:
        yield f"{indent}[*] --> {_id(initial)}"


def _box(drawing: Drawing, palette: Palette, box: Box, indent: str) -> Iterator[str]:
    name = _id(box.id)
    match box.kind:
        case "choice":
            yield f"{indent}state {name} <<choice>>"
        case "history":
            yield f"{indent}state {name} <<history>>"
        case "deep_history":
            yield f"{indent}state {name} <<history*>>"
        case _:
            link = f" [[{box.link}]]" if box.link else ""
            head = f'{indent}state "{box.text}" as {name}{link}{_color(palette, box)}'
            yield f"{head} {{" if box.children else head
            if box.children:
                yield from _level(drawing, palette, box.id, box.initial, indent + "  ")
                yield f"{indent}}}"
            rows = [f"{box.size} states inside"] if box.kind == "folded" else []
            rows += map(_text, box.entered)
            rows += [f"entry / {', '.join(box.enter)}"] if box.enter else []
            rows += [f"exit / {', '.join(box.exit)}"] if box.exit else []
            for row in (*rows, *map(_text, box.inside)):
                yield f"{indent}{name} : {row}"
            if box.kind == "final":
                yield f"{indent}{name} --> [*]"


def _has_regions(drawing: Drawing, parent: str) -> bool:
    """Return True if *parent* is parallel, and no edge leads out of one of its regions.

    PlantUML refuses such edges between regions that a line divides.
    """
    if not parent or drawing.boxes[parent].kind != "parallel":
        return False
    regions = drawing.boxes[parent].children

    def region(name: str) -> str:
        return next((n for n in (*drawing.boxes[name].above, name) if n in regions), "")

    return all(region(arrow.source) == region(arrow.target) for arrow in drawing.arrows)


def _color(palette: Palette, box: Box) -> str:
    purpose = box.kind if box.kind in ("folded", "outside") else box.role
    purpose = "taken" if box.is_taken else purpose
    purpose = "active" if box.is_active else purpose
    fill = f" {palette[purpose]}" if purpose else ""
    if not purpose and not box.is_region:
        return ""
    line = palette[f"{purpose or 'cluster'} line"][1:]
    return f"{fill} ##{'[dashed]' if box.is_region else ''}{line}"


def _text(words: Label | Entry) -> str:
    return _MARKUP.sub(lambda sign: f"<U+{ord(sign[0]):04X}>", str(words))


def _id(name: str) -> str:
    return re.sub(r"\W", "__", name)
