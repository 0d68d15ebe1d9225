"""The pure statechart: documents, steps and effects. No clock, no thread, no process in here."""

from .chart import Configuration, Memory, compile_chart
from .checker import Finding, Move, Report, Run, check
from .classes import from_class
from .context import Context, build_context
from .diagram import to_dot, to_mermaid, to_table
from .document import Document, Value, as_list
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
from .errors import ChartError, ConfigError, SwapchartError
from .explore import Bounds
from .export import DIAGRAMS, FORMATS, native_yaml, render, to_json, to_yaml
from .overlay import merge
from .reading import from_mapping, lifecycle, read
from .scxml import to_scxml
from .stepper import ChartStepper, Compiled, NotHandledError, Stepper, TableStepper
from .table import Table, compile_table

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
    "Finding",
    "KillProcess",
    "Memory",
    "Move",
    "NotHandledError",
    "Notify",
    "QueueWaiter",
    "RejectAll",
    "RejectWaiter",
    "Report",
    "Run",
    "StartActivity",
    "StartTimer",
    "Stepper",
    "StopDone",
    "SwapchartError",
    "Table",
    "TableStepper",
    "Value",
    "as_list",
    "build_context",
    "check",
    "compile_chart",
    "compile_table",
    "from_class",
    "from_mapping",
    "lifecycle",
    "merge",
    "native_yaml",
    "read",
    "render",
    "to_dot",
    "to_json",
    "to_mermaid",
    "to_scxml",
    "to_table",
    "to_yaml",
]
