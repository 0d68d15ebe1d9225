"""Effects: requests of a step to the runtime, which performs them. Values only."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeAlias

from ..dataclass import dataclass


@dataclass(frozen=True, slots=True)
class StartActivity:
    """Start *activity*; it answers with events, which are dropped once it was canceled.

    Attributes:
        activity: Such as ``spawn``, ``health`` or ``hooks``.
        point: For hooks, the hook point; else empty.
    """

    activity: str
    point: str = ""


@dataclass(frozen=True, slots=True)
class CancelActivity:
    """Cancel *activity*; a no-op if it has ended."""

    activity: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Arm *timer* anew; its event comes when it expires."""

    timer: str


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Disarm *timer*; a no-op if it is not armed."""

    timer: str


@dataclass(frozen=True, slots=True)
class KillProcess:
    """Kill the whole process tree."""


@dataclass(frozen=True, slots=True)
class QueueWaiter:
    """Queue the request that came with this event."""


@dataclass(frozen=True, slots=True)
class AdmitWaiter:
    """Admit the request that came with this event."""


@dataclass(frozen=True, slots=True)
class RejectWaiter:
    """Reject the request that came with this event."""


@dataclass(frozen=True, slots=True)
class AdmitAll:
    """Admit every waiting request."""


@dataclass(frozen=True, slots=True)
class RejectAll:
    """Reject every waiting request."""


@dataclass(frozen=True, slots=True)
class StopDone:
    """Answer the stop callers: the process that this stop found is gone."""


@dataclass(frozen=True, slots=True)
class Notify:
    """A custom effect, passed on to the listeners of the instance.

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

#: Name in the ``actions`` section of a chart document -> effect class and its arguments.
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
    """Return *effect* as promises name it, such as ``timer.start grace``."""
    words = (str(getattr(effect, field.name)) for field in fields(effect))
    return " ".join([_NAMES[type(effect)], *(word for word in words if word)])
