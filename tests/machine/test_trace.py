"""Traces in diagrams: the edges that the steps of an instance take."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import data, sampled_from

from swapchart.machine import (
    ChartError,
    Compiled,
    Finding,
    NotHandledError,
    View,
    lifecycle,
    render,
    to_dot,
    to_mermaid,
)
from swapchart.machine.checking.findings import Move
from swapchart.machine.checking.follow import follow
from swapchart.machine.drawing.diagram_model import picture
from swapchart.machine.drawing.selection import select
from swapchart.machine.drawing.trace import taken_edges
from swapchart.machine.drawing.views import overview

from .charts import NAMES, chart

COMPILED = {name: Compiled(chart(name)) for name in (*NAMES, "lifecycle")}


@pytest.mark.parametrize("name", COMPILED)
@settings(max_examples=60)
@given(data=data())
def test_trace_of_any_steps_takes_edges_between_their_states(name: str, data: Any) -> None:
    """Each step that changes the configuration takes an edge out of it and into the new one."""
    document, stepper = chart(name), COMPILED[name].stepper()
    stepper.begin()
    moves = [Move(event="begin", configuration=stepper.configuration)]
    for _ in range(12):
        event = data.draw(sampled_from(sorted(document.events)))
        fields = {
            field: data.draw(sampled_from(domain))
            for field, domain in document.events[event].data.items()
        }
        try:
            stepper.step(event, fields)
        except NotHandledError:
            continue
        moves.append(Move(event=event, configuration=stepper.configuration))
        if stepper.is_final:
            break
    whole = picture(document)

    taken = taken_edges(whole, moves)

    known = {(edge.source, edge.target) for edge in whole.edges}
    assert set(taken.edges) <= known
    numbers = {number for steps in taken.edges.values() for number in steps}
    for number, (before, after) in enumerate(pairwise(moves), 1):
        left, entered = set(before.configuration), set(after.configuration)
        if left == entered:
            continue
        assert number in numbers, (before, after)
        edges = [edge for edge, steps in taken.edges.items() if number in steps]
        assert {source for source, _ in edges} & left
        assert all(whole.nodes[name].kind == "choice" or name in taken.states for name in entered)


def test_trace_of_events_is_drawn_with_its_steps() -> None:
    """Choices that are passed are part of the way, and the states have a color of their own."""
    events = ["start", "hooks_done", "spawn_failed(permanent=False)", "hooks_done", "hooks_done"]
    trace = follow(lifecycle(), [*events, "settled"])
    drawing = select(lifecycle(), View(trace=trace))
    steps = {(arrow.source, arrow.target): arrow.steps for arrow in drawing.arrows if arrow.steps}

    assert steps == {
        ("stopped", "starting"): (1,),
        ("before_start", "launching"): (2,),
        ("launching", "on_failure"): (3,),
        ("on_failure", "after_stop"): (4,),
        ("after_stop", "settling"): (5,),
        ("settling", "concluded"): (6,),
        ("concluded", "crashed"): (6,),
        ("crashed", "backoff"): (6,),
    }
    assert drawing.boxes["backoff"].is_taken
    assert not drawing.boxes["ready"].is_taken
    for write in (to_dot, to_mermaid):
        assert "step 6" in write(lifecycle(), View(trace=trace))


def test_trace_in_an_overview_is_on_the_edges_of_folded_states() -> None:
    """Steps inside of a folded state are not drawn; those that leave it are."""
    trace = follow(lifecycle(), ["start", "hooks_done", "stop", "spawned"])
    drawing = select(lifecycle(), View(depth=overview(lifecycle()).depth, trace=trace))
    steps = {(arrow.source, arrow.target): arrow.steps for arrow in drawing.arrows if arrow.steps}

    assert steps == {("stopped", "starting"): (1,), ("starting", "stopping"): (3,)}


def test_trace_with_parallel_regions_marks_each_region() -> None:
    """One event that moves two regions takes two edges."""
    document = chart("parallel")
    stepper = Compiled(document).stepper()
    stepper.begin()
    both = [
        name for name, event in document.events.items() if event.origin == "user" and not event.data
    ]
    trace = [Move(event="begin", configuration=stepper.configuration)]
    for name in (*both, *both):
        try:
            stepper.step(name)
        except NotHandledError:
            continue
        trace.append(Move(event=name, configuration=stepper.configuration))

    taken = taken_edges(picture(document), trace)

    moved = [
        number
        for number in range(1, len(trace))
        if sum(number in steps for steps in taken.edges.values()) == 2
    ]
    assert moved


def test_trace_of_events_or_of_a_finding_is_drawn_as_its_moves() -> None:
    """`render` steps an instance through events; a finding stands for its own trace."""
    events = ("start", "hooks_done")
    moves = follow(lifecycle(), events)
    finding = Finding(kind="any", sentence="at all", trace=moves)
    drawn = {
        render(lifecycle(), "mermaid", view=View(trace=trace)) for trace in (events, moves, finding)
    }

    assert len(drawn) == 1
    assert "step 2" in drawn.pop()
    with pytest.raises(ChartError, match="trace: expected moves"):
        to_dot(lifecycle(), View(trace=events))
    with pytest.raises(ChartError, match="trace: expected an event of Lifecycle"):
        render(lifecycle(), "dot", view=View(trace=("fly",)))
