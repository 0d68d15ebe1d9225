"""The pure statechart: documents, steps and effects. No clock, no thread, no process in here."""

from .chart import compile_chart
from .context import Context, build_context
from .document import Document, as_list, from_mapping, lifecycle, read
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
from .stepper import ChartStepper, Compiled, NotHandledError, Stepper, TableStepper
from .table import Configuration, Table, compile_table

__all__ = [
    "AdmitAll",
    "AdmitWaiter",
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
    "KillProcess",
    "NotHandledError",
    "Notify",
    "QueueWaiter",
    "RejectAll",
    "RejectWaiter",
    "StartActivity",
    "StartTimer",
    "Stepper",
    "StopDone",
    "SwapchartError",
    "Table",
    "TableStepper",
    "as_list",
    "build_context",
    "compile_chart",
    "compile_table",
    "from_mapping",
    "lifecycle",
    "read",
]
