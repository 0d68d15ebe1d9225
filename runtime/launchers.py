"""Composite launcher: starts each command with the launcher that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .errors import EngineError, SpecError
from .ports import (
    Adopted,
    Command,
    Exit,
    Launcher,
    LogSink,
    Node,
    NodeEvent,
    NodeLauncher,
    ProcessHandle,
)


class Launchers(NodeLauncher):
    """Launcher that hands each command to one of several by `Command.launcher`.

    It opens and closes none of them.

    Args:
        first: Starts the commands that name no launcher.
        others: Further launchers, each with a name of its own.
    """

    def __init__(self, first: Launcher, others: Iterable[NodeLauncher] = ()) -> None:
        self._all: dict[str, Launcher] = {"": first}
        for launcher in others:
            self._all[launcher.name] = launcher

    async def start(self, command: Command, log: LogSink) -> ProcessHandle:
        """Start *command* with its launcher; see `Launcher`."""
        return await self._of(command).start(command, log)

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* with its launcher; see `Launcher`."""
        return await self._of(command).run(command, log)

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes of all launchers; of two with one name, the first one.

        An engine that does not respond has none; `listen` reports that.
        """
        found: dict[str, Node] = {}
        for launcher in self._known():
            try:
                nodes = await launcher.nodes()
            except EngineError:
                continue
            for node in nodes:
                found.setdefault(node.name, node)
        return tuple(found.values())

    def listen(self, listener: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call *listener* with the events of all launchers; see `NodeLauncher`."""
        removers = [launcher.listen(listener) for launcher in self._known()]

        def remove() -> None:
            for each in removers:
                each()

        return remove

    async def adopt(self) -> Sequence[Adopted]:
        """Return what all launchers adopt, without those whose engine does not respond."""
        found: list[Adopted] = []
        for launcher in self._known():
            try:
                found += await launcher.adopt()
            except EngineError:
                continue
        return found

    def _known(self) -> list[NodeLauncher]:
        return [each for each in self._all.values() if isinstance(each, NodeLauncher)]

    def _of(self, command: Command) -> Launcher:
        found = self._all.get(command.launcher)
        if found is None:
            known = ", ".join(name for name in self._all if name) or "none"
            raise SpecError(f"no launcher {command.launcher!r} is configured; known: {known}")
        return found
