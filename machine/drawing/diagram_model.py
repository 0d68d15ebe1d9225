"""Content of a diagram, independent of its format: nodes, edges and their labels.

Transitions between the same two states become one edge, and events that share guard and actions
share a line. This keeps the diagram of a real chart readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ...dataclass import dataclass
from ..document import Document, as_list, split_words

Kind: TypeAlias = Literal[
    "atomic", "choice", "compound", "parallel", "final", "history", "deep_history"
]

#: Words that bind an expression less than `and`.
_LOOSE = re.compile(r"\b(?:or|if)\b")
#: A name, or `in(state)`.
_TIGHT = re.compile(r"\w+(?:\(\w+\))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of an edge: ``events [guard] / actions``.

    Attributes:
        events: Names; empty for an eventless transition.
        guard: Guards as a sentence, such as ``idle and not refuses`` or ``amount < 1000``; may be
            empty.
        actions: Names in the order in which they run.
        origin: Sender of the events: user, activity, timer, process; empty if none or mixed.
    """

    events: tuple[str, ...]
    guard: str
    actions: tuple[str, ...]
    origin: str

    def __str__(self) -> str:
        """Return the label in UML notation."""
        parts = [", ".join(self.events)] if self.events else []
        if self.guard:
            parts.append(f"[{self.guard}]")
        if self.actions:
            parts.append(f"/ {', '.join(self.actions)}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One state.

    Attributes:
        id: Name of the state.
        kind: Shape of the node; a choice has eventless transitions only.
        above: Its ancestors, outermost first.
        children: Ids of the states and history states directly inside it.
        initial: The child in which it starts; empty for atomic and parallel states.
        enter: Actions on entry, in order.
        exit: Actions on exit, in order.
        inside: Transitions without a target.
        description: Words for readers; may be empty.
        tags: Words for programs.
    """

    id: str
    kind: Kind
    above: tuple[str, ...]
    children: tuple[str, ...]
    initial: str
    enter: tuple[str, ...]
    exit: tuple[str, ...]
    inside: tuple[Label, ...]
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """All transitions from one state to another.

    Attributes:
        source: Id of the state that is left.
        target: Id of the state that is entered.
        labels: One line each.
    """

    source: str
    target: str
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A chart as nodes and edges.

    Attributes:
        name: Name of the chart.
        nodes: Id -> node, in document order, ancestors before what they hold.
        edges: In document order.
        initial: Id of the outermost initial state.
    """

    name: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    initial: str

    def children(self, above: tuple[str, ...]) -> Iterator[Node]:
        """Yield the nodes directly inside *above*; the outermost ones for ``()``."""
        return (node for node in self.nodes.values() if node.above == above)


def picture(document: Document) -> Picture:
    """Return nodes and edges of *document*."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for name, definition, above in document.states():
        lines = [
            (target, _label(document, item))
            for item in definition.get("transitions") or ()
            for target in split_words(item.get("target")) or ("",)
        ]
        nodes[name] = _node(document, name, definition, above, tuple(_merged(lines, "")))
        edges += (
            Edge(source=name, target=target, labels=tuple(_merged(lines, target)))
            for target in dict.fromkeys(target for target, _ in lines if target)
        )
        for history, body in (definition.get("history") or {}).items():
            nodes[history] = _history(history, body or {}, (*above, name))
            for item in (body or {}).get("transitions") or ():
                label = (_label(document, item),)
                edges += (
                    Edge(source=history, target=target, labels=label)
                    for target in split_words(item.get("target"))
                )
    return Picture(
        name=document.name,
        nodes=nodes,
        edges=tuple(edges),
        initial=initial_child(document.chart["states"]),
    )


def initial_child(states: Mapping[str, Any]) -> str:
    """Return the id in *states* that is marked initial, else the first, like the library."""
    marked = (name for name, body in states.items() if (body or {}).get("initial"))
    return str(next(marked, next(iter(states), "")))


def guard_text(document: Document, item: Mapping[str, Any]) -> str:
    """Return the guards of the transition *item* as one condition; empty without guards.

    A guard that was written in the place of its name is shown as its expression.
    """
    texts = document.guard_texts
    wanted = [texts.get(name, name) for name in map(str, as_list(item.get("cond")))]
    unwanted = [texts.get(name, name) for name in map(str, as_list(item.get("unless")))]
    if len(wanted) + len(unwanted) > 1:
        wanted = [f"({text})" if _LOOSE.search(text) else text for text in wanted]
    negated = (f"not {text}" if _TIGHT.match(text) else f"not ({text})" for text in unwanted)
    return " and ".join((*wanted, *negated))


def action_names(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the actions of the transition *item* in the order in which they run."""
    return tuple(str(name) for key in ("before", "on", "after") for name in as_list(item.get(key)))


def _label(document: Document, item: Mapping[str, Any]) -> Label:
    events = split_words(item.get("event"))
    origins = {document.events[name].origin if name in document.events else "" for name in events}
    return Label(
        events=events,
        guard=guard_text(document, item),
        actions=document.noted(action_names(item)),
        origin=origins.pop() if len(origins) == 1 else "",
    )


def _merged(lines: Sequence[tuple[str, Label]], target: str) -> Iterator[Label]:
    """Yield the labels that lead to *target*, with those that differ only in events merged."""
    groups: dict[tuple[object, ...], list[Label]] = {}
    for reached, label in lines:
        if reached == target:
            eventless = not label.events
            key = (label.guard, label.actions, label.origin, eventless)
            groups.setdefault(key, []).append(label)
    for labels in groups.values():
        first = labels[0]
        events = tuple(dict.fromkeys(name for label in labels for name in label.events))
        yield Label(events=events, guard=first.guard, actions=first.actions, origin=first.origin)


def _node(
    document: Document, name: str, definition: Mapping[str, Any], above: tuple[str, ...],
    inside: tuple[Label, ...],
) -> Node:  # fmt: skip
    states = definition.get("states") or {}
    return Node(
        id=name,
        kind=_kind(definition),
        above=above,
        children=(*states, *(definition.get("history") or {})),
        initial="" if definition.get("parallel") or not states else initial_child(states),
        enter=document.noted(map(str, as_list(definition.get("enter")))),
        exit=document.noted(map(str, as_list(definition.get("exit")))),
        inside=inside,
        description=str(definition.get("description") or ""),
        tags=tuple(map(str, as_list(definition.get("tags")))),
    )


def _history(name: str, definition: Mapping[str, Any], above: tuple[str, ...]) -> Node:
    kind: Kind = "deep_history" if definition.get("type") == "deep" else "history"
    return Node(
        id=name, kind=kind, above=above, children=(), initial="", enter=(), exit=(), inside=()
    )


def _kind(definition: Mapping[str, Any]) -> Kind:
    if definition.get("states"):
        return "parallel" if definition.get("parallel") else "compound"
    if definition.get("final"):
        return "final"
    transitions = definition.get("transitions") or ()
    if definition.get("enter") or definition.get("exit"):
        return "atomic"
    # A guard may hold it up: only an unguarded transition makes it a choice.
    passes = any(not item.get("cond") and not item.get("unless") for item in transitions)
    is_choice = passes and not any(item.get("event") for item in transitions)
    return "choice" if is_choice else "atomic"
