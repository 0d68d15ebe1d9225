"""Launchers under test: each makes commands of the same behaviors, and says what it can do.

A new kind of launcher derives a class from `Subject` and adds it to `SUBJECTS`. `Subject.open` is
an async context manager: at its end nothing that was started may be left.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self, TypeVar

import pytest
from tools.loopback_nodes import LoopbackEngine, LoopbackLauncher
from tools.net import free_port, wait_until_async
from tools.podman import IMAGE, LIMITS, Podman, shared_engine
from tools.ray_cluster import HAS_RAY, WHY_SKIPPED, RayCluster

from swapchart.adapters.process import ExternalLauncher, LocalLauncher, procfs
from swapchart.adapters.process.container import ContainerLauncher
from swapchart.adapters.process.keeping.keeper import KeepSettings
from swapchart.adapters.process.keeping.takeover import take_over
from swapchart.adapters.process.port import http_probe
from swapchart.adapters.ray.launcher import RayLauncher
from swapchart.runtime import Command, Exit, NodeLauncher, Resources, SpecError
from swapchart.runtime.adoption import RunFacts
from swapchart.runtime.container import Container
from swapchart.runtime.ports import Ending, EngineDown, EngineUp, NodeEvent, NodeProcess, NodeUp
from swapchart.runtime.testing import CommandScript, ScriptedLauncher, ServerScript

L = TypeVar("L", LocalLauncher, ExternalLauncher, ContainerLauncher)

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
#: Name of a behavior -> shell script. Each ends by itself or runs until it is ended.
BEHAVIORS: Mapping[str, str] = {
    "says": "echo hello; echo oops >&2",
    "shows": 'echo "in $PWD with $MINE"',
    "chatty": "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done",
    "exits 7": "exit 7",
    "exits 139": "exit 139",
    "crashes": "kill -SEGV $$; sleep 60",
    "sleeps": "exec sleep 600",
    "ends well": "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    "stays": "trap '' TERM; echo up; while :; do sleep 0.05; done",
    # A child in the session and a daemon in one of its own; both ignore SIGTERM.
    "forks": "(trap '' TERM; while :; do sleep 0.05; done) & "
    "setsid sh -c \"trap '' TERM; echo up; while :; do sleep 0.05; done\" & wait",
    # The same, but they end by themselves.
    "forks briefly": "(sleep 0.3) & setsid sleep 0.3 & echo up",
}


class Subject:
    """A launcher under test.

    Attributes:
        launcher: The launcher; of the second proxy after `replace_proxy`.
        is_real: Its processes are processes of an operating system.
        tells_signals: The end by a signal is told apart from an exit code of 128 and more.
        has_nodes: Processes have an endpoint on a node, and nodes can be lost.
        can_adopt: Processes outlive their proxy.
        knows_exits: The exit code of an adopted process is known.
        runs_inside: `NodeProcess.run` is supported.
        ends_whole: The end of its leader is the end of all processes of a process.
        has_engine: Its engine can be taken down, while processes run on.
        resource: Name of a resource of the nodes, in `Resources.custom`; empty if there is none.
    """

    is_real: ClassVar[bool] = True
    tells_signals: ClassVar[bool] = True
    has_nodes: ClassVar[bool] = False
    can_adopt: ClassVar[bool] = False
    knows_exits: ClassVar[bool] = True
    runs_inside: ClassVar[bool] = False
    ends_whole: ClassVar[bool] = False
    has_engine: ClassVar[bool] = False
    resource: ClassVar[str] = ""

    launcher: NodeLauncher

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Yield an open subject, or skip the test, loudly, where it cannot run."""
        raise NotImplementedError
        yield

    def command(self, behavior: str, **fields: Any) -> Command:
        """Return a command for the launcher with one of `BEHAVIORS`; label ``test``."""
        argv = ("sh", "-c", BEHAVIORS[behavior], "test")
        return Command(argv=argv, **{"label": "test", "launcher": self.launcher.name, **fields})

    def server(self, **fields: Any) -> tuple[Command, str]:
        """Return a command that serves ``/health``, and the URL of a specification for it."""
        port = free_port()
        argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(SERVER), "127.0.0.1", str(port))
        return Command(argv=argv, label="test", **fields), f"http://127.0.0.1:{port}/health"

    def hook(self, behavior: str, **fields: Any) -> Command:
        """Return a command for `Launcher.run` with one of `BEHAVIORS`."""
        return self.command(behavior, **fields)

    def missing(self) -> Command:
        """Return a command whose program does not exist, with a secret argument."""
        return Command(argv=("no-such-program-here", "s3cret"), label="test")

    def was_killed_by(self, ended: Exit, signum: int) -> bool:
        """Return True if *ended* is the end by that signal, as far as that can be told."""
        return ended == Exit(signal=signum) or (
            not self.tells_signals and ended == Exit(code=128 + signum)
        )

    def left(self) -> list[int]:
        """Return what still runs of all that was started; process ids or anything else."""
        raise NotImplementedError

    # ---- of subjects with nodes, or that can adopt
    def lose(self, node: str) -> None:
        """Lose *node* without a sign; what runs there goes on."""
        raise NotImplementedError

    async def notice(self, node: str) -> None:
        """Let the engine notice that *node* is lost, and wait until it has."""
        raise NotImplementedError

    async def restore(self, node: str) -> None:
        """Bring *node* back, and wait until the launcher has reported it."""
        raise NotImplementedError

    async def set_engine(self, *, is_down: bool) -> None:
        """Take the engine down or up, and wait until the launcher has reported it."""
        raise NotImplementedError

    async def replace_proxy(self) -> None:
        """Let the proxy vanish as by SIGKILL, and make another one: `launcher`."""
        raise NotImplementedError


