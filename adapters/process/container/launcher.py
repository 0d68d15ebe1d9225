"""Launcher of containers: creation, start, leftovers of earlier runs, and removal."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ....runtime.container import Container, ContainerEngine
from ....runtime.errors import ConfigError, EngineError, LaunchError, SpecError
from ....runtime.fence import fenced
from ....runtime.ports import Adopted, Command, Ending, Exit, LogSink, NodeLauncher
from ..kept_process import KeptProcess
from ..launcher import LocalLauncher
from ..local_process import LocalProcess
from ..port import check
from . import arguments, inspection
from .ending import on_host
from .engine_client import EngineClient, Result, Tail
from .inspection import Inspection
from .kept import KeptContainer
from .process import ContainerProcess

START_LIMIT_S = 120.0  # of the creation and of the start each; layers may have to be copied
_END_LIMIT_S = 20.0  # of all containers at the end of the launcher
_LOOK_S = 0.02
_ID = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class ContainerLauncher(NodeLauncher):
    """Launcher of containers on this machine: ``async with ContainerLauncher(local, owner)``.

    Args:
        local: Launcher of the clients of engines; it is entered before this one.
        owner: Id of the proxy that outlives its process; containers with it that another process
            of the proxy has left are removed. No two running proxies have the same.
    """

    name = "container"

    def __init__(self, local: LocalLauncher, owner: str) -> None:
        self._local, self._owner = local, owner
        self.client = EngineClient(local)
        self._tasks: TaskGroup | None = None
        self._live: set[ContainerProcess] = set()
        self._removals: dict[str, anyio.Event] = {}  # name -> set when the name is free
        self._cleaned: dict[tuple[str, ...], anyio.Event] = {}  # engines without leftovers

    async def __aenter__(self) -> Self:
        """Start the tasks."""
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill and remove the remaining containers, shielded from cancel.

        Those that outlive the proxy are left to the guard, with the clients attached to them.
        """
        tasks = self._tasks
        assert tasks is not None
        for process in [process for process in self._live if process.is_detached]:
            self._live.discard(process)
            process.give_up()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_END_LIMIT_S):
            for process in tuple(self._live):
                process.kill()
            for process in tuple(self._live):
                await process.wait()
                self.end(process)
            for removed in tuple(self._removals.values()):
                await removed.wait()
        self._tasks = None
        tasks.cancel_scope.cancel()
        for process in tuple(self._live):
            process.give_up()
            log.error("%s: container %s is left to its engine", process.command.label, process.name)
        await tasks.__aexit__(None, None, None)

    # ---- starts
    async def start(self, command: Command, log: LogSink) -> ContainerProcess:
        """Start *command* in its container; see `Launcher`.

        Raises:
            SpecError: Also for a missing image, a wrong option, or a name that is taken.
            EngineError: Also for an engine that does not respond.
        """
        container = command.container
        if container is None:
            raise SpecError("the command has no container")
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._tasks is None:
            raise EngineError("the launcher is closed")
        await self.remove_leftovers(container.engine)
        if command.listens_at is not None:
            await check.check_free(command.listens_at)
        name = container.name or arguments.container_name(self._owner, command.label)
        if name in self._removals:
            await self._removals[name].wait()
        with anyio.CancelScope(shield=True):  # podman keeps the name if it is killed meanwhile
            id_ = await self._create(container, command, name, log)
        try:
            process = await self._start(command, id_, name, log)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._remove(container.engine, id_, command.label)
            raise
        self.take(process)
        return process

    def take(self, process: ContainerProcess) -> None:
        """Watch a container that was started, or adopted."""
        if self._tasks is not None:
            self._live.add(process)
            if process.init is not None:
                self._local.guard_process(process.init)
            self._tasks.start_soon(process.watch)

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* on this machine until it exits; see `Launcher` and `on_host`."""
        return await self._local.run(on_host(command), log)

    async def _create(
        self, container: Container, command: Command, name: str, sink: LogSink
    ) -> str:
        labels = {
            **container.labels, arguments.OWNER: self._owner, arguments.MODEL: command.label,
            arguments.INSTANCE: self._local.instance, arguments.RUN: secrets.token_hex(8),
        }  # fmt: skip
        argv = arguments.create_argv(container, command, name=name, labels=labels)
        result = await self._try_create(argv, command)
        if inspection.is_name_taken(result.output):
            await self._free_name(container, name, command.label)
            result = await self._try_create(argv, command)
        lines = result.output.splitlines()
        ids = [line.strip() for line in lines if _ID.fullmatch(line.strip())]
        if not result.is_ok or not ids:
            raise inspection.launch_error(
                container.engine.name, container.image, result.output, result.code
            )
        for line in lines:
            if line.strip() not in ids:
                sink.write(line.encode() + b"\n")
        return ids[-1]

    async def _try_create(self, argv: tuple[str, ...], command: Command) -> Result:
        env = arguments.client_env(command.env)
        return await self.client.run(argv, env=env, label=command.label, limit_s=START_LIMIT_S)

    async def _free_name(self, container: Container, name: str, label: str) -> None:
        """Remove the container called *name* if it is ours and does not run for a model.

        A creation that was killed leaves a name without labels in podman. Such a name is ours if we
        made it, since it has our id in it.

        Raises:
            SpecError: It is not ours.
        """
        found = await self.client.inspect(container.engine, name)
        if found is None:
            if not container.name:
                await self._remove(container.engine, name, label)
            return
        in_use = any(each.name == name and not each.has_ended for each in self._live)
        if found.labels.get(arguments.OWNER) != self._owner or in_use:
            raise SpecError(
                f"the name {name!r} is taken by a container that is not this model's: remove it "
                f"with `{container.engine.name} rm -f {name}`, or set `container: {{name: ...}}`"
            )
        log.warning("%s: removing container %s, which was left behind", label, name)
        await self._remove(container.engine, name, label)

    async def _start(
        self, command: Command, id_: str, name: str, sink: LogSink
    ) -> ContainerProcess:
        container = command.container
        assert container is not None, "checked by start()"
        tail = Tail(sink)
        await anyio.lowlevel.checkpoint_if_cancelled()
        client = await self._local.start_client(
            Command(argv=arguments.start_argv(container, id_), label=command.label), tail
        )
        try:
            found = await self._await_running(container, id_, client, tail)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await client.end()
            raise
        client.log = sink
        return ContainerProcess(
            command, id_, name, client=client, found=found, owner=self, sink=sink
        )

    async def _await_running(
        self, container: Container, id_: str, client: LocalProcess, tail: Tail
    ) -> Inspection:
        """Return the state of the container once it runs or has ended.

        Raises:
            LaunchError: It could not be started, or not within the time limit.
        """
        engine, image = container.engine, container.image
        with anyio.move_on_after(START_LIMIT_S):
            while True:
                has_ended = client.has_ended
                found = await self.client.inspect(engine, id_)
                if found is not None and not found.is_new and not found.error:
                    return found
                if has_ended:
                    code = (await client.wait()).code
                    if found is not None and found.error:
                        tail.write(f"{engine.name}: {found.error}\n".encode())
                    raise inspection.launch_error(engine.name, image, tail.text, code)
                await anyio.sleep(_LOOK_S)
        raise EngineError(f"{engine.name} did not start {image} within {START_LIMIT_S:g} s")

    # ---- for running containers
    async def attach(self, process: ContainerProcess) -> LocalProcess:
        """Start another client that prints the output of a container."""
        argv = arguments.attach_argv(process.container, process.id)
        command = Command(argv=argv, label=process.command.label)
        return await self._local.start_client(command, process.sink)

    def send(self, process: ContainerProcess, argv: tuple[str, ...]) -> None:
        """Run a command of the engine in the background; a failure is logged if it matters."""
        if self._tasks is not None:
            self._tasks.start_soon(fenced, self._send, process, argv)

    async def _send(self, process: ContainerProcess, argv: tuple[str, ...]) -> None:
        result = await self.client.run(argv, label=process.command.label)
        if not result.is_ok and not process.has_ended:
            log.warning(
                "%s: %s cannot end container %s: %s", process.command.label,
                process.container.engine.name, process.name, inspection.reason(result.output),
            )  # fmt: skip

    def end(self, process: ContainerProcess) -> None:
        """Remove a container that has ended, in the background; a no-op the second time."""
        if process not in self._live or self._tasks is None:
            return
        self._live.discard(process)
        if process.init is not None:
            self._local.unguard_process(process.init)
        removed = self._removals[process.name] = anyio.Event()
        self._tasks.start_soon(fenced, self._remove_ended, process, removed)

    async def _remove_ended(self, process: ContainerProcess, removed: anyio.Event) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._remove(process.container.engine, process.id, process.command.label)
        finally:
            removed.set()
            if self._removals.get(process.name) is removed:
                del self._removals[process.name]

    async def _remove(self, engine: ContainerEngine, id_: str, label: str) -> None:
        try:
            result = await self.client.remove(engine, id_)
        except LaunchError as error:
            result = Result(1, str(error))
        if not result.is_ok and "no such container" not in result.output.lower():
            why = inspection.reason(result.output) or "no response in time"
            log.warning("%s: container %s cannot be removed: %s", label, id_[:12], why)

    # ---- beyond the end of the proxy
    def remember(self, process: ContainerProcess, facts: str, ending: Ending) -> None:
        """Keep *facts* with the client of *process*; see `NodeProcess.remember`."""
        if process in self._live:
            self._local.remember(process.client, facts, ending, process.record())

    async def adopt(self) -> Sequence[Adopted]:
        """Return the containers that the guard of an earlier proxy has kept; see `NodeLauncher`."""
        found: dict[str, Adopted] = {}
        clients: dict[str, KeptProcess] = {}
        for adopted in self._local.kept.adoptable(contained=True):
            client = adopted.process
            assert isinstance(client, KeptProcess), "as `adoptable` returns it"
            try:
                process = KeptContainer(client, self)
            except (KeyError, TypeError, ValueError, ConfigError):  # a record of another version
                log.warning("%s: another version of swapchart has started it", adopted.service)
                if self._tasks is not None:
                    self._tasks.start_soon(fenced, client.dismiss)
                continue
            if process.id in found:  # two clients: the proxy has died while it attached another
                other = clients[process.id]
                (client if other.is_running else other).drop()
                if other.is_running:
                    continue
            found[process.id] = replace(adopted, process=process)
            clients[process.id] = client
        return tuple(found.values())

    async def remove_kept(self, process: ContainerProcess) -> None:
        """Remove a container of an earlier proxy, which nothing else ends."""
        with anyio.CancelScope(shield=True):
            await self._remove(process.container.engine, process.id, process.command.label)

    # ---- leftovers
    async def remove_leftovers(self, engine: ContainerEngine) -> None:
        """Remove the containers that earlier processes of this proxy left; once for each engine.

        Raises:
            LaunchError: The engine cannot be started or does not respond.
        """
        cleaned = self._cleaned.get(engine.command)
        if cleaned is not None:
            await cleaned.wait()
            return
        cleaned = self._cleaned[engine.command] = anyio.Event()
        try:
            await self._remove_leftovers(engine)
        except BaseException:
            del self._cleaned[engine.command]
            raise
        finally:
            cleaned.set()

    async def _remove_leftovers(self, engine: ContainerEngine) -> None:
        try:
            ids = await self.client.ids(engine, self._owner)
        except SpecError as error:
            how = "install podman or docker, or name the one to use by `containerEngine`"
            raise SpecError(f"{error}; {how}") from error
        for id_ in ids:
            found = await self.client.inspect(engine, id_)
            labels = {} if found is None else found.labels
            is_leftover = (
                labels.get(arguments.INSTANCE) != self._local.instance
                and id_ not in self._local.kept.containers
            )
            if found is not None and labels.get(arguments.OWNER) == self._owner and is_leftover:
                model = labels.get(arguments.MODEL, "")
                log.warning("%s: removing container %s of an earlier run", model, id_[:12])
                await self._remove(engine, id_, model)
