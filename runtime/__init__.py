"""Runtime: runs services by their charts, and decides which of them run.

A `Supervisor` has a `Lifecycle` for each `ServiceSpec`. A request becomes a `QueuedRequest` of the
pure `Scheduler`, whose decisions (grant, evict, refuse) the `Dispatcher` carries out on the
lifecycles. Inside a lifecycle, the `LifecycleDriver` steps the chart and performs its effects:
timers (`LifecycleTimers`), activities (`Activities`, such as probes and hooks) and decisions on
waiting requests (`LifecycleRequests`). The `ServiceUpdater` applies new specifications.

Processes and HTTP are reached through `ports` only. A `Host` runs custom charts without processes
(see `engine`), and a `Player` one of them; `testing` has tools for tests.
"""

from .engine import (
    Actions,
    ActivityContext,
    ActivityError,
    ActivityFunction,
    ActivityPolicy,
    Answer,
    EndedError,
    ErrorFunction,
    Host,
    HostStateError,
    Instance,
    NotifyListener,
    Replacement,
    Step,
    StepListener,
    Store,
    TimerPolicy,
    UnknownStateError,
    WrongThreadError,
)
from .errors import (
    ConfigError,
    EngineError,
    LaunchError,
    LostError,
    PlacementError,
    PortInUseError,
    RequestError,
    SpecError,
    StartError,
    SwapchartError,
    UnknownServiceError,
)
from .eviction import Group, Policy
from .hook_actions import CallAction, HookContext, HttpAction, RunAction
from .hooks import HookResult
from .launchers import Launchers
from .lease import Lease
from .lifecycle import Lifecycle
from .listeners import Listener
from .log_ring import LogRing
from .memory_failures import MemoryFailures
from .memory_learning import MemoryLearning
from .memory_ledger import MemoryLedger
from .player import Player
from .ports import (
    Adopted,
    Command,
    Endpoint,
    EngineDown,
    EngineUp,
    Exit,
    HttpCall,
    HttpClient,
    Launcher,
    LogSink,
    Node,
    NodeChanged,
    NodeDevice,
    NodeDown,
    NodeLauncher,
    NodeProcess,
    NodeUp,
    Placement,
    Probe,
    ProcessHandle,
    Resources,
)
from .scheduler import Scheduler
from .scheduling import EvictionPolicy, QueueLimits, one_at_a_time
from .spec import Hook, Liveness, ServiceSpec, Timings
from .spec_diff import Difference, compare
from .supervisor import Change, Supervisor
from .transition import Transition

__all__ = [
    "Actions",
    "ActivityContext",
    "ActivityError",
    "ActivityFunction",
    "ActivityPolicy",
    "Adopted",
    "Answer",
    "CallAction",
    "Change",
    "Command",
    "ConfigError",
    "Difference",
    "EndedError",
    "Endpoint",
    "EngineDown",
    "EngineError",
    "EngineUp",
    "ErrorFunction",
    "EvictionPolicy",
    "Exit",
    "Group",
    "Hook",
    "HookContext",
    "HookResult",
    "Host",
    "HostStateError",
    "HttpAction",
    "HttpCall",
    "HttpClient",
    "Instance",
    "LaunchError",
    "Launcher",
    "Launchers",
    "Lease",
    "Lifecycle",
    "Listener",
    "Liveness",
    "LogRing",
    "LogSink",
    "LostError",
    "MemoryFailures",
    "MemoryLearning",
    "MemoryLedger",
    "Node",
    "NodeChanged",
    "NodeDevice",
    "NodeDown",
    "NodeLauncher",
    "NodeProcess",
    "NodeUp",
    "NotifyListener",
    "Placement",
    "PlacementError",
    "Player",
    "Policy",
    "PortInUseError",
    "Probe",
    "ProcessHandle",
    "QueueLimits",
    "Replacement",
    "RequestError",
    "Resources",
    "RunAction",
    "Scheduler",
    "ServiceSpec",
    "SpecError",
    "StartError",
    "Step",
    "StepListener",
    "Store",
    "Supervisor",
    "SwapchartError",
    "TimerPolicy",
    "Timings",
    "Transition",
    "UnknownServiceError",
    "UnknownStateError",
    "WrongThreadError",
    "compare",
    "one_at_a_time",
]