class LocalSubject(Subject):
    """Processes of this machine."""

    def __init__(self, launcher: NodeLauncher, instance: str) -> None:
        self.launcher, self._instance = launcher, instance

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        async with LocalLauncher(guard=False, subreaper=True) as launcher:
            yield cls(launcher, launcher.instance)

    def left(self) -> list[int]:
        variable = f"SWAPCHART_INSTANCE={self._instance}"
        return [p.pid for p in procfs.scan() if p.is_alive and procfs.carries(p.pid, variable)]


class Keeping:
    """Local launchers one after another, whose guard keeps the processes of the one before.

    Args:
        folder: Where the guard is found.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, AsyncExitStack()
        self.instances: list[str] = []
        self.local: LocalLauncher

    async def connect(self) -> LocalLauncher:
        """Start a launcher, which has what the one before has left."""
        settings = KeepSettings(folder=self._folder, lease_s=60.0)
        self.local = LocalLauncher(
            subreaper=True, keep=settings, earlier=await take_over(self._folder)
        )
        self.instances.append(self.local.instance)
        return await self.enter(self.local)

    async def enter(self, launcher: L) -> L:
        """Enter a launcher that uses the local one."""
        return await self._stack.enter_async_context(launcher)

    async def leave(self, processes: Iterable[tuple[NodeProcess, Command]]) -> None:
        """End the launchers and leave *processes* running."""
        for process, command in processes:
            facts = RunFacts(digest="d", incarnation=command.incarnation)
            process.remember(facts.as_text(), Ending())
            process.detach()
        await self.close()

    async def close(self) -> None:
        """End the launchers."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    def left(self) -> list[int]:
        """Return the processes of all launchers that still run."""
        variables = [f"SWAPCHART_INSTANCE={instance}" for instance in self.instances]
        alive = [proc.pid for proc in procfs.scan() if proc.is_alive]
        return [pid for pid in alive if any(procfs.carries(pid, each) for each in variables)]


class ApplicationSubject(LocalSubject):
    """The same behind the launcher that the proxy uses; what it leaves is kept by its guard."""

    can_adopt = True
    knows_exits = False

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        with TemporaryDirectory() as folder:
            subject = cls(Keeping(Path(folder)))
            try:
                await subject._connect()
                yield subject
            finally:
                await subject._keeping.close()

    async def _connect(self) -> None:
        local = await self._keeping.connect()
        self.launcher = await self._keeping.enter(ExternalLauncher(local))

    def left(self) -> list[int]:
        return self._keeping.left()

    async def replace_proxy(self) -> None:
        live = self._keeping.local._live
        await self._keeping.leave([(process, process._command) for process in live])
        await self._connect()


