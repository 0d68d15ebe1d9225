"""The edges and states that a trace leads through."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from ...dataclass import dataclass, field
from .diagram_model import Edge, Label, Picture


class TraceMove(Protocol):
    """A step of a trace, such as the moves of a checker's finding."""

    @property
    def event(self) -> str:
        """Name of the event, perhaps with fields: ``submit(value=50)``."""

    @property
    def configuration(self) -> tuple[str, ...]:
        """Active states after the step."""


class HasTrace(Protocol):
    """Something found at the end of a trace, such as a checker's finding."""

    @property
    def trace(self) -> Sequence[TraceMove]:
        """Moves from the creation on."""


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
    """Return shortest ways along *event*, then along what the chart takes by itself.

    Each way ends where a state is entered that was not active before; in a chart with active
    regions there may be several. The edge of the innermost source comes first, as in a step.
    """
    nodes = picture.nodes
    first = [
        edge
        for edge in picture.edges
        if edge.source in before
        and any(event in label.events or not label.events for label in edge.labels)
    ]
    first.sort(key=lambda edge: -len(nodes[edge.source].above))
    # A state that is left and entered again is in both configurations.
    goals = set(after) - set(before) or set(after) & {edge.target for edge in first}
    todo = deque([edge] for edge in first)
    found: list[list[Edge]] = []
    seen: set[str] = set()
    while todo:
        way = todo.popleft()
        target = way[-1].target
        if target in seen:
            continue
        seen.add(target)
        entered = _entered(picture, target)
        if entered & goals or nodes[target].kind in ("history", "deep_history"):
            found.append(way)
            continue
        around = entered | set(nodes[target].above)
        todo.extend(
            [*way, edge]
            for edge in picture.edges
            if edge.source in around and any(map(_is_automatic, edge.labels))
        )
    has_regions = any(nodes[name].kind == "parallel" for name in after)
    return found if has_regions else found[:1]


def _entered(picture: Picture, target: str) -> set[str]:
    """Return the states that an edge to *target* enters by default."""
    found, todo = set(), [target]
    while todo:
        name = todo.pop()
        found.add(name)
        node = picture.nodes[name]
        todo += node.children if node.kind == "parallel" else filter(None, [node.initial])
    return found


def _is_automatic(label: Label) -> bool:
    """Return True if the chart takes *label* within a step: eventless, done, or raised."""
    return not label.events or label.origin == "chart" or label.events[0].startswith("done.")
