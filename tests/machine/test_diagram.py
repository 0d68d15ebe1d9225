"""Pictures of charts: what is drawn, and that Graphviz draws it where it belongs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from typing import Any

import pytest

from swapchart.machine import (
    Document,
    View,
    lifecycle,
    read,
    render,
    to_dot,
    to_mermaid,
    to_plantuml,
    to_table,
)
from swapchart.machine.drawing.diagram_model import picture
from swapchart.machine.drawing.dot import wrapped
from swapchart.machine.drawing.views import full

from .charts import NAMES, chart

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
        for node in item.get("nodes", ()) if item["name"].startswith("cluster_") else ():
            drawn[names[node]].add(item["name"])
    return {name: clusters for name, clusters in drawn.items() if not name.startswith("cluster_")}


@needs_dot
@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_dot_state_is_in_the_clusters_of_its_ancestors_only(name: str) -> None:
    """Graphviz puts no state into a foreign cluster, whichever edges lead to it."""
    document = chart(name)

    drawn = laid_out(to_dot(document, full(document)))

    for node in picture(document).nodes.values():
        clusters = {f"cluster_{ancestor}" for ancestor in node.above}
        if not node.children:
            assert drawn[node.id] == clusters
        elif node.initial:
            assert drawn[f"{node.id} start"] == clusters | {f"cluster_{node.id}"}


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_dot_shows_each_event_guard_and_action(name: str) -> None:
    """Every event, guard and action of the chart is legible in the picture."""
    document = chart(name)

    text = to_dot(document, full(document))

    for word in (*document.events, *document.guards, *document.actions):
        assert word in text


def test_dot_highlights_active_states() -> None:
    """A configuration is highlighted, its ancestors included, and nothing else is."""
    text = to_dot(lifecycle(), View(active=("alive", "ready"), legend=False))
    plain = to_dot(lifecycle())

    assert text.count("#c77700") == 2
    assert "#c77700" not in plain


def test_dot_shows_a_transient_state_as_choice() -> None:
    """States left at once, with nothing to do in them, are diamonds; all others are not."""
    kinds = {node.id: node.kind for node in picture(lifecycle()).nodes.values()}

    assert {name for name, kind in kinds.items() if kind == "choice"} == {"crashed", "concluded"}
    assert {name for name, kind in kinds.items() if kind == "final"} == {"shut_down"}


@pytest.mark.parametrize("name", [*NAMES, "lifecycle"])
def test_mermaid_nests_states_and_draws_no_edge_from_a_state_into_itself(name: str) -> None:
    """Mermaid fails on an edge between a composite state and a state inside it; we draw none."""
    document = chart(name)
    active = [name for name, _, _ in document.states() if name == "ready"]
    text = to_mermaid(document, View(active=active, hide=()))
    above = {name: ancestors for name, _, ancestors in document.states()}

    edges = [line.split(" : ")[0].split(" --> ") for line in text.splitlines() if " --> " in line]
    for source, target in edges:
        source, target = source.strip(), target.strip()
        assert source not in above.get(target, ())
        assert target not in above.get(source, ())
    assert ("class ready active" in text) == (name == "lifecycle")
    assert text.count("{") == text.count("}")
    for word in (*document.events, *document.guards, *document.actions):
        assert word in text


@pytest.mark.parametrize(("name", "mark"), [("history_deep", "H*"), ("history_shallow", "H")])
def test_history_states_are_marked(name: str, mark: str) -> None:
    """A deep history is an H with a star, a shallow one an H."""
    assert f'shape=circle, width=0.3, fixedsize=true, label="{mark}"' in to_dot(chart(name))
    assert f'state "{mark}" as last' in to_mermaid(chart(name))


def test_regions_of_a_parallel_state_are_divided() -> None:
    """Mermaid puts a line between regions, and no region is the first."""
    text = to_mermaid(chart("parallel"))

    assert text.count(" --\n") == 1
    assert "[*] --> left\n" not in text


def test_dot_without_actions_and_legend_omits_them() -> None:
    """For a small picture: states, events and guards only."""
    view = View(hide=("bookkeeping", "ignored", "actions"), legend=False)
    text = re.sub('tooltip=".*?"', "", to_dot(lifecycle(), view))

    assert "timer expired" not in text
    assert "want_stop" not in text
    assert "nobody_waits" in text


def test_long_lists_of_actions_are_broken_between_names() -> None:
    """No row is wider than asked for, unless one name alone is, and no name is broken."""
    names = ("first", "second", "a_name_that_is_longer_than_any_row", "last")

    rows = wrapped("/ ", names, 20)

    assert rows == ["/ first, second,", "  a_name_that_is_longer_than_any_row,", "  last"]


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


def test_table_shows_history_defaults_and_internal_transitions() -> None:
    """What a history state does by default is a row, and an internal transition says so."""
    assert ["work.last", "*by default*", "", "plain", ""] in rows(chart("history_deep"))
    assert ["outer", "skip", "", "third (internal)", "count"] in rows(chart("compound"))
    assert ["filling", "*at once*", "is_full", "choice", ""] in rows(chart("eventless"))


# ---- guards in the place of their names -----------------------------------------------------
SIGNS = 'a|b*c*<b>"q";#x: **y** //z// `k` &lt; ~~_s_'

SHOP = f"""
format: swapchart.chart/v1
name: Shop
data:
  amount: {{values: [0, 50, 5000]}}
  kind: {{values: [plain, {json.dumps(SIGNS)}]}}
