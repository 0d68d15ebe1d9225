"""The lifecycle chart of a configuration, merged and checked."""

from __future__ import annotations

from ...machine import ChartError, Document
from ..config import Config


def chart(config: Config) -> Document | None:
    """Return the chart of all models with the changes of *config*; None: the shipped one.

    Raises:
        ChartError: The changes do not fit, or the chart then breaks a promise; the shortest way
            to it is in the notes.
    """
    if not config.lifecycle:
        return None
    from ...machine import Bounds, check, lifecycle
    from ...machine.explore import parameter_sets
    from ...machine.overlay import merge

    document = merge(lifecycle(), config.lifecycle)
    first = next(iter(parameter_sets(document, Bounds())))  # all of them: `swapchart chart check`
    report = check(document, parameters=[first], stop_at_first=True)
    if not report.is_ok:
        error = ChartError("lifecycle", report.findings[0].sentence)
        error.add_note(str(report.findings[0]))
        raise error
    return document
