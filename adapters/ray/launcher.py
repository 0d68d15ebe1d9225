"""Launcher of processes on the nodes of a Ray cluster.

The launcher chooses a node, and the agent of that node reserves, starts and watches the process.
The proxy talks to all agents through one sidecar (see ``connection``), and to the processes
directly. If the sidecar is gone, processes go on and are served; nothing can be started meanwhile.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError, LaunchError, PlacementError, SpecError
from ...runtime.ports import Adopted, Command, Exit, Launcher, LogSink, Node, NodeLauncher
from . import owner
from .connection import Connection
from .devices import gpus_of, reservation
from .fleet import Fleet
from .messages import Message
from .node_choice import NodeState, candidates
from .ray_process import PRESENCE_S, HttpGet, RayProcess

HOOK_OUTPUT_BYTES = 1 << 16
_log = logging.getLogger(__name__)

_APPLY_S = 20.0
_OPEN_S = 15.0  # for the cluster to respond when the proxy starts
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


class RayLauncher(NodeLauncher):
    """Launcher of processes on a cluster: ``async with RayLauncher(...) as launcher``.

    At the end of the block every process is killed that was not detached.

    Args:
        address: Address of the cluster's head, ``HOST:PORT``; ``auto`` is the cluster that runs on
            this machine.
        cluster: Name of this proxy in the cluster. Two proxies at a time need different ones.
        local: Runs hooks that have no node yet.
        http_get: GETs a URL, for probes.
        lease_s: Time in seconds that a process may outlive the proxy once it has facts for the
            next one.
    """

    name = "ray"

    def __init__(
        self, local: Launcher, http_get: HttpGet, *, address: str = "auto",
        cluster: str = "swapchart", lease_s: float = 0.0,
    ) -> None:  # fmt: skip
        self._local = local
        settings = {"address": address, "cluster": cluster, "owner": owner.this_process()}
        self._fleet = Fleet(settings, self.name, http_get, self.notify, lease_s)
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        """Connect to the cluster; where it does not respond, go on trying in a task.

        Raises:
            ClusterInUseError: Another proxy with this name is there.
        """
        if os.environ.get("RAY_AUTH_MODE") != "token":
            _log.warning(
                "cluster: RAY_AUTH_MODE=token is not set: without it every program that reaches "
                "the head of the cluster can run commands on all nodes"
            )
        self._tasks = await anyio.create_task_group().__aenter__()
        try:
            await self._fleet.open(self._tasks, _OPEN_S)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left and not detached, and end the sidecar; shielded from cancel."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        with anyio.CancelScope(shield=True):
            await self._fleet.close()
        await tasks.__aexit__(None, None, None)

    @property
    def _connection(self) -> Connection:
        """Connection with the sidecar, which is connected to the cluster.

        Raises:
            EngineError: It is not.
        """
        connection = self._fleet.connection
        if self._fleet.problem or not connection.is_open:
            problem = self._fleet.problem or connection.problem
            raise EngineError(problem or "the cluster is not connected yet")
        return connection

    async def nodes(self) -> list[Node]:
        """Return the nodes of the cluster; see `NodeLauncher`.

        Raises:
            EngineError: The cluster does not respond.
        """
        connection = self._connection
        states = [state for state in self._fleet.nodes.values() if not state.is_gone]
        free: dict[str, dict[str, float]] = {}
        with anyio.move_on_after(PRESENCE_S):
            free = await connection.request("free")
        return [state.node(free.get(state.id)) for state in states]

    async def start(self, command: Command, log: LogSink) -> RayProcess:
        """Start *command* on a node; see `Launcher`."""
        try:
            with anyio.fail_after(command.start_limit_s):
                return await self._start(command, log, is_hook=False)
        except TimeoutError:
            text = f"no node has started it within {command.start_limit_s:g} s"
            raise EngineError(text) from None

    async def _start(self, command: Command, log: LogSink, *, is_hook: bool) -> RayProcess:
        if self._tasks is None:
            raise EngineError("the launcher is closed")
        connection = self._connection
        running = [process.node_id for process in self._fleet.processes.values()]
        found = candidates(command, self._fleet.nodes.values(), running)
        errors: list[LaunchError] = []
        for state in found:
            try:
                return await self._start_on(connection, state, command, log, is_hook=is_hook)
            except (PlacementError, SpecError) as error:
                errors.append(error)  # another node may have room, or the program
        raise errors[-1]

    async def _start_on(
        self, connection: Connection, state: NodeState, command: Command, log: LogSink, *,
        is_hook: bool,
    ) -> RayProcess:  # fmt: skip
        id_ = f"{command.label or 'hook'}#{command.incarnation}@{secrets.token_hex(6)}"
        process = RayProcess(id_, self._fleet, log, node=state.name, node_id=state.id)
        numbers = [] if is_hook else await self._gpus(connection, state, command)
        process.facts["gpus"] = numbers
        self._fleet.processes[id_] = process
        facts = {
            "id": id_, "label": command.label, "incarnation": command.incarnation,
            "argv": command.argv, "env": _environment(command, numbers), "cwd": command.cwd,
            "gpus": numbers, "reserve": {} if is_hook else reservation(command, state, numbers),
            "wait_s": command.placement.wait_s, "grace_s": command.grace_s,
            "lease_s": command.lease_s, "is_hook": is_hook,
        }  # fmt: skip
        is_started = False
        try:
            answer = await connection.request("start", {"node": state.id, "facts": facts})
            _raise_error(answer)
            # A process may have ended by now. Its end comes with an event, behind its output.
            process.take({**answer, "code": None, "killed": None})
            is_started = True
        finally:
            if not is_started:
                self._fleet.processes.pop(id_, None)
                self._fleet.in_background(partial(self._fleet.forget, state.id, id_))
        return process

    async def _gpus(self, connection: Connection, state: NodeState, command: Command) -> list[int]:
        """Return the numbers of the GPUs that *command* gets; see `gpus_of`."""
        free = await connection.request("free") if command.resources.gpus else {}
        running = self._fleet.processes.values()
        held = [number for each in running if each.node_id == state.id for number in each.gpus]
        return gpus_of(command, state, free.get(state.id), held)

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run *command* on its node until it exits; without a node, on this machine."""
        if not command.node:
            return await self._local.run(command, log)
        sink = _FirstBytes(log, HOOK_OUTPUT_BYTES)
        process = await self._start(command, sink, is_hook=True)
        try:
            return await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                process.kill()
                await process.sweep(0.0)

    async def apply(
        self, node: str, modules: Sequence[str], function: str, arguments: Sequence[object]
    ) -> Any:
        """Call a function on a node, where the packages of the proxy need not be installed.

        Args:
            node: Name of the node.
            modules: Names of modules whose code is sent there, first that of the function.
            function: Its name.
            arguments: Its arguments, in values of JSON, as the result is.

        Raises:
            EngineError: The node does not respond, or the function has raised an exception.
        """
        connection = self._connection
        for state in self._fleet.nodes.values():
            if state.is_up and state.name == node:
                values = {
                    "node": state.id, "modules": [*modules], "function": function,
                    "arguments": [*arguments], "limit_s": _APPLY_S,
                }  # fmt: skip
                return await connection.request("apply", values)
        raise EngineError(f"node {node} does not respond")

    async def adopt(self) -> list[Adopted]:
        """Return what an earlier proxy has left; see `NodeLauncher`. Later calls return nothing.

        Raises:
            EngineError: The cluster does not respond.
        """
        _ = self._connection  # raises
        return [
            Adopted(
                service=process.facts["label"], incarnation=process.facts["incarnation"],
                id=process.id, process=process, facts=process.facts.get("memo", ""),
            )
            for process in self._fleet.claim()
        ]  # fmt: skip


def _environment(command: Command, numbers: list[int]) -> dict[str, str]:
    """Return the variables of *command*, which gets the GPUs *numbers*."""
    gpus = dict.fromkeys(_GPU_VARIABLES, ",".join(map(str, numbers))) if numbers else {}
    return {**gpus, **command.env, "SWAPCHART_SERVICE": command.label}


class _FirstBytes:
    """Sink that passes the first bytes on, and drops the rest."""

    def __init__(self, sink: LogSink, limit: int) -> None:
        self._sink, self._left = sink, limit

    def write(self, data: bytes) -> None:
        """Write *data* up to the limit."""
        kept = data[: self._left]
        self._left -= len(kept)
        if kept:
            self._sink.write(kept)


def _raise_error(answer: Message) -> None:
    """Raise the error that an agent has answered with, if it has.

    Raises:
        LaunchError: A `SpecError`, `PlacementError` or `EngineError`.
    """
    match answer.get("error"):
        case None:
            return
        case "spec":
            raise SpecError(answer["text"])
        case "placement":
            raise PlacementError(answer["text"])
        case _:
            raise EngineError(answer["text"] or "the node belongs to another proxy")
