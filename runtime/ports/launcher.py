"""Launchers: start processes and run commands."""

from __future__ import annotations

from typing import Protocol

from .command import Command
from .process import Exit, LogSink, ProcessHandle


class Launcher(Protocol):
    """Starts processes and runs commands."""

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command* as leader of its own process group and write its output to *log*.

        Raises:
            SpecError: The command is wrong (ENOENT, EACCES, ENOEXEC, NUL).
            EngineError: Resources are short (EMFILE, EAGAIN, ENOMEM).
            PortInUseError: Another process listens at ``command.listens_at``.
        """
        ...

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command (a hook, cmdStop) in its own process group until it ends.

        When the leader has ended, the rest of its group is killed. A cancellation kills the whole
        group before it returns. Raises the errors of `start`.
        """
        ...
