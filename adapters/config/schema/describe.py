"""Meanings and examples of keys, from the texts below the fields of the sections.

Python drops such texts, so they cost no time at a start; they are read from the source when a
schema is asked for. A text ends with ``Example:`` and one or more keys in YAML.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from .memory import ModelMemory
from .section import Section


def describe(schema: dict[str, Any], document: type[Section]) -> None:
    """Add meaning and example of each key to the JSON *schema* of *document*."""
    definitions = schema["$defs"]
    texts: dict[str, dict[str, str]] = {}
    for kind in _sections(Section):
        place = schema if kind is document else definitions.get(kind.__name__)
        if place is not None:
            _describe_keys(place["properties"], kind, texts)
    for choice in definitions["ModelSection"]["properties"]["memory"]["anyOf"]:
        if "properties" in choice:
            _describe_keys(choice["properties"], ModelMemory, texts)


def _sections(kind: type[Section]) -> Iterator[type[Section]]:
    for each in kind.__subclasses__():
        yield each
        yield from _sections(each)


def _describe_keys(
    properties: dict[str, Any], kind: type[Section], texts: dict[str, dict[str, str]]
) -> None:
    for name, field in kind.model_fields.items():
        key = str(field.alias)
        if key not in properties:
            continue
        found = (_texts(each, texts).get(name) for each in kind.__mro__)
        meaning, _, example = next(filter(None, found), "").rpartition(" Example: ")
        if meaning:
            values = yaml.safe_load(f"{{{example.strip('`')}}}")
            properties[key]["description"] = meaning
            properties[key]["examples"] = [values.get(key, values.get(True))]  # on: true in YAML
            properties[key]["x-example"] = example.strip("`")


def _texts(kind: type, texts: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the texts below the fields of *kind* itself; *texts* keeps those of whole modules."""
    if kind.__module__.rpartition(".")[0] != __package__:
        return {}
    known = f"{kind.__module__}.{kind.__name__}"
    if known not in texts:
        module = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
        for each in module.body:
            if isinstance(each, ast.ClassDef):
                texts[f"{kind.__module__}.{each.name}"] = dict(_texts_of(each))
    return texts.get(known, {})


def _texts_of(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            yield field.target.id, " ".join(text.value.value.split())