events: {{submit: {{}}, approve: {{}}, cancel: {{}}}}
guards: {{is_big: amount > 50}}
chart:
  states:
    draft:
      initial: true
      transitions:
        - {{event: submit, target: done, cond: amount * 2 * 3 < 1000}}
        - {{event: approve, target: done, cond: [amount <= 50 or amount == 1, is_big], unless: [amount < 5, in(done), is_big]}}
        - {{event: cancel, target: done, cond: {json.dumps(f"kind == {SIGNS!r}")}}}
        - {{event: cancel, cond: amount == 0, "on": {{set: {{amount: amount + 1}}}}}}
    done: {{}}
"""  # noqa: E501

#: The guards of these transitions, as readers see them.
GUARDS = (
    "amount * 2 * 3 < 1000",
    "(amount <= 50 or amount == 1) and is_big and not (amount < 5) and not in(done) and not is_big",
    f"kind == {SIGNS!r}",
    "amount == 0",
)
EXPORTED = ("", "yaml", "json")


def shop(exported: str) -> Document:
    """Return the chart as it was written, or read from its export in a format."""
    document = read(SHOP)
    return read(render(document, exported)) if exported else document


@pytest.mark.parametrize("exported", EXPORTED)
def test_guard_written_inline_is_shown_as_its_expression(exported: str) -> None:
    """Also when the chart was exported, which declares the guard under its generated name."""
    document = shop(exported)
    drawn = picture(document)

    labels = [label for edge in drawn.edges for label in edge.labels]
    labels += [label for node in drawn.nodes.values() for label in node.inside]

    assert document == read(SHOP)
    assert tuple(label.guard for label in labels) == GUARDS


def test_guard_with_a_name_of_its_own_is_shown_by_name() -> None:
    """An author's name says more than the expression; a number at its end changes nothing."""
    text = SHOP.replace("is_big", "amount_is_5").replace("amount > 50", "amount > 49")

    assert set(read(text).guard_texts.values()) >= {"amount * 2 * 3 < 1000"}
    assert "amount_is_5" not in read(text).guard_texts


def test_guards_whose_names_would_be_equal_are_shown_as_their_expressions() -> None:
    """The second one gets a prefix, the third a number."""
    added = [
        f"        - {{event: submit, cond: {text}}}\n" for text in ("0 == amount", "(0) == amount")
    ]
    text = SHOP.replace("    done: {}", "".join(added) + "    done: {}")

    document = read(text)

    assert {"if_0_is_amount", "if_0_is_amount_2"} <= set(document.guards)
    assert set(document.guard_texts.values()) >= {"0 == amount", "(0) == amount"}


def test_mermaid_writes_signs_of_guards_as_entities() -> None:
    """Mermaid has its own entities; bare signs would be markup, ends of labels or comments."""
    lines = to_mermaid(shop("")).splitlines()
    shown = [re.sub(r"#(\d+);", lambda sign: chr(int(sign[1])), line) for line in lines]

    for guard in GUARDS:
        index = next(index for index, line in enumerate(shown) if f"[{guard}]" in line)
        label = re.sub(r"#\d+;|<br/>", "", lines[index].split(" : ")[-1].split('"')[-2:][0])
        assert not re.search(r"[<>*|;:#&`~]", label)


def test_plantuml_writes_markup_in_guards_as_code_points() -> None:
    """Signs that PlantUML reads as Creole or HTML are escaped, and the others stay legible."""
    text = to_plantuml(shop(""))
    shown = re.sub(r"<U\+([0-9A-F]{4})>", lambda sign: chr(int(sign[1], 16)), text)

    assert f"draft -[#1a5593]-> done : submit [{GUARDS[0]}]" in text
    for guard in GUARDS:
        assert f"[{guard}]" in shown
    for markup in ("**", "//", "<b>", "~", "&"):
        assert markup not in text


def test_table_escapes_markup_in_guards() -> None:
    """A bar would end the cell, and stars and brackets would be markup of Markdown."""
    lines = to_table(shop("")).splitlines()

    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 6
    for guard in GUARDS:
        row = next(line for line in lines if f"| {guard} |" in re.sub(r"\\(\W|_)", r"\1", line))
        assert not re.search(r"(?<!\\)[*<`&~]", row.replace("*stays*", ""))


@needs_dot
def test_dot_breaks_long_guards_before_connectives() -> None:
    """Graphviz reads the signs as text, and a long condition makes no wide picture."""
    done = subprocess.run(
        ["dot", "-Tplain"], input=to_dot(shop("")), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert not done.stderr

    text = to_dot(shop(""))

    for row in ("[(amount <= 50", "or amount == 1) and is_big", "and not (amount < 5)"):
        assert f">{escape(row)}</FONT>" in text
