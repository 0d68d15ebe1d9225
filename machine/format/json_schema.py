"""JSON Schema of chart documents, made from the table of keys.

Editors complete and check a document by it: ``# yaml-language-server: $schema=chart.schema.json``
as its first line. The schema knows shapes only; names are checked by reading.
"""

from __future__ import annotations

from typing import Any

from ..effects import KINDS
from .durations import PATTERN
from .expressions import MOST
from .keys import KEYS
from .shapes import (
    Choice,
    Duration,
    EffectShape,
    Entry,
    Flag,
    ListOf,
    MapOf,
    Scalar,
    Scalars,
    Shape,
    Text,
)

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string", "pattern": r"\S"}
_NULL = {"type": "null"}
_SCALAR = {"type": ["string", "integer", "boolean"], "minimum": -MOST, "maximum": MOST}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a chart document, with a definition for each kind of object."""
    definitions = {_name(kind): _object(kind) for kind in KEYS if kind != "document"}
    definitions["effect"] = _effect()
    return {
        "$schema": DRAFT,
        "title": "Chart document of swapchart",
        **_object("document"),
        "$defs": definitions,
    }


def _name(kind: str) -> str:
    return kind.replace(" ", "_")


def _object(kind: str) -> dict[str, Any]:
    table = KEYS[kind]
    properties = {}
    for name, key in table.keys.items():
        shapes = [_of(shape) for shape in key.shapes]
        if not key.is_required:
            shapes.append(_NULL)
        if key.is_required and isinstance(key.shapes[0], MapOf):
            shapes[0]["minProperties"] = 1
        properties[name] = {"description": key.about, **_any(shapes)}
    found: dict[str, Any] = {
        "description": table.about,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    required = [name for name, key in table.keys.items() if key.is_required]
    return {**found, "required": required} if required else found


def _of(shape: Shape) -> dict[str, Any]:
    match shape:
        case Text(is_free=True, is_expression=is_expression):
            number = "number" if is_expression else "integer"
            return {"anyOf": [_TEXT, {"type": [number, "boolean"]}]}
        case Text():
            return _TEXT
        case Flag():
            return {"type": "boolean"}
        case Choice(options):
            return {"enum": list(options)}
        case Scalar():
            return _SCALAR
        case Scalars():
            return {"anyOf": [{"type": "array", "items": _SCALAR}, _SCALAR]}
        case Duration():
            return {"anyOf": [{"type": "string", "pattern": PATTERN}, _SECONDS]}
        case EffectShape():
            return {"$ref": "#/$defs/effect"}
        case Entry(kind):
            return {"$ref": f"#/$defs/{_name(kind)}"}
        case ListOf(items, is_strict):
            inner = _any([_of(item) for item in items])
            listed = {"type": "array", "items": inner}
            return listed if is_strict else _any([inner, listed])
        case MapOf(_, values):
            kinds = [_of(value) for value in values]
            if not isinstance(values[0], (Text, Duration)):
                kinds.append(_NULL)
            return {"type": "object", "additionalProperties": _any(kinds)}


_SECONDS = {"type": "number", "minimum": 0, "exclusiveMaximum": 1e12}


def _any(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _effect() -> dict[str, Any]:
    """Return the schema of an effect: one alternative for each kind."""
    return {
        "description": "An effect, which an action requests of the runtime.",
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    "effect": {"const": kind},
                    **dict.fromkeys((*required, *optional), _TEXT),
                },
                "required": ["effect", *required],
                "additionalProperties": False,
            }
            for kind, (_, required, optional) in KINDS.items()
        ],
    }
