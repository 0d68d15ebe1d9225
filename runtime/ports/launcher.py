"""Launchers: start processes and run commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...dataclass import dataclass
from .command import Command
from .nodes import Node, NodeEvent
from .process import Exit, LogSink, NodeProcess, ProcessHandle


class Launcher(Protocol):
    """Starts processes and runs commands."""

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command* as leader of its own process group and write its output to *log*.

        It returns when the process exists, which need not be ready, or raises one of these errors
        and has left nothing behind. No other error comes out of a launcher.

        Raises:
            SpecError: The command is wrong (ENOENT, EACCES, ENOEXEC, NUL).
            EngineError: Resources are short (EMFILE, EAGAIN, ENOMEM), or the engine does not
                respond or refused.
            PlacementError: No node has room, or none ever can have.
            PortInUseError: Another process listens at ``command.listens_at``.
        """
        ...

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command (a hook, cmdStop) in its own process group until it ends.

        When the leader has ended, the rest of its group is killed. A cancellation kills the whole
        group before it returns. Raises the errors of `start`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A process that an earlier proxy has left running.

    Attributes:
        service: Name of its service, the label of its command.
        incarnation: Number of that run.
        id: Id that the launcher gave it, unique for all time.
        process: The process.
        facts: Last argument of `NodeProcess.remember`; empty if there is none.
    """

    service: str
    incarnation: int
    id: str
    process: NodeProcess
    facts: str = ""


class NodeLauncher(Launcher):
    """Launcher that knows its nodes: the base class, with defaults for none of its own.

    Attributes:
        name: Name of the launcher; see `Command.launcher`.
    """

    name: str = ""
    _listeners: tuple[Callable[[NodeEvent], None], ...] = ()

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes, without those that are gone for good.

        Raises:
            EngineError: The engine does not respond.
        """
        return ()

    def listen(self, listener: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call *listener*, which must not wait or raise, with every event of nodes and engine.

        Returns:
            A function that removes the listener; calling it again does nothing.
        """
        self._listeners = (*self._listeners, listener)

        def remove() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return remove

    def notify(self, event: NodeEvent) -> None:
        """Call the listeners with *event*; for derived classes, on the thread of the event loop."""
        for listener in self._listeners:
            listener(event)

    async def adopt(self) -> Sequence[Adopted]:
        """Return the processes of this proxy that an earlier one left; end half-started ones.

        Raises:
            EngineError: The engine does not respond.
        """
        return ()
