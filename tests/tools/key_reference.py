"""Page docs/keys.md: all keys of a configuration, from the JSON Schema.

``./dev python tests/tools/key_reference.py`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from swapchart.adapters.config.schema.reference import default_text, kind_text, tables, title

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"

_HEAD = """# Configuration keys

This page is generated from the JSON Schema, which `swapchart config schema` prints and editors
show. [configuration.md](configuration.md) says how files are read, and [examples](../examples) has
complete ones. `*` stands for a name of your own, and `[]` for an entry of a list. An example shows
further keys where the key needs them. An empty default means that the key is not set.
"""


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
            default = "required" if key in table.needed else default_text(part.get("default"))
            cells = (f"`{key}`", kind_text(part), default, part["description"])
            text = " | ".join(cell.replace("|", "\\|") for cell in cells)
            yield f"| {text} | `{part['x-example']}` |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
