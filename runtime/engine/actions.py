"""Actions of a chart: functions of its activities, seconds of its timers, callbacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from ...dataclass import dataclass, field
from ...machine import (
    CancelActivity,
    CancelTimer,
    ChartError,
    Machine,
    Notify,
    StartActivity,
    StartTimer,
    Value,
)
from ...machine.format.durations import MOST_S
from ..arguments import require_function, require_mapping
from .context_annotation import AnnotationError, takes
from .records import Step

P = TypeVar("P")

#: Event by which an activity ends, with its fields; None for no event.
Answer: TypeAlias = str | tuple[str, Mapping[str, Value]] | None


class Post(Protocol):
    """Posts an event to an instance; see `Instance.post`."""

    def __call__(
        self, event: str, fields: Mapping[str, Value] | None = None, *, payload: Any = None,
        cause: str = "",
    ) -> Step | None:  # fmt: skip
        """Process the event, now or right after the step in progress."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityContext(Generic[P]):
    """Context of an activity: the instance it belongs to, and the event that started it.

    Attributes:
        id: Id of the instance.
        activity: Name of the activity.
        point: Hook point of the effect, or empty.
        event: Event whose step started the activity; empty for the initial entry.
        fields: Fields of that event.
        event_payload: Payload of that event, or None.
        data: The chart's data after that step.
        payload: Payload of the instance.
        is_resumed: The activity is started again after its instance was resumed.
        post: Posts further events to the instance.
    """

    id: str
    activity: str
    point: str = ""
    event: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)
    event_payload: Any = None
    data: Mapping[str, Value] = field(default_factory=dict)
    payload: P
    is_resumed: bool = False
    post: Post


#: Runs while the activity is active, and returns the event by which it ends. It takes an
#: `ActivityContext` if its parameter is annotated so, by any name, else the hook point.
ActivityFunction: TypeAlias = (
    Callable[[str], Awaitable[Answer]] | Callable[[ActivityContext[Any]], Awaitable[Answer]]
)
#: Called with each step.
StepListener: TypeAlias = Callable[[Step], None]
#: Called with the name of each ``notify`` effect.
NotifyListener: TypeAlias = Callable[[str], None]
#: (activity, error) -> event of an activity that raised *error*, or None.
ErrorFunction: TypeAlias = Callable[[str, Exception], str | None]


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Actions:
    """Functions, times and callbacks of the instances of a chart; any number may share them.

    Attributes:
        activities: Name -> function that runs while the activity is active. If the chart cancels
            the activity, the function is cancelled and its event is dropped.
        timers: Name -> seconds until the event of the timer, >= 0. The others have those of the
            chart.
        on_step: Called with each step; must not wait. An exception is logged.
        on_notify: Called with the name of each ``notify`` effect; must not wait. An exception is
            logged.
        on_error: (activity, error) -> event of an activity that raised *error*; None leaves the
            choice to the chart.
    """

    activities: Mapping[str, ActivityFunction] = field(default_factory=dict)
    timers: Mapping[str, float] = field(default_factory=dict)
    on_step: StepListener | None = None
    on_notify: NotifyListener | None = None
    on_error: ErrorFunction | None = None
    #: Activity -> its function, and whether that takes an `ActivityContext`.
    _kinds: dict[str, tuple[ActivityFunction, bool]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the types.

        Raises:
            ConfigError: A field has a wrong type, or a callback is async.
        """
        require_mapping("activities", self.activities, "a mapping of names to functions")
        require_mapping("timers", self.timers, "a mapping of names to seconds")
        for name in ("on_step", "on_notify", "on_error"):
            require_function(name, getattr(self, name), or_none=True)

    def check(self, machine: Machine) -> None:
        """Compare with what the actions of *machine* start.

        Raises:
            ChartError: Something is missing, unknown or not a number of seconds, or the chart
                needs a process.
        """
        self._check_started(machine)
        known = {"activities": list(machine.answers), "timers": list(machine.fired)}
        for kind, given in (("activities", self.activities), ("timers", self.timers)):
            for name in given:
                if name not in known[kind]:
                    names = ", ".join(known[kind]) or "none"
                    raise ChartError(f"{kind}.{name}", f"the chart starts no such; known: {names}")
        for name, function in self.activities.items():
            if not callable(function):
                raise ChartError(f"activities.{name}", f"expected a function, got {function!r}")
            self._check_parameter(name)
        for name, seconds in self.timers.items():
            if not _is_duration(seconds):
                raise ChartError(f"timers.{name}", f"expected seconds >= 0, got {seconds!r}")

    def seconds(self, machine: Machine) -> Mapping[str, float]:
        """Return the seconds of all timers of *machine*."""
        own = machine.document.timers
        return {**own, **self.timers} if own else self.timers

    def function(self, activity: str) -> tuple[ActivityFunction, bool]:
        """Return the function of *activity*, and True if it takes an `ActivityContext`.

        The signature of a function is read once, which takes 31 to 88 us.
        """
        function = self.activities[activity]
        known = self._kinds.get(activity)
        if known is None or known[0] is not function:
            known = self._kinds[activity] = function, takes_context(function)
        return known

    def _check_parameter(self, activity: str) -> None:
        try:
            self.function(activity)
        except AnnotationError as error:
            raise ChartError(f"activities.{activity}", str(error)) from error
        except TypeError as error:
            function = self.activities[activity]
            why = f"expected a function of one argument, got {function!r}: {error}"
            raise ChartError(f"activities.{activity}", why) from error

    def _check_started(self, machine: Machine) -> None:
        for name, action in machine.document.actions.items():
            for effect in action.effects:
                where = f"actions.{name}"
                match effect:
                    case StartActivity(activity=wanted) if wanted not in self.activities:
                        raise ChartError(where, f"expected an activity {wanted!r} to be given")
                    case StartTimer(timer=wanted) if wanted not in self.seconds(machine):
                        raise ChartError(where, f"expected seconds for timer {wanted!r}")
                    case StartActivity() | StartTimer() | CancelActivity() | CancelTimer():
                        pass
                    case Notify():
                        pass
                    case _:
                        raise ChartError(where, f"{effect} needs a process: use a Supervisor")


def _is_duration(seconds: object) -> bool:
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return is_number and 0 <= seconds < MOST_S  # type: ignore[operator]


def takes_context(function: ActivityFunction) -> bool:
    """Return True if *function* takes an `ActivityContext`, by the annotation of its parameter.

    Raises:
        AnnotationError: The annotation cannot be resolved.
        TypeError: *function* cannot be called with one argument.
    """
    return takes(function, ActivityContext)
