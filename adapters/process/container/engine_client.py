"""Short commands of a container engine: each is run with a time limit, and its output is kept."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from ....dataclass import dataclass
from ....runtime.container import ContainerEngine
from ....runtime.ports import Command, Exit, LogSink
from ..launcher import LocalLauncher
from . import arguments, inspection
from .inspection import Inspection

LIMIT_S = 30.0  # of one command; an engine under load takes seconds to remove a container
_TAIL_BYTES = 1 << 13


class Tail:
    """Sink that passes output on and keeps its last 8 KiB.

    Args:
        sink: Receives the output too; None keeps it only.
    """

    def __init__(self, sink: LogSink | None = None) -> None:
        self._sink, self._kept = sink, b""

    def write(self, data: bytes) -> None:
        """Keep the end of *data*, and pass it on."""
        self._kept = (self._kept + data)[-_TAIL_BYTES:]
        if self._sink is not None:
            self._sink.write(data)

    @property
    def text(self) -> str:
        """The output that was kept."""
        return self._kept.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a command.

    Attributes:
        code: Exit code; None means that a signal or the time limit ended it.
        output: End of what it printed on both streams.
    """

    code: int | None
    output: str

    @property
    def is_ok(self) -> bool:
        """True if it ended with exit code 0."""
        return self.code == 0


class EngineClient:
    """Runs commands of engines.

    Args:
        local: Launcher of the client processes.
    """

    def __init__(self, local: LocalLauncher) -> None:
        self._local = local

    async def run(
        self, argv: tuple[str, ...], *, env: Mapping[str, str] | None = None, label: str = "",
        limit_s: float = LIMIT_S,
    ) -> Result:  # fmt: skip
        """Run a command of an engine; a cancellation kills it.

        Raises:
            LaunchError: The program cannot be started.
        """
        tail, code = Tail(), None
        command = Command(argv=argv, env=env or {}, label=label)
        with anyio.move_on_after(limit_s):
            code = (await self._local.run(command, tail)).code
        return Result(code, tail.text)

    async def launch(self, command: Command, log: LogSink) -> Exit:
        """Run a client whose output goes to *log*; see `Launcher.run`."""
        return await self._local.run(command, log)

    async def inspect(self, engine: ContainerEngine, id_: str) -> Inspection | None:
        """Return the state of a container; None if it is gone or the engine does not respond.

        Raises:
            LaunchError: The program cannot be started.
        """
        result = await self.run(arguments.inspect_argv(engine, id_))
        return inspection.parse_inspection(result.output)

    async def remove(self, engine: ContainerEngine, id_: str) -> Result:
        """Kill and remove a container, by its id.

        Raises:
            LaunchError: The program cannot be started.
        """
        return await self.run(arguments.remove_argv(engine, id_))

    async def ids(self, engine: ContainerEngine, owner: str) -> list[str]:
        """Return the ids of the containers of *owner*, running or not.

        Raises:
            LaunchError: The program cannot be started, or the engine does not respond.
        """
        result = await self.run(arguments.list_argv(engine, owner))
        if not result.is_ok:
            raise inspection.launch_error(engine.name, "", result.output, result.code)
        return [line.strip() for line in inspection.marked(result.output)]
