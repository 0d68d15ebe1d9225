"""Reader of charts in any form that can be told by its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..document import Document, walk
from ..errors import ChartError
from ..format.bounds import require_text
from ..format.parse import load_yaml, read
from .draft import Loss
from .native_reader import from_native
from .scxml_reader import from_scxml
from .xstate_reader import from_xstate_mapping

_KNOWN = "a chart document, SCXML, XState JSON, or a chart of python-statemachine in YAML or JSON"
#: Keys of states that XState has and python-statemachine does not.
_XSTATE = frozenset(
    {"id", "on", "always", "after", "entry", "onEntry", "onExit", "onDone", "type", "meta"}
)


def read_any(
    text: str,
    catalog: Mapping[str, Any] | None = None,
    *,
    file: str = "",
    lost: list[Loss] | None = None,
) -> Document:
    """Read a chart in one of several forms, which is told by its content.

    Args:
        text: A document in YAML or JSON, SCXML, the configuration of an XState machine in JSON, or
            a chart in python-statemachine's own dialect.
        catalog: Sections that go with a chart in that dialect; see `from_native`.
        file: Name of the file, for errors.
        lost: List that receives what a document cannot express; None means that a loss is an error.

    Raises:
        ChartError: It is none of these forms, or not valid; the error does not repeat the text.
    """
    require_text(file or "chart", text)
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("<"):
        return from_scxml(text.lstrip("\ufeff \t\r\n"), lost=lost)
    if start.startswith("@start"):
        raise ChartError(file or "chart", f"PlantUML cannot be read; expected {_KNOWN}")
    raw = _loaded(start, text)
    if not isinstance(raw, Mapping):
        found = f"{type(raw).__name__} of {len(text)} characters"
        raise ChartError(file or "chart", f"expected {_KNOWN}; found {found}")
    if "chart" in raw or "format" in raw or not isinstance(raw.get("states"), Mapping):
        return read(text, file=file)
    if _is_xstate(raw):
        return from_xstate_mapping(raw, lost=lost)
    return from_native(text, catalog, lost=lost)


def _loaded(start: str, text: str) -> Any:
    """Return the value of *text*: JSON if it is that, which may hold tabs, else YAML."""
    if start.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return load_yaml(text)


def _is_xstate(raw: Mapping[str, Any]) -> bool:
    if isinstance(raw.get("initial"), str) or raw.get("type") == "parallel":
        return True
    try:
        bodies = [body for _, body, _ in walk(raw["states"])]
    except (AttributeError, TypeError):
        return False
    return any(isinstance(body, Mapping) and _XSTATE & set(body) for body in bodies)
