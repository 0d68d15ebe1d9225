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
    from ...machine import lifecycle
    from ...machine.format.overlay import merge
    from ...runtime.chart_check import require_checked

    try:
        document = merge(lifecycle(), config.lifecycle)
    except ChartError as error:  # its author knows the overlay as the key `lifecycle`
        raise ChartError(error.where.replace("overlay", "lifecycle", 1), error.why) from error
    try:
        require_checked(document)  # `swapchart chart check` takes all parameters
    except ChartError as error:
        broken = ChartError("lifecycle", error.why)
        for note in getattr(error, "__notes__", ()):
            broken.add_note(note)
        raise broken from error
    return document
