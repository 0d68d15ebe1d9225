"""Decision tables as JSON: nodes refer to earlier ones, so that equal branches are stored once."""

from __future__ import annotations

from sys import intern
from typing import Any

from .decision_table import Table, Tree
from .document import (
    Configuration,
)


def packed(table: Table) -> dict[str, Any]:
    """Return *table* as a JSON value; it has neither history states nor guards at its start."""
    assert not table.has_memory
    assert table.start is None
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
    """Return the table in *raw*; each configuration is one object throughout."""
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
