"""Options of the command line that say what a diagram shows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...machine import Document, View

#: Options that are fields of a view.
_FIELDS = (
    "depth", "focus", "collapse", "only", "hide", "direction", "max_width", "theme", "edges",
    "labels", "spacing", "title", "legend", "active",
)  # fmt: skip


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a diagram shows."""
    group = parser.add_argument_group("what a diagram shows")
    group.add_argument(
        "--view", metavar="NAME",
        help="overview, full, or a composite state to show from the inside; default: what fits",
    )  # fmt: skip
    group.add_argument("--depth", type=int, metavar="N", help="levels of states to draw")
    group.add_argument("--focus", metavar="STATE", help="state to draw with its neighbors")
    group.add_argument(
        "--collapse", type=_names, metavar="STATE,...", help="composite states to draw as one box"
    )
    group.add_argument(
        "--only", type=_names, metavar="ORIGIN,...",
        help="draw only transitions by user, activity, timer or process",
    )  # fmt: skip
    group.add_argument(
        "--hide", type=_names, metavar="PART,...",
        help="bookkeeping, ignored, guards, actions, internal, incoming, or none; "
        "default: bookkeeping,ignored",
    )  # fmt: skip
    group.add_argument("--direction", choices=("auto", "TB", "LR"))
    group.add_argument(
        "--max-width", type=int, metavar="PX",
        help="width of the page; direction and depth are chosen to fit it; 0: any; default: 900",
    )  # fmt: skip
    group.add_argument("--theme", choices=("auto", "light", "dark"))
    group.add_argument("--edges", choices=("curved", "straight", "orthogonal"))
    group.add_argument("--labels", choices=("auto", "beside", "between"))
    group.add_argument("--spacing", type=float, metavar="FACTOR")
    group.add_argument("--title", metavar="TEXT")
    group.add_argument("--no-legend", dest="legend", action="store_false", default=None)
    group.add_argument("--active", type=_names, metavar="STATE,...", help="states to highlight")
    group.add_argument(
        "--trace", metavar="EVENT,...",
        help="highlight the way of these events, such as `submit(value=50),approve`",
    )  # fmt: skip
    group.add_argument(
        "--finding", type=int, metavar="N",
        help="highlight the way to finding N of `chart check`, from 1",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.removeprefix("origin=").split(",") if name.strip())
    return () if names == ("none",) else names


def view_of(document: Document, options: argparse.Namespace, base: View | None = None) -> View:
    """Return the view of *document* that the options describe, changes of *base*.

    Raises:
        SwapchartError: An option does not fit the chart.
    """
    from dataclasses import replace

    from ...machine import ChartError, View, check
    from ...machine.checking.follow import with_moves

    view = base or View()
    name = getattr(options, "view", None)
    if name is not None:
        view = _named(document, name, view)
    given = {key: getattr(options, key, None) for key in _FIELDS}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if changes.get("max_width") == 0:
        changes["max_width"] = None
    view = replace(view, **changes)
    if getattr(options, "trace", None):
        view = replace(view, trace=tuple(_events(options.trace)))
    if getattr(options, "finding", None) is not None:
        findings = [finding for finding in check(document).findings if finding.trace]
        if not 1 <= options.finding <= len(findings):
            why = f"expected 1 to {len(findings)}, got {options.finding}"
            raise ChartError("--finding", why if findings else "the check finds nothing")
        view = replace(view, trace=findings[options.finding - 1])
    return with_moves(document, view)


def _named(document: Document, name: str, base: View) -> View:
    from dataclasses import replace

    from ...machine import ChartError
    from ...machine.drawing.views import full, views

    known = views(document)
    if name not in known and name != "full":
        raise ChartError("--view", f"expected one of full, {', '.join(known)}; got {name!r}")
    found = full(document) if name == "full" else known[name]
    return replace(
        base, depth=found.depth, focus=found.focus, hide=found.hide, max_width=found.max_width
    )


def _events(text: str) -> list[str]:
    """Split *text* at its commas, but not at those between parentheses."""
    events = [""]
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            events.append("")
        else:
            events[-1] += char
    return events
