"""Tables of the keys and effects of chart documents, for docs/chart.md.

``./dev python tests/tools/chart_reference.py`` writes them into the page, between its two markers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from swapchart.machine.effects import KINDS
from swapchart.machine.format.keys import KEYS

PAGE = Path(__file__).parents[2] / "docs" / "chart.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"

_EFFECTS = """
### Effect

An effect is what an action requests of the runtime: `effect` with the arguments of its kind, as in
`{effect: notify, name: closed}`. Charts of your own use activities, timers and `notify`; the others
need a supervised process.

| effect | arguments | meaning |
| --- | --- | --- |
"""


def reference() -> str:
    """Return one table for each object of the format, and one of the effects, in Markdown."""
    return "\n" + "\n".join(_tables()) + _EFFECTS + "".join(_effects()) + "\n"


def _tables() -> Iterator[str]:
    for kind, table in KEYS.items():
        yield f"### {kind.capitalize()}\n\n{table.about}\n"
        yield "| key | value | meaning |\n| --- | --- | --- |"
        for name, key in table.keys.items():
            value = ", or ".join(shape.words for shape in key.shapes).replace("|", "\\|")
            needed = " Required." if key.is_required else ""
            short = " Short form." if key.is_sugar else ""
            yield f"| `{name}` | {value} | {key.about}{needed}{short} |"
        yield ""


def _effects() -> Iterator[str]:
    for kind, (cls, required, optional) in KINDS.items():
        arguments = [f"`{name}`" for name in required]
        arguments += [f"`{name}` (optional)" for name in optional]
        about = (cls.__doc__ or "").partition("\n")[0].replace("*", "")
        yield f"| `{kind}` | {', '.join(arguments)} | {about} |\n"


def written(page: str) -> str:
    """Return *page* with the tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
