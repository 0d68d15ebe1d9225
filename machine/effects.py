"""Effects: what a step asks the runtime to do. Values only; the runtime performs them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StartActivity:
    """Start *activity*; its answers come back as events, dropped once it was cancelled.

    Attributes:
        activity: Such as ``spawn``, ``health`` or ``hooks``.
        point: For hooks, the hook point whose actions are to run; else empty.
    """

    activity: str
    point: str = ""


@dataclass(frozen=True, slots=True)
class CancelActivity:
    """Cancel *activity*; a no-op when it has ended."""

    activity: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Arm *timer* afresh; its event comes when it runs out."""

    timer: str


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Disarm *timer*; a no-op when it is not armed."""

    timer: str


@dataclass(frozen=True, slots=True)
class KillProcess:
    """Kill the whole process tree."""


@dataclass(frozen=True, slots=True)
class QueueWaiter:
    """The request that came with this event waits."""


@dataclass(frozen=True, slots=True)
class AdmitWaiter:
    """The request that came with this event is admitted."""


@dataclass(frozen=True, slots=True)
class RejectWaiter:
    """The request that came with this event is refused."""


@dataclass(frozen=True, slots=True)
class AdmitAll:
    """Every request that waits is admitted."""


@dataclass(frozen=True, slots=True)
class RejectAll:
    """Every request that waits is refused."""


@dataclass(frozen=True, slots=True)
class StopDone:
    """Whoever asked for the stop gets the answer: the process this stop found is gone."""


@dataclass(frozen=True, slots=True)
class Notify:
    """An effect of a user's own: handed to the listeners of the instance as it is.

    Attributes:
        name: Chosen by the author of the chart.
    """

    name: str


Effect: TypeAlias = (
    StartActivity
    | CancelActivity
    | StartTimer
    | CancelTimer
    | KillProcess
    | QueueWaiter
    | AdmitWaiter
    | RejectWaiter
    | AdmitAll
    | RejectAll
    | StopDone
    | Notify
)

#: Name in a chart document's ``actions`` section -> effect class and the arguments it takes.
KINDS: dict[str, tuple[type[Effect], tuple[str, ...], tuple[str, ...]]] = {
    # kind: (class, required arguments, optional arguments)
    "activity.start": (StartActivity, ("activity",), ("point",)),
    "activity.cancel": (CancelActivity, ("activity",), ()),
    "timer.start": (StartTimer, ("timer",), ()),
    "timer.cancel": (CancelTimer, ("timer",), ()),
    "process.kill": (KillProcess, (), ()),
    "waiter.queue": (QueueWaiter, (), ()),
    "waiter.admit": (AdmitWaiter, (), ()),
    "waiter.reject": (RejectWaiter, (), ()),
    "waiter.admit_all": (AdmitAll, (), ()),
    "waiter.reject_all": (RejectAll, (), ()),
    "stop.done": (StopDone, (), ()),
    "notify": (Notify, ("name",), ()),
}

_NAMES = {cls: kind for kind, (cls, _, _) in KINDS.items()}


def describe(effect: Effect) -> str:
    """Return *effect* as a chart document's promises name it, such as ``timer.start grace``."""
    words = (str(getattr(effect, field.name)) for field in fields(effect))
    return " ".join([_NAMES[type(effect)], *(word for word in words if word)])
