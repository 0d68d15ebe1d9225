"""Each key has a meaning and an example that loads, and docs/keys.md has all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.key_reference import PAGE, page

from swapchart.adapters.config import check_config
from swapchart.adapters.config.schema.reference import Steps, tables, title

#: Models that examples name.
MODELS = {name: {"cmd": "s --port ${PORT}"} for name in ("qwen", "small")}
#: Keys without which an example of a place has no meaning.
BESIDE: dict[str, dict[str, Any]] = {
    "models.*.container": {"image": "i", "args": "--port ${PORT}"},
    "models.*": {"cmd": "s --port ${PORT}"},
    "matrix": {"sets": {"pair": "qwen & small"}},
    "liveness.request": {"json": {"a": 1}},
    "http": {"url": "http://127.0.0.1:9"},
    "yield[]": {"pools": ["RAM"], "when": {"process": "blender"}},
    "sleep": {"after": 60, "enter": ["true"], "wake": ["true"]},
    "selectors.*": {"strategy": "spillover", "targets": ["qwen", "small"]},
    "peers.*": {"proxy": "http://127.0.0.1:9", "models": ["big"]},
    "profiles.*": {"pins": {"main": "qwen"}},
    "apiKeys[]": {"key": "sk-example"},
    "router": {"use": "group"},
}
TABLES = tables()
KEYS = [(table.paths[0], key) for table in TABLES for key in table.keys]
PARTS = {(table.paths[0], key): part for table in TABLES for key, part in table.keys.items()}


def beside(path: Steps) -> dict[str, Any]:
    name = title(path)
    return next((dict(keys) for end, keys in BESIDE.items() if name.endswith(end)), {})


def document(path: Steps, example: dict[str, Any]) -> dict[str, Any]:
    """Return the least document that has *example* at *path*."""
    value: Any = {**beside(path), **example}
    for at in range(len(path) - 1, -1, -1):
        if path[at] == "[]":
            value = [value]
        else:
            name = "qwen" if path[at - 1] == "models" else "chat"
            value = {**beside(path[:at]), (name if path[at] == "*" else path[at]): value}
    if "container" in value.get("models", {}).get("qwen", ()):
        del value["models"]["qwen"]["cmd"]
    if path[:1] == ("selectors",):  # targets of spillover have to fit together
        value["groups"] = {"both": {"swap": False, "members": [*MODELS]}}
    if path[:1] == ("ollama",):  # an open address needs a key
        value["apiKeys"] = [{"name": "home", "key": "sk-example"}]
    if example.get("in") == "container":  # for defaults of models, which need one then
        value["models"] = {"qwen": {"container": beside(("models", "*", "container"))}}
        return value  # type: ignore[no-any-return]
    if "nodes" in example:
        value["cluster"] = {"engine": "ray"}
    value["models"] = {**MODELS, **value.get("models", {})}
    return value  # type: ignore[no-any-return]


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[title((*p, k)) for p, k in KEYS])
def test_key_has_a_meaning_and_an_example_that_loads(path: Steps, key: str, tmp_path: Path) -> None:
    """The example has the key, and loads without an error in the least document."""
    part = PARTS[path, key]
    assert part["description"].endswith(".")
    example = yaml.load(f"{{{part['x-example']}}}", yaml.SafeLoader)
    example = {("on" if name is True else name): value for name, value in example.items()}
    assert key in example
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(document(path, example), sort_keys=False))

    assert [problem for problem in check_config([file]) if problem.severity == "error"] == []


def unlike_default() -> Iterator[Any]:
    for (path, key), part in PARTS.items():
        if "default" in part and part["examples"] == [part["default"]]:
            yield title((*path, key))


def test_key_example_differs_from_the_default() -> None:
    """Else it would show nothing; an overlay has no short form, and a mode may be its default."""
    assert set(unlike_default()) <= {
        "lifecycle", "hookPoints", "models.*.hookPoints", "kv.mode", "routing.scheduler.use",
    }  # fmt: skip


def test_key_reference_is_up_to_date() -> None:
    """docs/keys.md is what ./dev python tests/tools/key_reference.py writes."""
    assert PAGE.read_text("utf-8") == page()
