"""The lifecycle chart of a configuration, merged and checked."""

from __future__ import annotations

from ...machine import ChartError, Document
from ..config import Config


def chart_problem(error: ChartError) -> str:
    """Return the text of *error* in the `lifecycle` of a configuration, with its notes."""
    return "\n".join([f"error: {error}", *getattr(error, "__notes__", ())])


def chart(config: Config) -> Document | None:
    """Return the chart with the changes of *config*; None means the shipped chart.

    Raises:
        ChartError: The changes do not fit, or the changed chart breaks a promise; the notes have
            the shortest sequence of events that leads there.
    """
    if not config.lifecycle:
        return None
    from ...machine import Bounds, check, lifecycle
    from ...machine.checking.explore import parameter_sets
    from ...machine.format.overlay import merge

    try:
        document = merge(lifecycle(), config.lifecycle)
    except ChartError as error:  # its author knows the overlay as the key `lifecycle`
        raise ChartError(error.where.replace("overlay", "lifecycle", 1), error.why) from error
    first = next(iter(parameter_sets(document, Bounds())))  # `swapchart chart check` takes all
    report = check(document, parameters=[first], stop_at_first=True)
    if not report.is_ok:
        broken = ChartError("lifecycle", report.findings[0].sentence)
        broken.add_note(str(report.findings[0]))
        raise broken
    return document
