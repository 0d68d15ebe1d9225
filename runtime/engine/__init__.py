"""Driver of custom charts: a `Host` runs any number of `Instance`s of any `Machine`.

`Actions` holds what a program gives a chart: functions of its activities and seconds of its
timers. Each event that was processed is a `Step`.
"""

from .actions import (
    Actions,
    ActivityContext,
    ActivityFunction,
    Answer,
    ErrorFunction,
    NotifyListener,
    StepListener,
)
from .errors import (
    ActivityError,
    EndedError,
    HostStateError,
    StoreFailedError,
    UnknownStateError,
    WrongThreadError,
)
from .host import Host, Replacement
from .instance import Instance
from .records import Step
from .saving import ActivityPolicy, TimerPolicy
from .store import Store

__all__ = [
    "Actions",
    "ActivityContext",
    "ActivityError",
    "ActivityFunction",
    "ActivityPolicy",
    "Answer",
    "EndedError",
    "ErrorFunction",
    "Host",
    "HostStateError",
    "Instance",
    "NotifyListener",
    "Replacement",
    "Step",
    "StepListener",
    "Store",
    "StoreFailedError",
    "TimerPolicy",
    "UnknownStateError",
    "WrongThreadError",
]
