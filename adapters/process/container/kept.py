"""Container that an earlier proxy has started and left running.

It is the same container by its id and by the start of its first process, never by its name or port.
The client that was attached to it goes on, so that no output is lost; another one is attached if it
has ended. The engine knows the exit code, though the client is no child of this proxy.
"""

from __future__ import annotations

from typing import Protocol

from ....runtime.container import Container, ContainerEngine
from ....runtime.ports import Command, LogSink
from .. import procfs
from ..kept_process import KeptProcess
from .inspection import Inspection
from .process import ContainerOwner, ContainerProcess


class Adopter(ContainerOwner, Protocol):
    """Launcher that adopts containers."""

    def take(self, process: ContainerProcess) -> None:
        """Watch *process* as one of its own."""
        ...

    async def remove_kept(self, process: ContainerProcess) -> None:
        """Remove *process*, whose guard is gone."""
        ...


class KeptContainer(ContainerProcess):
    """A container that was adopted, or may be.

    Args:
        client: The client that is attached to it.
        owner: The launcher.

    Raises:
        KeyError: As TypeError, ValueError and ConfigError, another version has written the record.
    """

    def __init__(self, client: KeptProcess, owner: Adopter) -> None:
        record = client.kept_record
        known = record["container"]
        value = dict(known["value"])
        container = Container(**{**value, "engine": ContainerEngine(**value["engine"])})
        command = Command(
            argv=(), env=known["env"], cwd=known["cwd"], label=str(record["service"]),
            container=container, launcher="container", listens_at=record["listens_at"],
        )  # fmt: skip
        pid = int(record["pid"]) if known["is_seen"] else 0
        found = procfs.find(pid) if pid else None
        is_same = found is not None and found.start == int(record["start"])
        super().__init__(
            command, str(known["id"]), str(known["name"]), client=client,
            found=Inspection(
                is_running=True, pid=pid if is_same else 0, stop_signal=int(known["stop_signal"])
            ),
            owner=owner, sink=_Nowhere(),
        )  # fmt: skip
        self._kept, self._adopter = client, owner
        self._since = int(record["client"]["since"])

    @property
    def instance(self) -> str:
        """Id of the proxy that started it."""
        return self._kept.instance

    def attach(self, log: LogSink) -> None:
        """Take it over: write the output that was kept, and all later output, to *log*."""
        self.sink = log
        self._kept.attach(log)
        self._adopter.take(self)

    async def dismiss(self) -> bool:
        """Let the guard end it with its hooks, or remove it if the guard is gone."""
        if await self._kept.dismiss():
            return True
        await self._adopter.remove_kept(self)
        return False


class _Nowhere:
    """Sink of output before a log is attached; nothing is written until then."""

    def write(self, data: bytes) -> None:
        """Drop *data*."""
