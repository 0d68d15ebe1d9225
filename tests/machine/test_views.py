"""Views of charts: what they show, what they fold, and that nothing is lost between them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from swapchart.machine import (
    ChartError,
    Document,
    View,
    lifecycle,
    read,
    render,
    to_dot,
    to_mermaid,
    to_plantuml,
)
from swapchart.machine.document import split_words
from swapchart.machine.drawing.diagram_model import guard_text
from swapchart.machine.drawing.palette import COLORS, DARK_OF, Palette, contrast
from swapchart.machine.drawing.selection import Drawing, select
from swapchart.machine.drawing.views import MOST_BOXES, full, inside, overview, views

from .charts import NAMES, chart

EVERY = [*NAMES, "lifecycle"]


def transitions(document: Document) -> Iterator[tuple[str, str, str, str, bool]]:
    """Yield (source, event, guard, target, whether it has actions) of every transition."""
    for name, definition, _ in document.states():
        parts = [(name, item) for item in definition.get("transitions") or ()]
        for history, body in (definition.get("history") or {}).items():
            parts += [(history, item) for item in (body or {}).get("transitions") or ()]
        for source, item in parts:
            for target in split_words(item.get("target")) or ("",):
                for event in split_words(item.get("event")) or ("",):
                    yield source, event, guard_text(document, item), target, bool(item.get("on"))


def shown(drawing: Drawing) -> set[tuple[str, str, str, str]]:
    """Return (source, event, guard, target) of every transition that *drawing* shows in full."""
    found = set()
    for arrow in drawing.arrows:
        for label in arrow.labels:
            for event in label.events or ("",):
                found.add((arrow.source, event.partition(" (")[0], label.guard, arrow.target))
    for box in drawing.boxes.values():
        for label in box.inside:
            for event in label.events or ("",):
                found.add((box.id, event, label.guard, ""))
        for entry in box.entered:
            for label in entry.labels:
                for event in label.events or ("",):
                    found.add((entry.sources[0], event, label.guard, box.id))
    return found


@pytest.mark.parametrize("name", EVERY)
def test_views_of_a_chart_together_show_every_transition(name: str) -> None:
    """With source, event, guard and target; ignored events are in the full diagram only."""
    document = chart(name)
    in_views: set[tuple[str, str, str, str]] = set()
    for view in views(document).values():
        in_views |= shown(select(document, view))
    in_full = shown(select(document, full(document)))

    for source, event, guard, target, acts in transitions(document):
        assert (source, event, guard, target) in in_full
        if target or acts:
            assert (source, event, guard, target) in in_views


@pytest.mark.parametrize("name", EVERY)
def test_overview_of_a_chart_has_few_boxes(name: str) -> None:
    """Few enough to be read at once, and one level of our own lifecycle."""
    drawing = select(chart(name), overview(chart(name)))
    boxes = [box for box in drawing.boxes.values() if not box.children]

    assert 1 <= len(boxes) <= MOST_BOXES
    if name == "lifecycle":
        assert {box.id for box in boxes if box.kind == "folded"} == {
            "starting", "sleeping", "failed", "stopping",
        }  # fmt: skip


def test_folded_state_takes_the_edges_of_what_is_inside() -> None:
    """Events of one origin are one line, and guards that differ are left out."""
    drawing = select(lifecycle(), overview(lifecycle()))
    arrow = next(a for a in drawing.arrows if (a.source, a.target) == ("starting", "stopping"))

    assert [label.origin for label in arrow.labels] == ["user", "process", "activity", "timer"]
    assert arrow.labels[0].events == ("abandon", "stop", "shutdown", "kill")
    assert "launching to aborting: kill / want_stop, hurry" in arrow.title
    assert drawing.boxes["starting"].size == 6


def test_composite_focus_shows_its_inside_and_its_neighbors() -> None:
    """Targets are boxes outside; sources are one line for each state that is entered."""
    drawing = select(lifecycle(), inside(lifecycle(), "sleeping"))
    kinds = {box.id: box.kind for box in drawing.boxes.values()}

    assert kinds["asleep"] == "atomic"
    assert kinds["ready"] == kinds["before_stop"] == "outside"
    assert str(drawing.boxes["suspending"].entered[0]) == (
        "from ready: doze_expired [idle]; sleep [idle]"
    )
    assert "starting" not in kinds
    bare = select(lifecycle(), View(focus="sleeping", hide=("incoming",)))
    assert not any(box.entered for box in bare.boxes.values())
    assert str(
        select(lifecycle(), inside(lifecycle(), "stopping")).boxes["sweeping"].entered[0]
    ) == ("from starting, sleeping")


def test_atomic_focus_shows_its_neighborhood_with_inherited_transitions() -> None:
    """`kill` of `stopping` leads out of `draining` too."""
    drawing = select(lifecycle(), View(focus="draining"))
    ends = {(arrow.source, arrow.target) for arrow in drawing.arrows}

    assert {("draining", "killing"), ("draining", "ready"), ("ready", "draining")} <= ends
    assert ("terminating", "killing") not in ends


def test_hidden_parts_are_not_shown() -> None:
    """Bookkeeping goes and the rest stays; each other part goes when it is asked for."""
    box = select(lifecycle(), View()).boxes["ready"]
    everything = select(lifecycle(), View(hide=())).boxes["ready"]
    bare = View(hide=("guards", "actions", "internal"))

    assert box.enter == ("admit_waiters", "start_liveness", "run_after_ready")
    assert "arm_stable" in everything.enter
    assert everything.exit
    assert not box.exit
    assert [label.events for label in box.inside] == [("request",), ("finish",), ("stable",)]
    drawing = select(lifecycle(), bare)
    labels = [label for arrow in drawing.arrows for label in arrow.labels]
    assert not any(label.guard or label.actions for label in labels)
    assert not any(box.inside or box.enter for box in drawing.boxes.values())


def test_only_keeps_transitions_of_the_given_origins() -> None:
    """The states stay, so that the picture can be compared with others."""
    drawing = select(lifecycle(), View(only=("timer",)))

    assert {label.origin for arrow in drawing.arrows for label in arrow.labels} == {"timer"}
    assert len(drawing.boxes) == len(select(lifecycle(), View()).boxes)


def test_durations_stand_beside_the_events_of_their_timers() -> None:
    """For one model, whose seconds are known."""
    notes = {"arm_grace": "7 s", "arm_idle_limits": "idle_limit 300 s, doze_limit off"}
    source = {**lifecycle().source, "notes": notes}
    text = render(read(render_json(source)), "mermaid")

    assert "grace_expired (after 7 s)" in text
    assert "idle_expired (after 300 s) [idle]" in text
    assert "arm_grace" not in text


def render_json(source: object) -> str:
    return json.dumps(source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth: expected at least 1 level, got 0"),
        ({"max_width": 10}, "max_width: expected at least 200 px, got 10"),
        ({"hide": ("colors",)}, "hide: expected bookkeeping, ignored, .*; got 'colors'"),
        ({"only": ("weather",)}, "only: expected user, activity, .*; got 'weather'"),
        ({"direction": "BT"}, "direction: expected auto, TB, LR; got 'BT'"),
        ({"theme": "sepia"}, "theme: expected auto, light, dark; got 'sepia'"),
        ({"spacing": 0.0}, "spacing: expected 0.2 to 10, got 0.0"),
        ({"labels": "inside"}, "labels: expected auto, beside, between; got 'inside'"),
        ({"edges": "wavy"}, "edges: expected curved, straight, orthogonal; got 'wavy'"),
    ],
)
def test_view_with_a_wrong_value_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ChartError, match=message):
        View(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["focus", "collapse"])
def test_view_of_an_unknown_state_is_refused(where: str) -> None:
    value = "redy" if where == "focus" else ("redy",)
    with pytest.raises(ChartError, match=f"{where}: expected a state of Lifecycle, got 'redy'"):
        to_dot(lifecycle(), View(**{where: value}))  # type: ignore[arg-type]


def test_text_has_contrast_on_every_background() -> None:
    """At least 4.5 on light and on dark pages; and each light color has one dark counterpart."""
    backgrounds = [name for name in COLORS if f"{name} line" in COLORS or name == "page"]
    backgrounds += [f"cluster {depth}" for depth in range(4)]
    texts = ["ink", "muted", "user", "activity", "timer", "process", "chart", "taken line"]

    assert len(DARK_OF) == len(COLORS)
    for shade in ("light", "dark"):
        palette = Palette(shade)
        for text in texts:
            for background in backgrounds:
                assert contrast(palette[text], palette[background]) >= 4.5, (text, background)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("name", EVERY)
def test_plantuml_shows_each_state_and_event(name: str) -> None:
    """Braces are balanced, and each state is declared once."""
    document = chart(name)
    text = to_plantuml(document, full(document))

    assert text.startswith("@startuml\n")
    assert text.endswith("@enduml\n")
    assert text.count("{\n") == text.count("}\n")
    for state, _, _ in document.states():
        assert len(re.findall(rf"^ *state .*\b{state}\b", text, re.MULTILINE)) == 1
    for word in (*document.events, *document.guards, *document.actions):
        assert word in text


@pytest.mark.parametrize("write", [to_dot, to_mermaid, to_plantuml])
def test_folded_states_say_how_many_states_are_inside(write: object) -> None:
    assert callable(write)
    assert "6 states inside" in write(lifecycle(), overview(lifecycle()))


def test_regions_of_a_parallel_state_are_dashed_and_in_document_order() -> None:
    """In Graphviz; each region is a dashed box, and an invisible edge keeps their order."""
    text = to_dot(chart("parallel"))

    assert text.count('style="rounded,filled,dashed"') == 2
    assert "(parallel)" in text
    assert re.search(r'\{ rank=same; "left start" -> "right start" \[style=invis\]; \}', text)


def test_plantuml_divides_regions_only_if_no_edge_leaves_one() -> None:
    """PlantUML refuses an edge out of a region beside a dividing line."""
    assert "\n  --\n" in to_plantuml(chart("parallel"), View())
    text = to_plantuml(chart("order"), View())
    assert "--\n" not in text
    assert text.count("##[dashed]") == 2


@pytest.mark.skipif(shutil.which("plantuml") is None, reason="PlantUML is not installed")
@pytest.mark.parametrize("name", EVERY)
def test_plantuml_accepts_the_diagrams(name: str) -> None:
    """The program itself finds no error in any view."""
    document = chart(name)
    sources = [to_plantuml(document, view) for view in [*views(document).values(), View()]]
    done = subprocess.run(
        ["plantuml", "-headless", "-syntax"], input="".join(sources), capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip

    assert "ERROR" not in done.stdout
    assert "STATE" in done.stdout


def test_duration_of_a_timer_is_written_in_its_units() -> None:
    """From the chart itself; an event that `after` made has no other name."""
    source = {
        **chart("order").source,
        "timers": {"escalation": "2d12h"},
    }
    text = to_mermaid(read(render_json(source)))

    assert "overdue (after 2 d 12 h) / remind" in text


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("view_of", [overview, full])
def test_edge_without_text_is_drawn_as_one_line(
    name: str, view_of: Callable[[Document], View]
) -> None:
    """A label without text would be a node that hides the edge between its two halves."""
    document = chart(name)
    view = replace(view_of(document), labels="between")

    assert "label=<>" not in to_dot(document, view=view)


def test_active_state_that_does_not_exist_is_refused() -> None:
    """With a guess, as the focus is; nothing would be highlighted."""
    for view, where in (
        (View(active=("raedy",)), "active"), (View(focus="raedy"), "focus"),
        (View(collapse=["raedy"]), "collapse"),
    ):  # fmt: skip
        with pytest.raises(ChartError, match=f"{where}: .*'raedy'; did you mean 'ready'"):
            select(lifecycle(), view)
