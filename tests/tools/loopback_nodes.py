"""A cluster on one machine: nodes are addresses of loopback, processes are real ones.

The `LoopbackEngine` outlives the proxies of a test, as that of a cluster does. A test loses a node,
whose processes then run on unseen, or cuts its power, and brings it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from swapchart.adapters.process import LocalLauncher, LocalProcess
from swapchart.runtime import (
    Adopted,
    Command,
    Endpoint,
    EngineDown,
    EngineError,
    EngineUp,
    Exit,
    LogRing,
    LogSink,
    Node,
    NodeDown,
    NodeLauncher,
    NodeProcess,
    NodeUp,
    PlacementError,
    Probe,
)
from swapchart.runtime.ports import Presence
from tools.net import free_port

SLOTS = 2.0  # capacity of each node in its resource "slots"
_LOST = Exit(certain=False, reason="node-lost")
_KILL_LIMIT_S = 0.3  # from a kill on a lost node to its uncertain end


class _Fork(LogRing):
    """Output of a process, which is kept and passed to the logs of its proxies."""

    def __init__(self) -> None:
        super().__init__(1 << 16)
        self.sinks: list[LogSink] = []

    def write(self, data: bytes) -> None:
        super().write(data)
        for sink in self.sinks:
            sink.write(data)


class LoopbackProcess(NodeProcess):
    """A process on a node.

    Attributes:
        command: As it was started.
        inner: The process itself.
        is_lost: Its node is lost.
    """

    def __init__(
        self, engine: LoopbackEngine, command: Command, inner: LocalProcess, at: Endpoint,
        output: _Fork,
    ) -> None:  # fmt: skip
        self.command, self.inner = command, inner
        self.is_lost = False
        self._engine, self._endpoint, self._output = engine, at, output
        self._exit: Exit | None = None
        self._ended = anyio.Event()

    @property
    def pid(self) -> int:
        return self.inner.pid

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def has_ended(self) -> bool:
        """True if its end was reported."""
        return self._exit is not None

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None, "set before the event"
        return self._exit

    def pids(self) -> list[int]:
        return [] if self.is_lost else self.inner.pids()

    def terminate(self) -> None:
        if not self.is_lost:
            self.inner.terminate()

    def kill(self) -> None:
        if self.is_lost:
            self._engine.spawn_later(_KILL_LIMIT_S, self)
        else:
            self.inner.kill()

    async def sweep(self, grace_s: float) -> int:
        killed = 0 if self.is_lost else await self.inner.sweep(grace_s)
        self._engine.forget(self)
        return killed

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        if self.is_lost:
            return Probe(is_ok=False, detail="timeout")
        return await self.inner.probe(url, timeout_s=timeout_s)

    async def presence(self) -> Presence:
        if self.is_lost:
            return "unknown"
        return "gone" if self.has_ended else "alive"

    def attach(self, log: LogSink) -> None:
        log.write(self._output.history())
        self._output.sinks.append(log)

    def end(self, ended: Exit) -> None:
        """Report its end; a no-op if it was reported."""
        if self._exit is None:
            self._exit = ended
            self._ended.set()

    async def watch(self) -> None:
        """Report the end of the process while its node can be seen."""
        ended = await self.inner.wait()
        if not self.is_lost:
            self.end(ended)


class LoopbackEngine:
    """Nodes and processes; ``async with LoopbackEngine(["h1", "h2"]) as engine``.

    Attributes:
        lost: Nodes that are lost.
        is_down: Nothing can be asked or started.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._addresses = {name: f"127.0.0.{10 + n}" for n, name in enumerate(names)}
        self._local = LocalLauncher(guard=False, subreaper=True)
        self._processes: list[LoopbackProcess] = []
        self._unfenced: list[LoopbackProcess] = []
        self._launchers: list[LoopbackLauncher] = []
        self._tasks: TaskGroup
        self.lost: set[str] = set()
        self.is_down = False

    async def __aenter__(self) -> Self:
        await self._local.__aenter__()
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._local.__aexit__(kind, error, trace)

    def connect(self) -> LoopbackLauncher:
        """Return the launcher of a proxy."""
        self._launchers.append(LoopbackLauncher(self))
        return self._launchers[-1]

    # ---- what a test does
    def lose(self, node: str, *, is_power_cut: bool = False) -> None:
        """Lose *node* without a sign: its processes run on, or are gone, and nothing tells."""
        self.lost.add(node)
        for process in self._on(node):
            process.is_lost = True
            self._unfenced.append(process)
            if is_power_cut:
                process.inner.kill()

    def notice(self, node: str) -> None:
        """Report what an engine does when it notices the loss of *node*."""
        for process in self._on(node):
            process.end(_LOST)
        self._notify(NodeDown(self.node(node)))

    async def restore(self, node: str) -> None:
        """Bring *node* back: end what was lost there, and report it then."""
        for process in [each for each in self._unfenced if each.endpoint.node == node]:
            process.inner.kill()
            await process.inner.sweep(0)
            self._unfenced.remove(process)
        self.lost.discard(node)
        self._notify(NodeUp(self.node(node)))

    def set_down(self, *, is_down: bool) -> None:
        """Take the engine down or up; processes run on."""
        self.is_down = is_down
        self._notify(EngineDown("loopback", "not reachable") if is_down else EngineUp("loopback"))

    def running(self) -> list[int]:
        """Return the ids of all real processes, whatever is known of them."""
        known = [*self._processes, *(p for p in self._unfenced if p not in self._processes)]
        return [pid for process in known for pid in process.inner.pids()]

    # ---- for launchers and processes
    def node(self, name: str) -> Node:
        used = sum(_slots(p.command) for p in self._on(name) if not p.has_ended)
        return Node(
            name=name, address=self._addresses[name], is_alive=name not in self.lost,
            capacity={"slots": SLOTS}, free={"slots": SLOTS - used}, labels={"name": name},
        )  # fmt: skip

    def nodes(self) -> list[Node]:
        self.check_up()
        return [self.node(name) for name in self._addresses]

    def check_up(self) -> None:
        if self.is_down:
            raise EngineError("the engine does not respond")

    async def start(self, command: Command, log: LogSink) -> LoopbackProcess:
        self.check_up()
        node = self._place(command)
        at = Endpoint(node.address, free_port(), node.name)
        output = _Fork()
        output.sinks.append(log)
        inner = await self._local.start(replace(command.at(at), listens_at=None), output)
        process = LoopbackProcess(self, command, inner, at, output)
        self._processes.append(process)
        self._tasks.start_soon(process.watch)
        return process

    async def run(self, command: Command, log: LogSink) -> Exit:
        if command.node in self.lost:
            raise EngineError(f"node {command.node} does not respond")
        return await self._local.run(command, log)

    def live(self) -> list[LoopbackProcess]:
        return [process for process in self._processes if not process.has_ended]

    def forget(self, process: LoopbackProcess) -> None:
        if process in self._processes:
            self._processes.remove(process)

    def spawn_later(self, seconds: float, process: LoopbackProcess) -> None:
        async def end() -> None:
            await anyio.sleep(seconds)
            process.end(_LOST)

        self._tasks.start_soon(end)

    def _place(self, command: Command) -> Node:
        wanted, needed = command.placement, _slots(command)
        allowed = [
            node for node in self.nodes()
            if (not wanted.nodes or node.name in wanted.nodes)
            and wanted.labels.items() <= node.labels.items() and node.capacity["slots"] >= needed
        ]  # fmt: skip
        if not allowed:
            raise PlacementError(f"no node has {needed:g} slots", is_infeasible=True)
        for node in allowed:
            has_room = node.free is not None and node.free["slots"] >= needed
            if node.is_alive and has_room and node.name not in wanted.avoid:
                return node
        raise PlacementError(f"no room on {', '.join(node.name for node in allowed)}")

    def _on(self, name: str) -> list[LoopbackProcess]:
        return [process for process in self._processes if process.endpoint.node == name]

    def _notify(self, event: NodeDown | NodeUp | EngineDown | EngineUp) -> None:
        for launcher in self._launchers:
            launcher.notify(event)


def _slots(command: Command) -> float:
    return command.resources.custom.get("slots", 0.0)


class LoopbackLauncher(NodeLauncher):
    """Launcher of one proxy."""

    name = "loopback"

    def __init__(self, engine: LoopbackEngine) -> None:
        self._engine = engine

    async def start(self, command: Command, log: LogSink) -> LoopbackProcess:
        return await self._engine.start(command, log)

    async def run(self, command: Command, log: LogSink) -> Exit:
        return await self._engine.run(command, log)

    async def nodes(self) -> Sequence[Node]:
        return self._engine.nodes()

    async def adopt(self) -> Sequence[Adopted]:
        self._engine.check_up()
        return [
            Adopted(
                service=process.command.label, incarnation=process.command.incarnation,
                id=f"{process.command.label}#{process.command.incarnation}", process=process,
            )
            for process in self._engine.live()
        ]  # fmt: skip
