"""Export of a chart document to every supported format.

YAML and JSON hold the whole document and can be read back. ``native`` is the chart part alone, in
python-statemachine's own dialect. SCXML and XState are for other engines, and hold the whole
document too. Mermaid, DOT and the table are for readers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import yaml

from .checking.follow import with_moves
from .document import Document
from .drawing.dot import to_dot
from .drawing.mermaid import to_mermaid
from .drawing.plantuml import to_plantuml
from .drawing.table import to_table
from .drawing.views import View
from .errors import ChartError
from .interchange.native_writer import to_native
from .interchange.scxml_writer import to_scxml
from .interchange.xstate_writer import to_xstate

Format: TypeAlias = Literal[
    "yaml", "native", "json", "scxml", "xstate", "mermaid", "plantuml", "dot", "table"
]
FORMATS: tuple[Format, ...] = get_args(Format)

#: Files of ``./dev diagrams`` beside the pictures: ending -> format.
DIAGRAMS: Mapping[str, str] = {
    "dot": "dot",
    "mmd": "mermaid",
    "puml": "plantuml",
    "md": "table",
    "yaml": "yaml",
    "native.yaml": "native",
    "json": "json",
    "scxml": "scxml",
}

_WORDS = frozenset({"on", "off", "yes", "no", "y", "n"})
_WIDTH = 130
_FLAT = 90


def render(
    document: Document,
    format: str,  # noqa: A002
    *,
    view: View | None = None,
    active: Collection[str] = (),
    datamodel: str = "python",
    timers: Mapping[str, float] | None = None,
) -> str:
    """Write *document* as *format*.

    Args:
        document: The chart.
        format: One of `FORMATS`.
        view: What a diagram shows: depth, focus, what is hidden; None means all of the chart.
        active: States to highlight in a diagram, in addition to those of *view*.
        datamodel: Language of expressions in SCXML; see `to_scxml`.
        timers: Timer -> seconds, for SCXML and XState.

    Raises:
        ChartError: The format is unknown, or cannot express the document.
    """
    view = view or View()
    view = with_moves(document, replace(view, active=(*view.active, *active)))
    match format:
        case "yaml":
            return to_yaml(document)
        case "native":
            return native_yaml(document)
        case "json":
            return to_json(document)
        case "mermaid":
            return to_mermaid(document, view)
        case "plantuml":
            return to_plantuml(document, view)
        case "dot":
            return to_dot(document, view)
        case "scxml":
            return to_scxml(document, datamodel=datamodel, timers=timers)
        case "xstate":
            return to_xstate(document, timers=timers)
        case "table":
            return to_table(document)
        case "svg" | "png":
            raise ChartError("format", f"{format} needs Graphviz: see swapchart.adapters.pictures")
        case _:
            raise ChartError("format", f"expected one of {', '.join(FORMATS)}; got {format!r}")


def to_yaml(document: Document) -> str:
    """Write the whole document as YAML; `read` returns it."""
    return _dump(document.source)


def to_json(document: Document) -> str:
    """Write the whole document as JSON; `read` returns it."""
    return json.dumps(document.source, indent=2, ensure_ascii=False) + "\n"


def native_yaml(document: Document) -> str:
    """Write the chart part, for ``statemachine.io.load`` with a model that has our names."""
    return _dump(to_native(document))


class _Dumper(yaml.SafeDumper):
    """Writes on one line what fits there, and quotes what YAML 1.1 misreads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = _length(node) <= _FLAT
        return node

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = all(isinstance(part, yaml.ScalarNode) for part in node.value)
        return node


def _length(node: yaml.Node) -> int:
    """Estimate the width of *node* on one line; characters, beyond any line if it has blocks."""
    if isinstance(node, yaml.ScalarNode):
        return len(node.value)
    if isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
        blocks = [part for part in parts if isinstance(part, yaml.MappingNode)]
    else:
        parts = [part for pair in node.value for part in pair]
        blocks = []
    blocks += [p for p in parts if not isinstance(p, yaml.ScalarNode) and not p.flow_style]
    return 10 * _FLAT if blocks else sum(_length(part) + 2 for part in parts)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if value.lower() in _WORDS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
