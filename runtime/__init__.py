"""Runtime: runs services by their charts, and decides which of them run.

A `Supervisor` has a `Lifecycle` for each `ServiceSpec`. A request becomes a `QueuedRequest` of the
pure `Scheduler`, whose decisions (grant, evict, refuse) the `Dispatcher` carries out on the
lifecycles. Inside a lifecycle, the `LifecycleDriver` steps the chart and performs its effects:
timers (`LifecycleTimers`), activities (`Activities`, such as probes and hooks) and decisions on
waiting requests (`LifecycleRequests`). The `ServiceUpdater` applies new specifications.

Processes and HTTP are reached through `ports` only. A `Host` runs custom charts without processes
(see `engine`), and a `Player` one of them; `testing` has tools for tests.

Each name is imported on first use, so an import of few of them does not wait for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from .request_wait import RequestWait, Swap, SwapCause
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
    "RequestWait",
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
    "Swap",
    "SwapCause",
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

_MODULES = {
    "engine": (
        "Actions ActivityContext ActivityError ActivityFunction ActivityPolicy Answer "
        "EndedError ErrorFunction Host HostStateError Instance NotifyListener "
        "Replacement Step StepListener Store TimerPolicy UnknownStateError "
        "WrongThreadError"
    ),
    "errors": (
        "ConfigError EngineError LaunchError LostError PlacementError PortInUseError "
        "RequestError SpecError StartError SwapchartError UnknownServiceError"
    ),
    "eviction": "Group Policy",
    "hook_actions": "CallAction HookContext HttpAction RunAction",
    "hooks": "HookResult",
    "launchers": "Launchers",
    "lease": "Lease",
    "lifecycle": "Lifecycle",
    "listeners": "Listener",
    "log_ring": "LogRing",
    "memory_failures": "MemoryFailures",
    "memory_learning": "MemoryLearning",
    "memory_ledger": "MemoryLedger",
    "player": "Player",
    "ports": (
        "Adopted Command Endpoint EngineDown EngineUp Exit HttpCall HttpClient Launcher "
        "LogSink Node NodeChanged NodeDevice NodeDown NodeLauncher NodeProcess NodeUp "
        "Placement Probe ProcessHandle Resources"
    ),
    "request_wait": "RequestWait Swap SwapCause",
    "scheduler": "Scheduler",
    "scheduling": "EvictionPolicy QueueLimits one_at_a_time",
    "spec": "Hook Liveness ServiceSpec Timings",
    "spec_diff": "Difference compare",
    "supervisor": "Change Supervisor",
    "transition": "Transition",
}
_LATE = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATE[name]}", __name__), name)
    globals()[name] = value
    return value
