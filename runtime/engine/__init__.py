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
    UnknownStateError,
    WrongThreadError,
)
from .host import Host
from .instance import Instance
from .records import Step

__all__ = [
    "Actions",
    "ActivityContext",
    "ActivityError",
    "ActivityFunction",
    "Answer",
    "EndedError",
    "ErrorFunction",
    "Host",
    "HostStateError",
    "Instance",
    "NotifyListener",
    "Step",
    "StepListener",
    "UnknownStateError",
    "WrongThreadError",
]