class ContainerSubject(Subject):
    """Containers of a real podman."""

    tells_signals = False
    can_adopt = True
    runs_inside = True
    ends_whole = True

    def __init__(self, engine: Podman, keeping: Keeping) -> None:
        self.launcher: ContainerLauncher
        self._engine, self._keeping = engine, keeping

    @classmethod
    def engine(cls) -> Podman:
        """Return the engine that runs the containers."""
        return shared_engine("podman")

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        with TemporaryDirectory() as folder:
            subject = cls(cls.engine(), Keeping(Path(folder)))
            try:
                await subject._connect()
                yield subject
            finally:
                await subject._keeping.close()

    async def _connect(self) -> None:
        local = await self._keeping.connect()
        owner = self._keeping.instances[0]
        self.launcher = await self._keeping.enter(ContainerLauncher(local, owner))

    async def replace_proxy(self) -> None:
        live = self.launcher._live
        await self._keeping.leave([(process, process.command) for process in live])
        await self._connect()

    def _contained(self, command: Command, *, init: bool = True) -> Command:
        container = Container(
            image=IMAGE, engine=self._engine.engine, network="host", options=LIMITS, init=init,
            volumes=(*self._engine.volumes, "/tmp:/tmp"),
        )  # fmt: skip
        return replace(command, container=container, launcher="container")

    def command(self, behavior: str, **fields: Any) -> Command:
        return self._contained(super().command(behavior, **fields))

    def server(self, **fields: Any) -> tuple[Command, str]:
        command, url = super().server(**fields)
        return self._contained(command), url

    def missing(self) -> Command:
        return self._contained(super().missing(), init=False)  # an init process would start

    def left(self) -> list[int]:
        """Return containers by number, and processes beside those of the engine."""
        found = self._keeping.left()
        ours = [pid for pid in found if procfs.program(pid) not in ("conmon", "podman", "docker")]
        return [*ours, *range(len(self._engine.names()))]


class DockerSubject(ContainerSubject):
    """Containers of a real dockerd."""

    @classmethod
    def engine(cls) -> Podman:
        return shared_engine("docker")


class LoopbackSubject(Subject):
    """Real processes on nodes that are addresses of this machine."""

    has_nodes = True
    can_adopt = True
    has_engine = True
    resource = "slots"

    def __init__(self, engine: LoopbackEngine) -> None:
        self._engine = engine
        self.launcher: LoopbackLauncher = engine.connect()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        async with LoopbackEngine(["h1", "h2"]) as engine:
            yield cls(engine)

    def server(self, **fields: Any) -> tuple[Command, str]:
        argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(SERVER), "${HOST}", "${PORT}")
        return Command(argv=argv, label="test", **fields), "http://127.0.0.1:9/health"

    def left(self) -> list[int]:
        return self._engine.running()

    def lose(self, node: str) -> None:
        self._engine.lose(node)

    async def notice(self, node: str) -> None:
        self._engine.notice(node)

    async def restore(self, node: str) -> None:
        await self._engine.restore(node)

    async def set_engine(self, *, is_down: bool) -> None:
        self._engine.set_down(is_down=is_down)

    async def replace_proxy(self) -> None:
        self.launcher = self._engine.connect()


class RaySubject(Subject):
    """Processes on the nodes of a real Ray cluster at addresses of this machine."""

    has_nodes = True
    can_adopt = True
    has_engine = True
    resource = "slots"

    def __init__(self, cluster: RayCluster, stack: AsyncExitStack) -> None:
        self._cluster, self._stack = cluster, stack
        self.launcher: RayLauncher

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        cluster = shared_cluster()
        async with AsyncExitStack() as stack:
            subject = cls(cluster, stack)
            await subject._connect()
            yield subject

    async def _connect(self) -> None:
        local = await self._stack.enter_async_context(LocalLauncher(guard=False))
        self.launcher = RayLauncher(
            local, _http_get, address=self._cluster.address, cluster="conformance"
        )
        await self._stack.enter_async_context(self.launcher)

    def hook(self, behavior: str, **fields: Any) -> Command:
        return self.command(behavior, **{"node": "box1", **fields})

    def server(self, **fields: Any) -> tuple[Command, str]:
        argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(SERVER), "${HOST}", "${PORT}")
        return Command(argv=argv, label="test", **fields), "http://127.0.0.1:9/health"

    def left(self) -> list[int]:
        variable = "SWAPCHART_CLUSTER=conformance"
        found = [p.pid for p in procfs.scan() if p.is_alive and procfs.carries(p.pid, variable)]
        return [pid for pid in found if procfs.variable(pid, "SWAPCHART_RUN")]

    def lose(self, node: str) -> None:
        self._cluster.stop(node)

    async def notice(self, node: str) -> None:
        await wait_until_async(lambda: self._is_alive(node) is False, what=f"{node} is lost")

    def _is_alive(self, node: str) -> bool:
        return any(s.is_up and s.name == node for s in self.launcher._fleet.nodes.values())

    async def restore(self, node: str) -> None:
        events: list[NodeEvent] = []
        remove = self.launcher.listen(events.append)
        was_lost = not self._is_alive(node)
        self._cluster.resume(node)
        if was_lost:  # its raylet finds that the head has given it up, and ends
            await wait_until_async(lambda: not self._cluster.has_node(node), what="no raylet")
            self._cluster.add(node, resources={"slots": 2})
        await wait_until_async(
            lambda: any(isinstance(e, NodeUp) and e.node.name == node for e in events),
            what=f"{node} is up",
        )
        remove()

    async def set_engine(self, *, is_down: bool) -> None:
        events: list[NodeEvent] = []
        remove = self.launcher.listen(events.append)
        (head,) = self._cluster.nodes["head"]["gcs_server"]
        os.kill(head, signal.SIGSTOP if is_down else signal.SIGCONT)
        kind = EngineDown if is_down else EngineUp
        await wait_until_async(
            lambda: any(isinstance(event, kind) for event in events), what=kind.__name__
        )
        remove()

    async def replace_proxy(self) -> None:
        for process in self.launcher._fleet.processes.values():
            process.detach()
        await self._stack.aclose()
        await self._connect()


