"""Tables of all keys of a configuration, from its JSON Schema."""

from __future__ import annotations

import json
from typing import Any

from ....dataclass import dataclass
from .document import config_schema

Steps = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Keys of one kind of mapping.

    Attributes:
        about: What the mapping is.
        paths: Where it may stand, at least one; ``*`` is any name and ``[]`` an entry of a list.
        keys: Schema of each key.
        needed: Keys that must be there.
    """

    about: str
    paths: list[Steps]
    keys: dict[str, dict[str, Any]]
    needed: tuple[str, ...]


def tables() -> list[Table]:
    """Return the tables, the top level first, each mapping once."""
    schema = config_schema()
    found: dict[int, Table] = {}
    _visit(schema, (), schema["$defs"], found)
    for table in found.values():
        table.paths.sort(key=len)
    return list(found.values())


def _visit(part: Any, path: Steps, kinds: dict[str, Any], found: dict[int, Table]) -> None:
    if not isinstance(part, dict):
        return
    if "$ref" in part:
        part = kinds[part["$ref"].rpartition("/")[2]]
    if "properties" in part:
        if id(part) in found:
            found[id(part)].paths.append(path)
            return
        about = " ".join(part.get("description", "Memory that the model needs.").split())
        found[id(part)] = Table(about, [path], part["properties"], tuple(part.get("required", ())))
        for key, value in part["properties"].items():
            _visit(value, (*path, key), kinds, found)
        return
    for choice in part.get("anyOf", ()):
        _visit(choice, path, kinds, found)
    _visit(part.get("items"), (*path, "[]"), kinds, found)
    _visit(part.get("additionalProperties"), (*path, "*"), kinds, found)


def title(path: Steps) -> str:
    """Return *path* as a reader writes it."""
    return ".".join(path).replace(".[]", "[]") or "Top level"


def kind_text(part: dict[str, Any]) -> str:
    """Return type and range of the value of a key in words; *part* is its schema."""
    if "$ref" in part:
        return "mapping"
    if "anyOf" in part:
        kinds = [kind_text(choice) for choice in part["anyOf"]]
        return ", or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "enum" in part:
        return ", ".join(f"`{value}`" if value else "empty" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part.get("pattern", "").endswith("%))$"):
        return "size"
    words = {"object": "mapping", "array": "list", "string": "text"}
    kinds = part.get("type", "any value")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return ", or ".join(words.get(kind, kind) for kind in kinds) + _range(part)


def _range(part: dict[str, Any]) -> str:
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
    found = [f"{sign} {part[bound]:g}" for bound, sign in bounds.items() if bound in part]
    return f" {', '.join(found)}" if found else ""


def default_text(value: Any) -> str:
    """Return a default as it is written in YAML; empty if it is no value or an empty one."""
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`" if isinstance(value, str) else json.dumps(value).removesuffix(".0")
