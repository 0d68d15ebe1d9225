"""The shipped chart, read and compiled beforehand: 0.2 s of every start otherwise.

``lifecycle.compiled.json`` holds ``lifecycle.yaml`` as it was read and checked, and its decision
table, beside the digest of that file. With another digest nothing of it is used. A test compiles
the chart afresh and compares. After a change::

    python -m swapchart.machine > machine/lifecycle.compiled.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from sys import intern
from typing import Any

from .decision_table import Table, Tree
from .document import Configuration

_PACKAGE = __name__.rpartition(".")[0]


def source() -> bytes:
    """Return the text of the shipped chart."""
    return files(_PACKAGE).joinpath("lifecycle.yaml").read_bytes()


def compiled(text: bytes) -> dict[str, Any] | None:
    """Return what was made of *text* beforehand; None when it was another text."""
    try:
        stored = json.loads(files(_PACKAGE).joinpath("lifecycle.compiled.json").read_bytes())
    except OSError:
        return None
    found: dict[str, Any] = stored
    return found if found["digest"] == sha256(text).hexdigest() else None


# ---- tables as JSON: nodes refer to those before them, so that equal branches are there once
def packed(table: Table) -> dict[str, Any]:
    """Return *table* as JSON can say it."""
    configurations = list(table.rows)
    numbers = {configuration: number for number, configuration in enumerate(configurations)}
    nodes: list[list[Any]] = []
    places: dict[Tree, int] = {}

    def place(tree: Tree) -> int:
        if tree not in places:
            match tree:
                case ("goto", configuration):
                    node = ["goto", numbers[configuration]]
                case (kind, name, *branches):
                    node = [kind, name, *map(place, branches)]
                case _:
                    node = [*tree]
            nodes.append(node)
            places[tree] = len(nodes) - 1
        return places[tree]

    rows = [{event: place(tree) for event, tree in row.items()} for row in table.rows.values()]
    return {
        "configurations": configurations,
        "initial": numbers[table.initial],
        "entry_actions": table.entry_actions,
        "final": sorted(numbers[configuration] for configuration in table.final),
        "nodes": nodes,
        "rows": rows,
    }


def unpacked(raw: dict[str, Any]) -> Table:
    """Return the table that *raw* holds; each configuration is one object in all of it."""
    configurations: list[Configuration] = [tuple(states) for states in raw["configurations"]]
    nodes: list[Tree] = []
    for kind, *rest in raw["nodes"]:
        match kind:
            case "goto":
                nodes.append(("goto", configurations[rest[0]]))
            case "refuse":
                nodes.append((kind,))
            case _:
                name, *branches = rest
                nodes.append((intern(kind), intern(name), *(nodes[branch] for branch in branches)))
    return Table(
        initial=configurations[raw["initial"]],
        entry_actions=tuple(raw["entry_actions"]),
        rows={
            configuration: {event: nodes[place] for event, place in row.items()}
            for configuration, row in zip(configurations, raw["rows"], strict=True)
        },
        final=frozenset(configurations[number] for number in raw["final"]),
    )


def fresh(text: bytes) -> dict[str, Any]:
    """Read, check and compile *text*, and return what is to be kept of it.

    Raises:
        ChartError: It is wrong, or has history states.
    """
    from .decision_table import compile_table
    from .errors import ChartError
    from .parse import from_mapping, load_yaml

    raw = load_yaml(text.decode())
    table = compile_table(from_mapping(raw))
    if table is None:
        raise ChartError("chart", "expected one without history states")
    return {"digest": sha256(text).hexdigest(), "document": raw, "table": packed(table)}


def lines(kept: dict[str, Any]) -> Iterator[str]:
    """Yield *kept* as JSON, a line for each node and each row, so that changes can be read."""
    table = kept["table"]
    yield f'{{"digest": {json.dumps(kept["digest"])},'
    yield f'"document": {json.dumps(kept["document"])},'
    yield '"table": {'
    for key in ("configurations", "initial", "entry_actions", "final"):
        yield f"{json.dumps(key)}: {json.dumps(table[key])},"
    yield '"nodes": ['
    yield ",\n".join(json.dumps(node) for node in table["nodes"])
    yield '],\n"rows": ['
    yield ",\n".join(json.dumps(row) for row in table["rows"])
    yield "]}}"
