"""Errors of hosts and instances."""

from __future__ import annotations

from ...machine.errors import StepError, SwapchartError


class HostStateError(SwapchartError, RuntimeError):
    """A host or an instance is not in a state for this call; nothing was changed."""


class WrongThreadError(SwapchartError, RuntimeError):
    """A method was called outside the thread of the host; nothing was changed."""


class UnknownStateError(SwapchartError, LookupError):
    """The chart has no such state, or never stays in it after a step."""


class EndedError(SwapchartError):
    """The awaited state cannot come any more.

    Attributes:
        id: Instance that was waited for.
        states: States that were waited for.
    """

    def __init__(self, instance: str, states: tuple[str, ...], why: str) -> None:
        super().__init__(f"{instance}: {' and '.join(states)} cannot come any more: {why}")
        self.id, self.states, self.why = instance, states, why


class StoreFailedError(StepError):
    """The store could not keep a step, which was undone."""


class ActivityError(SwapchartError):
    """An activity ended without an event that the chart declares for it.

    Attributes:
        activity: Name of the activity.
        why: What was expected and what was found.
    """

    def __init__(self, activity: str, why: str) -> None:
        super().__init__(f"activity {activity!r} {why}")
        self.activity, self.why = activity, why
