"""Selection: the boxes and arrows of one view of a chart, for every format alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal, TypeAlias

from ...dataclass import dataclass, field
from ..document import Document
from ..effects import CancelActivity, CancelTimer, StartTimer
from ..errors import ChartError
from .diagram_model import Edge, Kind, Label, Node, Picture, picture
from .labels import durations, merged, summary
from .trace import Taken, taken_edges
from .views import View

_BOOKKEEPING = (StartTimer, CancelTimer, CancelActivity)
BoxKind: TypeAlias = Kind | Literal["folded", "outside"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Transitions into a box from states that are not drawn.

    Attributes:
        sources: The states; composite states for all that is inside.
        labels: One line each; empty for composite states, whose own diagrams show the labels.
    """

    sources: tuple[str, ...]
    labels: tuple[Label, ...] = ()

    def __str__(self) -> str:
        """Return the entry as one line."""
        labels = f": {'; '.join(map(str, self.labels))}" if self.labels else ""
        return f"from {', '.join(self.sources)}{labels}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A state of a drawing.

    Attributes:
        id: Name of the state; unique in the drawing.
        text: Name to show.
        kind: Shape. ``folded`` is a composite state drawn as one box, ``outside`` a neighbor of the
            focus.
        above: Its ancestors in the drawing, outermost first.
        children: Ids of the boxes directly inside, in document order.
        initial: The child in which it starts; empty if that is not drawn.
        enter: Actions on entry, in order.
        exit: Actions on exit, in order.
        inside: Transitions without a target.
        entered: Ways from states that are not drawn into this one.
        path: Its ancestors in the chart and itself, joined by dots.
        size: Number of atomic states inside; 0 for an atomic state.
        role: ``serving``, ``quiet`` or empty, as the promises of the chart say.
        is_region: True for a part of a parallel state.
        is_active: True if it is highlighted.
        is_taken: True if the trace leads through it.
        link: Address that the box leads to; may be empty.
        title: Everything about it in words, what the view hides included.
    """

    id: str
    text: str
    kind: BoxKind
    above: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    initial: str = ""
    enter: tuple[str, ...] = ()
    exit: tuple[str, ...] = ()
    inside: tuple[Label, ...] = ()
    entered: tuple[Entry, ...] = ()
    path: str = ""
    size: int = 0
    role: str = ""
    is_region: bool = False
    is_active: bool = False
    is_taken: bool = False
    link: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """Transitions between two boxes.

    Attributes:
        source: Id of the box that is left.
        target: Id of the box that is entered.
        labels: One line each.
        steps: Numbers of the moves of the trace that take it, from 1.
        title: Everything about it in words, what the view hides included.
    """

    source: str
    target: str
    labels: tuple[Label, ...] = ()
    steps: tuple[int, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One view of a chart.

    Attributes:
        title: Caption.
        boxes: Id -> box, ancestors before what they hold.
        arrows: In document order.
        initial: Id of the outermost initial box; empty if it is not drawn.
        view: The view, for colors and directions.
    """

    title: str
    boxes: dict[str, Box]
    arrows: tuple[Arrow, ...]
    initial: str
    view: View = field(default_factory=View)

    def children(self, parent: str) -> Iterator[Box]:
        """Yield the boxes directly inside *parent*; the outermost ones for an empty name."""
        return (box for box in self.boxes.values() if (box.above or ("",))[-1] == parent)


