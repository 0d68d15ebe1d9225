"""Pictures of charts: what is drawn, and that Graphviz draws it where it belongs."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from swapchart.machine import Document, lifecycle, to_dot, to_mermaid, to_table
from swapchart.machine.picture import picture

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def laid_out(source: str) -> dict[str, set[str]]:
    """Return node -> the clusters in which ``dot`` drew it."""
    done = subprocess.run(
        ["dot", "-Tjson"], input=source, capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stderr
    graph: dict[str, Any] = json.loads(done.stdout)
    names = {item["_gvid"]: item["name"] for item in graph["objects"]}
    drawn: dict[str, set[str]] = {
        item["name"]: set() for item in graph["objects"] if "nodes" not in item
    }
    for item in graph["objects"]:
        for node in item.get("nodes", ()):
            drawn[names[node]].add(item["name"])
    return {name: clusters for name, clusters in drawn.items() if not name.startswith("cluster_")}


@needs_dot
def test_every_state_is_drawn_in_the_clusters_of_its_ancestors_only() -> None:
    """Graphviz puts no state into a foreign cluster, whichever edges lead to it."""
    document = lifecycle()

    drawn = laid_out(to_dot(document))

    for name, definition, above in document.states():
        if not definition.get("states"):
            assert drawn[name] == {f"cluster_{ancestor}" for ancestor in above}


@needs_dot
def test_arrows_of_compound_states_end_at_their_border() -> None:
    """Every initial dot lies in the cluster it starts, and nowhere else."""
    drawn = laid_out(to_dot(lifecycle()))

    for name, definition, above in lifecycle().states():
        if definition.get("states"):
            assert drawn[f"{name} start"] == {f"cluster_{n}" for n in (*above, name)}


def test_dot_says_what_the_chart_says() -> None:
    """Every state, event, guard and action of the chart is legible in the picture."""
    document = lifecycle()

    text = to_dot(document, hide_targetless=False)

    for name in (*document.events, *document.guards, *document.actions):
        assert name in text


def test_active_states_stand_out() -> None:
    """A configuration is highlighted, its ancestors included, and nothing else is."""
    text = to_dot(lifecycle(), active=("alive", "ready"))
    plain = to_dot(lifecycle())

    assert text.count("#c77700") == 2
    assert "#c77700" not in plain


def test_a_state_passed_at_once_is_a_choice() -> None:
    """States left at once, with nothing to do in them, are diamonds; all others are not."""
    kinds = {node.id: node.kind for node in picture(lifecycle()).nodes.values()}

    assert {name for name, kind in kinds.items() if kind == "choice"} == {"crashed", "concluded"}
    assert {name for name, kind in kinds.items() if kind == "final"} == {"shut_down"}


def test_mermaid_nests_states_and_draws_no_edge_from_a_state_into_itself() -> None:
    """Mermaid fails on an edge between a composite state and a state inside it; we draw none."""
    document = lifecycle()
    text = to_mermaid(document, active=("ready",))
    above = {name: ancestors for name, _, ancestors in document.states()}

    edges = [line.split(" : ")[0].split(" --> ") for line in text.splitlines() if " --> " in line]
    for source, target in edges:
        source, target = source.strip(), target.strip()
        assert source not in above.get(target, ())
        assert target not in above.get(source, ())
    assert "class ready active" in text
    assert text.count("{") == text.count("}")


def rows(document: Document) -> list[list[str]]:
    lines = to_table(document).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_has_one_row_for_each_transition_and_each_entry_and_exit() -> None:
    """The Markdown table loses nothing: rows are counted against the chart."""
    expected = 2
    for _, definition, _ in lifecycle().states():
        expected += len(definition.get("transitions") or ())
        expected += bool(definition.get("enter")) + bool(definition.get("exit"))

    table = rows(lifecycle())

    assert len(table) == expected
    assert {len(row) for row in table} == {5}
    assert ["alive.starting", "abandon", "nobody_waits", "terminating", "want_stop"] in table
