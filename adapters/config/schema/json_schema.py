"""JSON Schema of sections."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .section import BeforeValidator, FieldInfo, SecretStr, Section, WithJsonSchema, field_types

_SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    SecretStr: {"type": "string", "format": "password", "writeOnly": True},
    Any: {},
}


def json_schema(kind: type[Section]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of *kind*, with those of other sections in ``$defs``."""
    definitions: dict[str, dict[str, Any]] = {}
    schema = _section(kind, definitions)
    return {"$defs": dict(sorted(definitions.items())), **schema}


def _section(kind: type[Section], definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kinds = field_types(kind)
    properties = {}
    for name, field in kind.model_fields.items():
        schema = _schema(kinds[name], definitions)
        schema |= _bounds(field, is_text=schema.get("type") == "string")
        if not (field.is_required or field.default_factory):
            schema = {**schema, "default": _plain(field.default)}
        properties[field.alias] = schema
    needed = [field.alias for field in kind.model_fields.values() if field.is_required]
    return {
        "title": kind.__name__,
        "description": inspect.getdoc(kind) or "",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
        **kind.json_schema_extra,
    }


def _schema(annotation: Any, definitions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], definitions)
    if origin in (Union, types.UnionType):
        return _choices([_schema(argument, definitions) for argument in arguments])
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        items = _schema(arguments[1], definitions)
        return {"type": "object", "additionalProperties": items or True}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if annotation is type(None):
        return {"type": "null"}
    if isinstance(annotation, type) and issubclass(annotation, Section):
        name = annotation.__name__
        if name not in definitions:
            definitions[name] = {}  # a section may hold itself
            definitions[name] = _section(annotation, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return dict(_SCALARS[annotation])


def _annotated(
    kind: Any, extras: tuple[object, ...], definitions: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    for extra in extras:
        if isinstance(extra, WithJsonSchema):
            return dict(extra.schema)
        if isinstance(extra, BeforeValidator) and extra.json_schema_input_type is not None:
            return _schema(extra.json_schema_input_type, definitions)
    schema = _schema(kind, definitions)
    for extra in extras:
        if isinstance(extra, FieldInfo):
            schema |= _bounds(extra, is_text=schema.get("type") == "string")
    return schema


def _bounds(field: FieldInfo, *, is_text: bool) -> dict[str, Any]:
    bounds = {
        "exclusiveMinimum": field.gt,
        "minimum": field.ge,
        "maximum": field.le,
        "minLength" if is_text else "minItems": field.min_length or None,
        "pattern": field.pattern or None,
    }
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _choices(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a value that fits any of *schemas*."""
    flat: list[dict[str, Any]] = []
    for schema in schemas:
        flat += schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    return {"anyOf": [each for i, each in enumerate(flat) if each not in flat[:i]]}


def _plain(value: Any) -> Any:
    """Return a default as JSON has it, with the keys of the file."""
    if isinstance(value, Section):
        fields = type(value).model_fields.items()
        return {
            field.alias: _plain(getattr(value, name)) for name, field in fields if not field.exclude
        }
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
