"""Running container of a model: output, exit, signals, probes and commands inside of it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Protocol

import anyio

from ....runtime.container import Container
from ....runtime.errors import LaunchError
from ....runtime.fence import kept
from ....runtime.ports import Command, Ending, Exit, LogSink, NodeProcess, Presence, Probe
from .. import pidfd, procfs
from ..local_process import LocalProcess
from ..procfs import Proc
from . import arguments
from .ending import ending_of, inside
from .engine_client import EngineClient, Tail
from .inspection import Inspection, exit_of

log = logging.getLogger(__name__)

_LOOKS, _LOOK_S = 3, 0.1  # how often and how far apart a container is looked at after its client
_ATTACH_PAUSE_S = 0.5
_PRESENCE_S = 3.0
_DEPTH = 64


class ContainerOwner(Protocol):
    """Launcher of a container, as far as the container uses it."""

    @property
    def client(self) -> EngineClient:
        """Runs commands of the engine."""
        ...

    async def attach(self, process: ContainerProcess) -> LocalProcess:
        """Start another client that prints the output of a container."""
        ...

    def send(self, process: ContainerProcess, argv: tuple[str, ...]) -> None:
        """Run a command of the engine in the background; failures are logged."""
        ...

    def end(self, process: ContainerProcess) -> None:
        """Remove a container that has ended, in the background."""
        ...

    def remember(self, process: ContainerProcess, facts: str, ending: Ending) -> None:
        """Keep *facts* with the client of *process*; see `NodeProcess.remember`."""
        ...


class ContainerProcess(NodeProcess):
    """One container of a model.

    A container whose first process this machine shows is signaled directly; any other one, such as
    that of an engine on another machine, by the engine.

    Args:
        command: The command with its container.
        id_: Id of the container.
        name: Its name.
        client: Client that is attached to it; its end is the end of the container.
        found: State of the container after its start.
        owner: The launcher.
        sink: Log of the model.

    Attributes:
        client: Client that is attached to it at present.
        init: Its first process, if this machine shows it.
        is_detached: The proxy lets go of it.
    """

    def __init__(
        self, command: Command, id_: str, name: str, *, client: LocalProcess, found: Inspection,
        owner: ContainerOwner, sink: LogSink,
    ) -> None:  # fmt: skip
        container = command.container
        assert container is not None, "checked by the launcher"
        self.container: Container = container
        self.command, self.id, self.name, self.sink = command, id_, name, sink
        self._owner = owner
        self._first = self.client = client
        self._stop_signal = found.stop_signal
        self.init: Proc | None = _find(found.pid, id_)
        self._is_ending = self._is_killed = self.is_detached = False
        self._known = "", Ending()
        self._since = client.start  # the listener is younger, whatever client is attached
        self._exit: Exit | None = None
        self._ended = anyio.Event()
        self._watching = anyio.CancelScope(shield=True)

    @property
    def pid(self) -> int:
        """Process id of its first process; 0 if this machine does not show it."""
        return 0 if self.init is None else self.init.pid

    @property
    def has_ended(self) -> bool:
        """True if its exit is known."""
        return self._exit is not None

    async def wait(self) -> Exit:
        """Wait until the container has ended; all its output is then in the log.

        ``Exit.certain`` is False if the engine does not say how it ended and it may still run.
        """
        await self._ended.wait()
        assert self._exit is not None, "set before the event"
        return self._exit

    def pids(self) -> Collection[int]:
        """Return the processes of the container; empty if this machine does not show them."""
        if self.init is None or self._exit is not None or not procfs.is_same(self.init):
            return ()
        parents = {proc.pid: proc.ppid for proc in procfs.scan() if proc.is_alive}
        return [pid for pid in parents if _descends(pid, self.init.pid, parents)]

    def terminate(self) -> None:
        """Send the stop signal of the container to its first process; a no-op if it has ended."""
        self._is_ending = True
        self._signal(self._stop_signal)

    def kill(self) -> None:
        """Kill the container; a second call has the engine remove it by force."""
        if self._is_killed and self._exit is None:
            self._owner.send(self, arguments.remove_argv(self.container.engine, self.id))
        self._is_ending = self._is_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        if self._exit is not None or (self.init is not None and pidfd.send(self.init, signum)):
            return
        self._owner.send(
            self, arguments.kill_argv(self.container, self.id, signal.Signals(signum).name)
        )

    async def sweep(self, grace_s: float) -> int:
        """Have the container removed, whose processes end with its first one; return 0."""
        self._owner.end(self)
        return 0

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """Probe once: by the health command in the container if it has one, else GET *url*."""
        if not self.container.health:
            return await self._first.probe(url, timeout_s=timeout_s)  # it is as old as the listener
        tail = Tail()
        try:
            with anyio.move_on_after(timeout_s):
                ended = await self.run(replace(self.command, argv=self.container.health), tail)
                if ended.is_clean:
                    return Probe(is_ok=True)
                lines = [line for line in tail.text.splitlines() if line.strip()]
                return Probe(is_ok=False, detail=": ".join((str(ended), *lines[-1:])))
        except LaunchError as error:
            return Probe(is_ok=False, detail=str(error))
        return Probe(is_ok=False, detail="timeout")

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a short command in the container; see `Launcher.run`.

        A cancellation ends the client; the process in the container may go on until that ends.
        """
        return await self._owner.client.launch(inside(self.container, self.id, command), log)

    async def presence(self) -> Presence:
        """Return whether the container runs; see `NodeProcess`."""
        if self._exit is not None:
            return "gone"
        if self.init is not None:
            return "alive" if procfs.is_same(self.init) else "gone"
        with anyio.move_on_after(_PRESENCE_S), suppress(LaunchError):
            found = await self._owner.client.inspect(self.container.engine, self.id)
            if found is not None:
                return "alive" if found.is_running else "gone"
        return "unknown"

    # ---- beyond the end of the proxy
    @property
    def instance(self) -> str:
        """Id of the proxy that started it, whatever proxy its client is of."""
        return self.client.instance

    @property
    def is_remembered(self) -> bool:
        """True if it may outlive the proxy."""
        return self.client.is_remembered

    def remember(self, facts: str, ending: Ending) -> None:
        """Keep *facts* with its client, whose output goes on; see `NodeProcess`."""
        self._known = facts, ending_of(self.container, self.id, ending)
        self._owner.remember(self, *self._known)

    def detach(self) -> None:
        """Let go of it, and of its client, at the end of the launcher."""
        self.is_detached = True
        self.client.detach()

    def record(self) -> dict[str, object]:
        """Return what the guard and the next proxy have to know of it; see `guard_keeping`."""
        engine = self.container.engine
        init = {} if self.init is None else {"pid": self.init.pid, "start": self.init.start}
        client = {
            "pid": self.client.pid, "start": self.client.start, "since": self._since,
        }  # fmt: skip
        return {
            **init,
            "instance": self.instance,
            "client": client,
            "container": {
                "id": self.id, "name": self.name, "value": asdict(self.container),
                "env": dict(self.command.env), "cwd": self.command.cwd,
                "stop_signal": self._stop_signal, "is_seen": self.init is not None,
                "kill": arguments.kill_argv(
                    self.container, self.id, signal.Signals(self._stop_signal).name
                ),
                "remove": arguments.remove_argv(engine, self.id),
            },
        }  # fmt: skip

    # ---- the end
    async def watch(self) -> None:
        """Wait for the end of the container; a task of the launcher."""
        try:
            with self._watching:
                await kept(self._watch)
        finally:
            self.give_up()

    def give_up(self) -> None:
        """End `watch`; unless its exit is known, report one that is not certain."""
        self._watching.cancel()
        if self._exit is None:
            self._exit = Exit(certain=False, reason="engine-lost")
        self._ended.set()

    async def _watch(self) -> None:
        while self._exit is None:
            ended = await self.client.wait()
            found = await self._outcome(ended)
            if found is None:
                await anyio.sleep(_ATTACH_PAUSE_S)
                log.warning(
                    "%s: its client of %s ended (%s) while container %s runs; attaching another",
                    self.command.label, self.container.engine.name, ended, self.name,
                )  # fmt: skip
                before, self.client = self.client, await self._owner.attach(self)
                self._owner.remember(self, *self._known)
                await before.sweep(0)  # the guard has kept the container by it until now
            else:
                self._exit = found
                self._ended.set()
                await self.client.sweep(0)

    async def _outcome(self, ended: Exit) -> Exit | None:
        """Return how the container ended, after its client has; None if it still runs."""
        is_gone = self.init is not None and not procfs.is_same(self.init)
        has_code = ended.code is not None and self.client is self._first
        if is_gone and has_code and (self._is_ending or ended.code != 137):
            assert ended.code is not None, "checked above"
            return exit_of(ended.code)  # the engine need not be asked, which takes 0.1 s
        found = None
        for _ in range(_LOOKS):
            found = await self._owner.client.inspect(self.container.engine, self.id)
            if found is None or not found.is_running:
                break
            await anyio.sleep(_LOOK_S)
        if found is not None:
            return None if found.is_running else found.exit
        if ended.code is not None and (is_gone or self._is_killed):
            return exit_of(ended.code)  # it was removed
        return Exit(
            code=ended.code,
            signal=ended.signal,
            certain=is_gone,
            reason="" if is_gone else "engine-lost",
        )


def _find(pid: int, id_: str) -> Proc | None:
    """Return process *pid* if it is in container *id_*; engines elsewhere number others."""
    proc = procfs.find(pid) if pid > 0 else None
    groups = procfs.read_bytes(f"/proc/{pid}/cgroup") if proc is not None else b""
    return proc if id_.encode() in groups else None


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    for _ in range(_DEPTH):
        if pid == ancestor:
            return True
        if pid not in parents:
            return False
        pid = parents[pid]
    return False
