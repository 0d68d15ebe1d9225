"""The chart of a model as the web UI draws it: boxes, arrows, and where the model is."""

from __future__ import annotations

from typing import Any

from ....machine.diagram_model import Label, picture
from ....runtime import Lifecycle


def chart_view(life: Lifecycle) -> dict[str, Any]:
    """Return the states and transitions of the chart of *life*, and its configuration now.

    States come in document order, ancestors before what they hold; ``above`` names the ancestors
    of each, outermost first. Nothing is laid out, so nobody needs Graphviz.
    """
    document = life.document
    drawn = picture(document)
    return {
        "model": life.spec.name,
        "chart": drawn.name,
        "configuration": list(life.configuration),
        "states": [
            {
                "id": node.id, "kind": node.kind, "above": list(node.above),
                "initial": node.initial, "enter": list(node.enter), "exit": list(node.exit),
                "inside": [_label(label) for label in node.inside],
                "is_quiet": node.id in document.promises.quiet,
                "is_serving": node.id in document.promises.serving,
            }
            for node in drawn.nodes.values()
        ],
        "transitions": [
            {
                "source": edge.source, "target": edge.target,
                "labels": [_label(label) for label in edge.labels],
            }
            for edge in drawn.edges
        ],
    }  # fmt: skip


def _label(label: Label) -> dict[str, Any]:
    return {
        "events": list(label.events), "guard": label.guard, "actions": list(label.actions),
        "origin": label.origin,
    }  # fmt: skip