def _guess(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def select(document: Document, view: View) -> Drawing:
    """Return what *view* shows of *document*.

    Raises:
        ChartError: The focus, a collapsed or an active state is not a state of the chart.
    """
    return _Selection(document, view).drawing()


class _Selection:
    """Selects the boxes and arrows of one view."""

    def __init__(self, document: Document, view: View) -> None:
        self._document, self._view = document, view
        self._whole: Picture = picture(document)
        nodes = self._whole.nodes
        named = [("focus", view.focus), *(("collapse", n) for n in view.collapse)]
        named += [("active", n) for n in view.active]
        for where, name in named:
            if name and name not in nodes:
                why = f"expected a state of {document.name}, got {name!r}{_guess(name, nodes)}"
                raise ChartError(where, why)
        self._focus = nodes.get(view.focus)
        self._durations = durations(document)
        self._bookkeeping = {
            name
            for name, action in document.actions.items()
            if action.effects
            and not action.assigns
            and not action.raises
            and all(
                isinstance(e, StartTimer | CancelTimer | CancelActivity) for e in action.effects
            )
        }
        self._core = {name for name, node in nodes.items() if self._is_core(node)}
        self._taken: Taken = taken_edges(self._whole, view.moves)
        self._boxes = {name: self._box(nodes[name]) for name in nodes if self._shown(name) == name}

    def _is_core(self, node: Node) -> bool:
        focus = self._focus
        return focus is None or node.id == focus.id or focus.id in node.above

    def _limit(self) -> int | None:
        """Return the number of ancestors that a drawn state may have; None is unlimited."""
        depth, focus = self._view.depth, self._focus
        if depth is None:
            return None
        if focus is None:
            return depth - 1
        return len(focus.above) + depth + (focus.kind == "parallel")

    def _is_folded(self, node: Node) -> bool:
        limit = self._limit()
        is_deep = limit is not None and len(node.above) >= limit
        return bool(node.children) and (is_deep or node.id in self._view.collapse)

    def _shown(self, name: str) -> str | None:
        """Return the drawn state that stands for *name*; None if it is outside of the view."""
        if name not in self._core:
            return None
        nodes = self._whole.nodes
        for ancestor in nodes[name].above:
            if ancestor in self._core and self._is_folded(nodes[ancestor]):
                return ancestor
        return name

    # ---- boxes ---------------------------------------------------------------------------
    def _box(self, node: Node) -> Box:
        view, nodes = self._view, self._whole.nodes
        is_folded = self._is_folded(node)
        below = [other for other in nodes.values() if node.id in other.above]
        promises = self._document.promises
        role = "quiet" if node.id in promises.quiet else ""
        inner = {node.id, *(other.id for other in below)} if is_folded else {node.id}
        return Box(
            id=node.id,
            text=node.id,
            kind="folded" if is_folded else node.kind,
            above=tuple(name for name in node.above if name in self._core),
            children=() if is_folded else node.children,
            initial="" if is_folded else node.initial,
            enter=() if is_folded else self._actions(node.enter),
            exit=() if is_folded else self._actions(node.exit),
            inside=() if is_folded else tuple(self._inside(node)),
            path=".".join((*node.above, node.id)),
            size=sum(not other.children and other.kind[-7:] != "history" for other in below),
            role="serving" if node.id in promises.serving else role,
            is_region=bool(node.above) and nodes[node.above[-1]].kind == "parallel",
            is_active=bool(inner & set(view.active)),
            is_taken=bool(inner & self._taken.states),
            link=view.links.get(node.id, ""),
            title="\n".join(_described(node, [other.id for other in below])),
        )

    def _outside(self, name: str) -> str:
        """Add the box of a neighbor; return its id."""
        if name not in self._boxes:
            node = self._whole.nodes[name]
            kind: BoxKind = (
                "outside" if node.kind in ("atomic", "compound", "parallel") else node.kind
            )
            box = replace(self._box(node), kind=kind, above=(), children=(), initial="", inside=())
            self._boxes[name] = replace(box, enter=(), exit=(), is_region=False)
        return name

    # ---- labels --------------------------------------------------------------------------
    def _actions(self, names: Iterable[str]) -> tuple[str, ...]:
        hide = self._view.hide
        if "actions" in hide:
            return ()
        return tuple(
            name
            for name in names
            if "bookkeeping" not in hide or name.partition(" (")[0] not in self._bookkeeping
        )

    def _inside(self, node: Node) -> Iterator[Label]:
        hide = self._view.hide
        if "internal" in hide:
            return
        kept = (label for label in node.inside if label.actions or "ignored" not in hide)
        yield from self._labels(kept)

    def _labels(self, labels: Iterable[Label]) -> list[Label]:
        """Return *labels* without what the view hides; equal ones are merged."""
        view = self._view
        return merged(
            Label(
                events=tuple(self._event(name) for name in label.events),
                guard="" if "guards" in view.hide else label.guard,
                actions=self._actions(label.actions),
                origin=label.origin,
            )
            for label in labels
            if not view.only or label.origin in view.only
        )

    def _event(self, name: str) -> str:
        """Return the event *name* with its duration, or that alone if the name is no other."""
        duration = self._durations.get(name)
        if duration is None:
            return name
        is_short_form = self._document.events[name].of == name and "_after_" in name
        return f"after {duration}" if is_short_form else f"{name} (after {duration})"

    # ---- arrows --------------------------------------------------------------------------
    def drawing(self) -> Drawing:
        """Return the selection."""
        view, focus = self._view, self._focus
        arrows: dict[tuple[str, str], list[Edge]] = {}
        sources: dict[tuple[str, str], list[Edge]] = {}
        for edge in self._edges():
            source, target = self._shown(edge.source), self._shown(edge.target)
            if source is None and target is None:
                continue
            if source is None:
                assert target is not None
                if "incoming" in view.hide:
                    continue
                if focus is not None and focus.children:
                    sources.setdefault((target, self._labeled(edge.source)), []).append(edge)
                    continue
                source = self._outside(edge.source)
            target = self._outside(edge.target) if target is None else target
            if source == target and self._boxes[source].kind == "folded":
                continue
            arrows.setdefault((source, target), []).append(edge)
        found = [self._arrow(*ends, edges) for ends, edges in arrows.items()]
        for (target, source), edges in sources.items():
            self._enter(target, source, edges)
        title = view.title
        if title is None:
            title = f"{self._document.name}: {view.focus}" if focus else self._document.name
        return Drawing(
            title=title,
            boxes=self._boxes,
            arrows=tuple(arrow for arrow in found if arrow is not None),
            initial="" if focus else self._whole.initial,
            view=view,
        )

    def _edges(self) -> Iterator[Edge]:
        """Yield the edges of the chart, and for an atomic focus those that it inherits."""
        focus = self._focus
        if focus is None or focus.children:
            yield from self._whole.edges
            return
        entered = set()
        for node in self._whole.nodes.values():
            last = node
            while last.initial:
                last = self._whole.nodes[last.initial]
            if last.id == focus.id:
                entered.add(node.id)
        handled = _unguarded(self._whole, focus)
        for edge in self._whole.edges:
            if edge.source == focus.id or edge.target in entered:
                target = focus.id if edge.target in entered else edge.target
                yield replace(edge, target=target)
        for name in reversed(focus.above):
            for edge in self._whole.edges:
                if edge.source == name:
                    labels = [
                        replace(label, events=tuple(e for e in label.events if e not in handled))
                        for label in edge.labels
                    ]
                    kept = tuple(label for label in labels if label.events)
                    if kept:
                        yield Edge(source=focus.id, target=edge.target, labels=kept)
            handled |= _unguarded(self._whole, self._whole.nodes[name])

    def _arrow(self, source: str, target: str, edges: Sequence[Edge]) -> Arrow | None:
        labels = self._labels(label for edge in edges for label in edge.labels)
        if self._boxes[source].kind == "folded":
            labels = list(summary(labels))
        steps = sorted(
            {
                step
                for edge in edges
                for step in self._taken.edges.get((edge.source, edge.target), ())
            }
        )
        if self._view.only and not labels:
            return None
        said = [f"{e.source} to {e.target}: {label}" for e in edges for label in e.labels]
        return Arrow(
            source=source, target=target, labels=tuple(labels), steps=tuple(steps),
            title="\n".join(said),
        )  # fmt: skip

    def _neighbor(self, name: str) -> Node:
        """Return the outermost state around *name* that does not hold the focus."""
        assert self._focus is not None
        node = self._whole.nodes[name]
        outer = (n for n in (*node.above, name) if n not in self._focus.above or n == name)
        return self._whole.nodes[next(outer)]

    def _labeled(self, name: str) -> str:
        """Return *name* if no other view shows which state inside the focus it leads to."""
        return name if not self._neighbor(name).children else ""

    def _enter(self, target: str, source: str, edges: Sequence[Edge]) -> None:
        """Note on *target* that *edges* enter it: with labels from *source*, else without."""
        names = dict.fromkeys(self._neighbor(edge.source).id for edge in edges)
        labels = self._labels(label for edge in edges for label in edge.labels)
        if self._view.only and not labels:
            return
        # Actions stand where the source is drawn.
        shown = merged(replace(label, actions=()) for label in labels) if source else ()
        box = self._boxes[target]
        entry = Entry(sources=tuple(names), labels=tuple(shown))
        self._boxes[target] = replace(box, entered=(*box.entered, entry))


def _described(node: Node, below: Sequence[str]) -> Iterator[str]:
    """Yield lines that say everything about *node*, with the states *below* it."""
    yield f"{'.'.join((*node.above, node.id))} ({node.kind.replace('_', ' ')})"
    for word, actions in (("entry", node.enter), ("exit", node.exit)):
        if actions:
            yield f"{word} / {', '.join(actions)}"
    yield from map(str, node.inside)
    if node.description:
        yield node.description
    if node.tags:
        yield f"tags: {', '.join(node.tags)}"
    if below:
        yield f"inside: {', '.join(below)}"


def _unguarded(whole: Picture, node: Node) -> set[str]:
    """Return the events that *node* itself always handles."""
    labels = [
        *node.inside,
        *(label for edge in whole.edges if edge.source == node.id for label in edge.labels),
    ]
    return {event for label in labels if not label.guard for event in label.events}
