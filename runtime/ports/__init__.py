"""Ports: protocols by which the runtime starts processes, runs commands, probes and calls HTTP.

Adapters implement them; the runtime has no access to sockets, signals or files.

Two rules hold for every port. *To end what has already ended is a no-op*: the chart cannot know
that a process died a moment ago. *Every coroutine may be cancelled* and then ends what it has
started, except ``Launcher.start``, which the runtime shields.

`Launcher` and `ProcessHandle` are what a launcher needs at least. Those that know nodes, the
machines on which their processes run, derive from `NodeLauncher` and `NodeProcess`.
"""

from .command import Command, Placement, Resources
from .ending import Ending, EndingStep
from .http import HttpCall, HttpClient
from .launcher import Adopted, Launcher, NodeLauncher
from .memory import MemoryMeter, PoolReading
from .nodes import (
    Endpoint,
    EngineDown,
    EngineUp,
    Node,
    NodeChanged,
    NodeDevice,
    NodeDown,
    NodeEvent,
    NodeUp,
    Presence,
)
from .process import Exit, ExitReason, LogSink, NodeProcess, Probe, ProcessHandle

__all__ = [
    "Adopted",
    "Command",
    "Ending",
    "EndingStep",
    "Endpoint",
    "EngineDown",
    "EngineUp",
    "Exit",
    "ExitReason",
    "HttpCall",
    "HttpClient",
    "Launcher",
    "LogSink",
    "MemoryMeter",
    "Node",
    "NodeChanged",
    "NodeDevice",
    "NodeDown",
    "NodeEvent",
    "NodeLauncher",
    "NodeProcess",
    "NodeUp",
    "Placement",
    "PoolReading",
    "Presence",
    "Probe",
    "ProcessHandle",
    "Resources",
]
