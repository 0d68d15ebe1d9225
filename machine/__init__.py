"""Statechart engine: documents, steps and effects. It has no clock, no thread and no process.

A `Document` is read by `read` and compiled by `Machine`, whose `Stepper` takes events and returns
effects: values that say what the runtime should do. `check` proves the promises of a document.

Whatever runs a chart is imported at once. Exports, diagrams, the checker and python-statemachine
itself are imported on first use, so that a start does not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compiled import Compiled, Machine, Outcome
from .context import Context, build_context
from .decision_table import Table, compile_table
from .document import Configuration, Document, Memory, Value, as_list
from .effects import (
    AdmitAll,
    AdmitWaiter,
    CancelActivity,
    CancelTimer,
    Effect,
    KillProcess,
    Notify,
    QueueWaiter,
    RejectAll,
    RejectWaiter,
    StartActivity,
    StartTimer,
    StopDone,
)
from .errors import (
    ChartError,
    ConfigError,
    EventError,
    EventlessLoopError,
    NotHandledError,
    SnapshotError,
    StepError,
    SwapchartError,
)
from .shipped import lifecycle
from .snapshot import Migrations, PendingEvent, RunningActivity, Snapshot
from .stepper import HistoryTableStepper, Stepper, TableStepper

if TYPE_CHECKING:
    from .checking.checker import check
    from .checking.explore import Bounds, parameter_sets
    from .checking.findings import Finding, Move, Report, Run
    from .drawing.dot import to_dot
    from .drawing.mermaid import to_mermaid
    from .drawing.plantuml import to_plantuml
    from .drawing.table import to_table
    from .drawing.views import View
    from .export import DIAGRAMS, FORMATS, native_yaml, render, to_json, to_yaml
    from .format.overlay import merge
    from .format.parse import from_mapping, read
    from .interchange.class_reader import from_class
    from .interchange.detect import read_any
    from .interchange.draft import Loss
    from .interchange.native_reader import from_native
    from .interchange.scxml_reader import from_scxml
    from .interchange.scxml_writer import to_scxml
    from .interchange.xstate_reader import from_xstate
    from .interchange.xstate_writer import to_xstate
    from .phases import add_phase
    from .reference_stepper import ChartStepper
    from .statemachine_chart import compile_chart

__all__ = [
    "DIAGRAMS",
    "FORMATS",
    "AdmitAll",
    "AdmitWaiter",
    "Bounds",
    "CancelActivity",
    "CancelTimer",
    "ChartError",
    "ChartStepper",
    "Compiled",
    "ConfigError",
    "Configuration",
    "Context",
    "Document",
    "Effect",
    "EventError",
    "EventlessLoopError",
    "Finding",
    "HistoryTableStepper",
    "KillProcess",
    "Loss",
    "Machine",
    "Memory",
    "Migrations",
    "Move",
    "NotHandledError",
    "Notify",
    "Outcome",
    "PendingEvent",
    "QueueWaiter",
    "RejectAll",
    "RejectWaiter",
    "Report",
    "Run",
    "RunningActivity",
    "Snapshot",
    "SnapshotError",
    "StartActivity",
    "StartTimer",
    "StepError",
    "Stepper",
    "StopDone",
    "SwapchartError",
    "Table",
    "TableStepper",
    "Value",
    "View",
    "add_phase",
    "as_list",
    "build_context",
    "check",
    "compile_chart",
    "compile_table",
    "from_class",
    "from_mapping",
    "from_native",
    "from_scxml",
    "from_xstate",
    "lifecycle",
    "merge",
    "native_yaml",
    "parameter_sets",
    "read",
    "read_any",
    "render",
    "to_dot",
    "to_json",
    "to_mermaid",
    "to_plantuml",
    "to_scxml",
    "to_table",
    "to_xstate",
    "to_yaml",
]

_LATE = {
    "compile_chart": "statemachine_chart",
    "Finding": "checking.findings",
    "Move": "checking.findings",
    "Report": "checking.findings",
    "Run": "checking.findings",
    "check": "checking.checker",
    "Loss": "interchange.draft",
    "read_any": "interchange.detect",
    "from_class": "interchange.class_reader",
    "from_native": "interchange.native_reader",
    "from_scxml": "interchange.scxml_reader",
    "from_xstate": "interchange.xstate_reader",
    "to_xstate": "interchange.xstate_writer",
    "to_dot": "drawing.dot",
    "to_mermaid": "drawing.mermaid",
    "to_plantuml": "drawing.plantuml",
    "View": "drawing.views",
    "to_table": "drawing.table",
    "Bounds": "checking.explore",
    "parameter_sets": "checking.explore",
    "DIAGRAMS": "export",
    "FORMATS": "export",
    "native_yaml": "export",
    "render": "export",
    "to_json": "export",
    "to_yaml": "export",
    "merge": "format.overlay",
    "add_phase": "phases",
    "from_mapping": "format.parse",
    "read": "format.parse",
    "ChartStepper": "reference_stepper",
    "to_scxml": "interchange.scxml_writer",
}


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATE[name]}", __name__), name)
    globals()[name] = value
    return value
