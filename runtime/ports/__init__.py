"""Ports: protocols by which the runtime starts processes, runs commands, probes and calls HTTP.

Adapters implement them; the runtime has no access to sockets, signals or files.

Two rules hold for every port. *To end what has already ended is a no-op*: the chart cannot know
that a process died a moment ago. *Every coroutine may be cancelled* and then ends what it has
started, except ``Launcher.start``, which the runtime shields.
"""

from .command import Command
from .http import HttpCall, HttpClient
from .launcher import Launcher
from .memory import MemoryMeter, PoolReading
from .process import Exit, LogSink, Probe, ProcessHandle

__all__ = [
    "Command",
    "Exit",
    "HttpCall",
    "HttpClient",
    "Launcher",
    "LogSink",
    "MemoryMeter",
    "PoolReading",
    "Probe",
    "ProcessHandle",
]
