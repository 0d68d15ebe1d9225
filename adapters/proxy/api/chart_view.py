"""The chart of a model for the web UI: its boxes, its arrows and its active states."""

from __future__ import annotations

from collections.abc import Iterable

from ....machine.drawing.diagram_model import Label, picture
from ....runtime import Lifecycle
from .schema.models import Chart, ChartLabel, ChartState, ChartTransition


def chart_view(life: Lifecycle) -> Chart:
    """Return the states and transitions of the chart of *life*, and its active states.

    Nothing has a position, so the browser can draw the chart without Graphviz.
    """
    document = life.document
    diagram = picture(document)
    return Chart(
        model=life.spec.name,
        chart=diagram.name,
        configuration=list(life.configuration),
        states=[
            ChartState(
                id=node.id, kind=node.kind, above=list(node.above), initial=node.initial,
                enter=list(node.enter), exit=list(node.exit), inside=_labels(node.inside),
                is_quiet=node.id in document.promises.quiet,
                is_serving=node.id in document.promises.serving,
            )
            for node in diagram.nodes.values()
        ],
        transitions=[
            ChartTransition(source=edge.source, target=edge.target, labels=_labels(edge.labels))
            for edge in diagram.edges
        ],
    )  # fmt: skip


def _labels(labels: Iterable[Label]) -> list[ChartLabel]:
    return [
        ChartLabel(
            events=list(label.events), guard=label.guard, actions=list(label.actions),
            origin=label.origin,
        )
        for label in labels
    ]  # fmt: skip
