"""The edges and states that a trace leads through."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .diagram_model import Edge, Picture


class TraceMove(Protocol):
    """A step of a trace, such as the moves of a checker's finding."""

    @property
    def event(self) -> str:
        """Name of the event, perhaps with fields: ``submit(value=50)``."""

    @property
    def configuration(self) -> tuple[str, ...]:
        """Active states after the step."""


@dataclass(slots=True)
class Taken:
    """Result of following a trace.

    Attributes:
        states: States that were active at some time, or that were passed.
        edges: (source, target) -> numbers of the moves that took it, from 1.
    """

    states: set[str] = field(default_factory=set)
    edges: dict[tuple[str, str], list[int]] = field(default_factory=dict)


def taken_edges(picture: Picture, trace: Sequence[TraceMove]) -> Taken:
    """Return the edges of *picture* that *trace* takes; its first move is the creation."""
    taken = Taken()
    for number, move in enumerate(trace):
        taken.states |= set(move.configuration)
        if number == 0:
            continue
        before, after = set(trace[number - 1].configuration), set(move.configuration)
        event = move.event.partition("(")[0]
        for way in _ways(picture, event, before, after):
            for edge in way:
                taken.states |= {edge.source, edge.target} - {
                    name for name in picture.nodes if picture.nodes[name].children
                }
                taken.edges.setdefault((edge.source, edge.target), []).append(number)
    return taken


def _ways(
    picture: Picture, event: str, before: Collection[str], after: Collection[str]
) -> list[list[Edge]]:
    """Return shortest ways along *event* and then eventless edges into each state entered.

    The edge of the innermost source is taken first, as a step does.
    """
    depth = {name: len(node.above) for name, node in picture.nodes.items()}
    first = [
        edge
        for edge in picture.edges
        if edge.source in before
        and any(event in label.events or not label.events for label in edge.labels)
    ]
    first.sort(key=lambda edge: -depth[edge.source])
    # Whatever is left and entered again is entered too: a self-transition changes nothing else.
    todo = deque([edge] for edge in first)
    found: list[list[Edge]] = []
    seen: set[str] = set()
    goals = set(after) - set(before) or {edge.target for edge in first if edge.target in after}
    while todo:
        way = todo.popleft()
        target = way[-1].target
        if target in seen:
            continue
        seen.add(target)
        if target in goals or (picture.nodes[target].kind[-7:] == "history"):
            found.append(way)
            continue
        todo.extend(
            [*way, edge]
            for edge in picture.edges
            if edge.source == target and any(not label.events for label in edge.labels)
        )
    return found[:1] if not _is_parallel(picture, after) else found


def _is_parallel(picture: Picture, configuration: Collection[str]) -> bool:
    return any(picture.nodes[name].kind == "parallel" for name in configuration)
