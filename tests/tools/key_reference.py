"""Page docs/keys.md: all keys of a configuration, from the JSON Schema.

``./dev python tests/tools/key_reference.py`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swapchart.adapters.config import config_schema

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"

_HEAD = """# Configuration keys

This page is generated from the JSON Schema, which `swapchart config schema` prints and editors
show. [configuration.md](configuration.md) says how files are read, and [examples](../examples) has
complete ones. `*` stands for a name of your own, and `[]` for an entry of a list. An example shows
further keys where the key needs them.
"""

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


def _kind(part: dict[str, Any]) -> str:
    if "$ref" in part:
        return "mapping"
    if "anyOf" in part:
        kinds = [_kind(choice) for choice in part["anyOf"]]
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


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`" if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    for table in tables():
        name, *others = (title(path) for path in table.paths)
        yield f"\n## {name}\n\n{table.about.replace('``', '`')}\n"
        if len(others) > 5:
            yield "Also at each other hook point of a model and of `hooks`, alone or in a list.\n"
        elif others:
            yield f"Also {', '.join(f'`{other}`' for other in others)}.\n"
        yield "\n| key | type | default | meaning | example |\n| --- | --- | --- | --- | --- |\n"
        for key, part in table.keys.items():
            default = "required" if key in table.needed else _default(part.get("default"))
            cells = (f"`{key}`", _kind(part), default, part["description"])
            text = " | ".join(cell.replace("|", "\\|") for cell in cells)
            yield f"| {text} | `{part['x-example']}` |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
