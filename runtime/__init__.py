"""Drives charts: one writer per instance; timers, hooks, supervision, scheduling."""

from .errors import (
    ConfigError,
    EngineError,
    LaunchError,
    PlacementError,
    PortInUseError,
    RequestError,
    SpecError,
    SwapchartError,
)
from .hooks import HookResult
from .leases import Lease
from .lifecycle import Lifecycle
from .logs import LogRing
from .player import Player, Step
from .ports import (
    Command,
    Exit,
    HttpCall,
    HttpClient,
    Launcher,
    LogSink,
    Probe,
    ProcessHandle,
)
from .records import Transition
from .renewal import Difference, compare
from .scheduler import EvictionPolicy, QueueLimits, Scheduler, one_at_a_time
from .spec import (
    CallAction,
    Hook,
    HookContext,
    HttpAction,
    Liveness,
    RunAction,
    ServiceSpec,
    Timings,
)
from .supervisor import Change, Supervisor

__all__ = [
    "CallAction",
    "Change",
    "Command",
    "ConfigError",
    "Difference",
    "EngineError",
    "EvictionPolicy",
    "Exit",
    "Hook",
    "HookContext",
    "HookResult",
    "HttpAction",
    "HttpCall",
    "HttpClient",
    "LaunchError",
    "Launcher",
    "Lease",
    "Lifecycle",
    "Liveness",
    "LogRing",
    "LogSink",
    "PlacementError",
    "Player",
    "PortInUseError",
    "Probe",
    "ProcessHandle",
    "QueueLimits",
    "RequestError",
    "RunAction",
    "Scheduler",
    "ServiceSpec",
    "SpecError",
    "Step",
    "Supervisor",
    "SwapchartError",
    "Timings",
    "Transition",
    "compare",
    "one_at_a_time",
]