async def _http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    response = await http_probe.get(url, timeout_s=timeout_s)
    return response.status, response.detail


@cache
def shared_cluster() -> RayCluster:
    """Return the cluster of all tests; a test is skipped where there is no Ray."""
    if not HAS_RAY:
        pytest.skip(WHY_SKIPPED)
    cluster = RayCluster(resources={"slots": 2})
    atexit.register(cluster.close)
    for name in ("box1", "box2"):
        cluster.add(name, resources={"slots": 2})
    return cluster


_UP = ((0.0, b"up\n"),)
_SERVERS: Mapping[str, ServerScript] = {
    "says": ServerScript(exit_s=0.01, output=((0.0, b"hello\noops\n"),)),
    "chatty": ServerScript(
        exit_s=0.01, output=((0.0, b"".join(b"line %d\n" % n for n in range(300))),)
    ),
    "exits 7": ServerScript(exit_s=0.01, exit=Exit(code=7)),
    "exits 139": ServerScript(exit_s=0.01, exit=Exit(code=139)),
    "crashes": ServerScript(exit_s=0.01, exit=Exit(signal=11)),
    "sleeps": ServerScript(),
    "ends well": ServerScript(terminated=Exit(code=0), output=_UP),
    "stays": ServerScript(terminate_s=None, output=_UP),
    "forks": ServerScript(leaves=2, output=_UP),
    "forks briefly": ServerScript(leaves=2, leaves_s=0.1, exit_s=0.01, output=_UP),
    "serves": ServerScript(healthy_s=0.05),
}
_COMMANDS: Mapping[str, CommandScript] = {
    "says": CommandScript(output=b"hello\noops\n"),
    "exits 7": CommandScript(exit=Exit(code=7)),
    "crashes": CommandScript(exit=Exit(signal=11)),
    "sleeps": CommandScript(takes_s=None),
    "stays": CommandScript(takes_s=None),
    "forks": CommandScript(takes_s=None),
}


class ScriptedSubject(Subject):
    """The double of the runtime's tests, whose processes follow a script."""

    is_real = False
    has_nodes = True

    def __init__(self) -> None:
        self.launcher: ScriptedLauncher = ScriptedLauncher(nodes=["h1", "h2"])
        self.launcher.commands.update(_COMMANDS)
        missing = SpecError("cannot start no-such-program-here: No such file or directory")
        self.launcher.servers["missing"] = ServerScript(error=missing)
        self.launcher.commands["no-such-program-here"] = CommandScript(error=missing)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        subject = cls()
        yield subject
        for process in list(subject.launcher.live.values()):
            process.kill()

    def command(self, behavior: str, **fields: Any) -> Command:
        self.launcher.servers["test"] = _SERVERS[behavior]
        return Command(argv=(behavior,), **{"label": "test", **fields})

    def hook(self, behavior: str, **fields: Any) -> Command:
        return Command(argv=(behavior,), label="test", **fields)

    def server(self, **fields: Any) -> tuple[Command, str]:
        return self.command("serves", **fields), "http://127.0.0.1:9/health"

    def missing(self) -> Command:
        return Command(argv=("no-such-program-here", "s3cret"), label="missing")

    def left(self) -> list[int]:
        return [pid for pid, process in self.launcher.live.items() if process.ended is None]

    def lose(self, node: str) -> None:
        self.launcher.lose(node)

    async def notice(self, node: str) -> None:
        for process in list(self.launcher.live.values()):
            if process.node == node:
                process.exit_now(Exit(certain=False, reason="node-lost"))
        self.launcher.report_down(node)

    async def restore(self, node: str) -> None:
        self.launcher.restore(node)


def more_than_there_is(subject: Subject) -> Resources:
    """Return resources that no node of *subject* has."""
    return Resources(custom={subject.resource: 1e6})


SUBJECTS: list[type[Subject]] = [
    LocalSubject, ApplicationSubject, ContainerSubject, DockerSubject, LoopbackSubject, RaySubject,
    ScriptedSubject,
]  # fmt: skip
