"""Nodes and processes of a cluster, by what the sidecar reports.

*Fencing*: a process that was reported lost is ended before its node is reported up again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from ...runtime.errors import EngineError
from ...runtime.fence import fenced
from ...runtime.ports import (
    Ending,
    EngineDown,
    EngineUp,
    NodeChanged,
    NodeDown,
    NodeEvent,
    NodeUp,
    Presence,
)
from .connection import Connection
from .errors import ClusterInUseError
from .messages import Message
from .node_choice import NodeState
from .ray_process import PRESENCE_S, HttpGet, RayProcess

ABSENT_S = 15.0  # for nodes to be back after the engine
_FENCE_S = 30.0  # until a node that is not used yet is reported in the log
_RETRY_S = 1.0

_log = logging.getLogger(__name__)


class Fleet:
    """The nodes of a cluster, and the processes of this proxy on them.

    Args:
        settings: The ``open`` request: ``address``, ``cluster`` and ``owner``.
        engine: Name of the engine in events.
        http_get: GETs a URL, for probes.
        notify: Reports an event of a node or of the engine.
        lease_s: Time in seconds that a process with facts may outlive the proxy.

    Attributes:
        connection: Connection with the sidecar.
        nodes: Nodes by the id that Ray gave them, also those that are gone.
        processes: Processes by their id.
        unclaimed: Processes that an earlier proxy has left, until `claim`.
        rival: The other proxy that uses a node; None if there was none.
        problem: Why the head does not respond, in words; empty if it does.
    """

    def __init__(
        self, settings: Message, engine: str, http_get: HttpGet,
        notify: Callable[[NodeEvent], None], lease_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.http_get, self._notify, self._lease_s = http_get, notify, lease_s
        self._cluster, self._engine = settings["cluster"], engine
        self.connection = Connection(settings, self._take)
        self.nodes: dict[str, NodeState] = {}
        self.processes: dict[str, RayProcess] = {}
        self.unclaimed: dict[str, RayProcess] = {}
        self.rival: Mapping[str, Any] | None = None
        self.problem = ""
        self._is_claimed = False
        self._condemned: set[str] = set()  # ids of what was discarded, and not forgotten yet
        self._unsettled: set[RayProcess] = set()  # reported lost while their nodes are up
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def open(self, tasks: TaskGroup, limit_s: float) -> None:
        """Run in *tasks*, and wait up to *limit_s* seconds for the nodes that are there.

        Raises:
            ClusterInUseError: Another proxy with this name uses one of them.
        """
        self._tasks = tasks
        tasks.start_soon(self.connection.run)
        with anyio.move_on_after(limit_s):
            await self.connection.tried.wait()
            while self.connection.is_open and self.rival is None and not self._are_nodes_known():
                await self._changed.wait()
        if self.rival is not None:
            raise ClusterInUseError(self._cluster, self.rival)

    def _are_nodes_known(self) -> bool:
        known = {node_id for node_id, state in self.nodes.items() if state.is_up or state.is_gone}
        return known.issuperset(self.connection.nodes)

    async def close(self) -> None:
        """Kill the processes that were not detached, and end the sidecar."""
        left = [p for p in self.processes.values() if not (p.is_detached or p.gone.is_set())]
        async with anyio.create_task_group() as ends:
            for process in left:
                process.kill()
                ends.start_soon(process.gone.wait)
        self.connection.close()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            self._tasks = None

    def claim(self) -> list[RayProcess]:
        """Return the processes that an earlier proxy has left; those found later are ended."""
        self._is_claimed = True
        found, self.unclaimed = self.unclaimed, {}
        self.processes.update(found)
        return list(found.values())

    def in_background(self, work: Any) -> None:
        """Await *work* in a task; a no-op once this is closed."""
        if self._tasks is not None:
            self._tasks.start_soon(fenced, work)

    # ---- for processes
    def order(self, process: RayProcess, line: str) -> None:
        """Give the guard of *process* an order; see `Host`."""
        values = {"node": process.node_id, "id": process.id, "line": line}
        self.in_background(partial(self._request, "order", values))

    def remember(self, process: RayProcess, memo: str, ending: Ending) -> None:
        """Keep *memo* with *process* for the next proxy; see `Host`."""
        values = {
            "node": process.node_id, "id": process.id, "memo": memo,
            "lease_s": self._lease_s if memo else 0.0, "ending": ending.record() if memo else None,
        }  # fmt: skip
        self.in_background(partial(self._request, "remember", values))

    async def dismiss(self, process: RayProcess) -> bool:
        """End *process* with its hooks; see `Host`."""
        return await self._dismiss(process.node_id, process.id)

    async def _dismiss(self, node_id: str, id_: str) -> bool:
        with suppress(EngineError):
            return bool(await self.connection.request("dismiss", {"node": node_id, "id": id_}))
        return False

    async def _request(self, do: str, values: Message) -> None:
        with suppress(EngineError):  # then the time limit of `confirm` decides, or fencing
            await self.connection.request(do, values)

    def confirm(self, process: RayProcess, within_s: float) -> None:
        """Count *process* as lost if its end is not confirmed in time; see `Host`."""
        self.in_background(partial(self._confirm, process, within_s))

    async def _confirm(self, process: RayProcess, within_s: float) -> None:
        with anyio.move_on_after(within_s):
            await process.gone.wait()
            return
        process.lose("agent-lost" if self.connection.is_open else "engine-lost")
        await self._settle(process)

    async def _settle(self, process: RayProcess) -> None:
        """End *process*, which was reported lost, as soon as its node responds; then report that.

        If its node goes down first, that is done before the node is used again.
        """
        state = self.nodes.get(process.node_id)
        if state is None or not state.has_agent:
            return
        self._unsettled.add(process)
        is_over = await self._end_left(state, state.turn, process.id)
        self._unsettled.discard(process)
        if is_over and state.is_up:
            self._report_up(state)

    def _report_up(self, state: NodeState) -> None:
        """Report that nothing which was lost on a node runs there, unless something may."""
        if not any(process.node_id == state.id for process in self._unsettled):
            self._notify(NodeUp(state.node(None)))

    async def _end_left(
        self, state: NodeState, turn: int, id_: str, *, with_hooks: bool = False
    ) -> bool:
        """End a process that is left on a node; return False if the node is lost first."""
        while state.turn == turn:
            try:
                if with_hooks:
                    await self.connection.request("dismiss", {"node": state.id, "id": id_})
                await self.connection.request("forget", {"node": state.id, "id": id_})
            except EngineError:
                await anyio.sleep(_RETRY_S)
            else:
                self._condemned.discard(id_)
                return True
        return False

    def discard(self, process: RayProcess) -> None:
        """Forget *process*, whose tree has ended; see `Host`."""
        if self.processes.pop(process.id, None) is not None:
            self._condemned.add(process.id)
            self.in_background(partial(self.forget, process.node_id, process.id))

    async def forget(self, node_id: str, id_: str) -> None:
        """Have an agent forget a process, and end it if it runs; waits for that."""
        with suppress(EngineError):  # the agent is fenced when it is back
            await self.connection.request("forget", {"node": node_id, "id": id_})
            self._condemned.discard(id_)

    async def presence_of(self, process: RayProcess) -> Presence:
        """Return whether *process* exists; see `Host`."""
        with suppress(EngineError), anyio.move_on_after(PRESENCE_S):
            values = {"node": process.node_id, "limit_s": PRESENCE_S}
            alive: list[str] = await self.connection.request("ping", values)
            return "alive" if process.id in alive else "gone"
        return "unknown"

    # ---- events of the sidecar
    def _take(self, event: Message) -> None:
        match event["event"]:
            case "process":
                self._take_report(event)
            case "node":
                self._take_node(event)
            case "engine" if event["state"] == "up":
                self.problem = ""
                self._notify(EngineUp(self._engine))
                self.in_background(self._lose_absent_nodes)
            case "engine":
                self.problem = event["why"]
                _log.warning("cluster: %s; trying again", event["why"])
                if not self.connection.is_open:
                    for state in self.nodes.values():
                        state.set_down(is_gone=state.is_gone)
                self._notify(EngineDown(self._engine, event["why"]))
            case "busy":
                is_new, self.rival = self.rival != event["owner"], event["owner"]
                if is_new:
                    text = ClusterInUseError(self._cluster, event["owner"])
                    _log.warning("node %s is not used: %s", event["node"]["name"], text)
        self._note_change()

    def _take_report(self, event: Message) -> None:
        report = {name: value for name, value in event.items() if name not in ("event", "node_id")}
        id_ = report["id"]
        process = self.processes.get(id_) or self.unclaimed.get(id_)
        if process is not None:
            process.take(report)
        elif id_ not in self._condemned:  # its start was lost with a sidecar
            self._condemned.add(id_)
            self.in_background(partial(self.forget, event["node_id"], id_))

    def _take_node(self, event: Message) -> None:
        facts = event["node"]
        state = self.nodes.setdefault(facts["id"], NodeState(facts))
        state.facts = facts
        match event["state"]:
            case "up":
                self._lose_namesakes(state)
                state.set_agent()
                foreign = self._match(state, event["processes"])
                self.in_background(partial(self._bring_up, state, state.turn, foreign))
            case "changed":
                if state.is_up:
                    self._notify(NodeChanged(state.node(None)))
            case "lost":
                self._take_down(state, event["why"], is_dead=False)
            case "down":
                self._take_down(state, event["why"], is_dead=True)

    def _take_down(self, state: NodeState, why: str, *, is_dead: bool) -> None:
        was_up = state.is_up
        state.set_down(is_gone=is_dead)
        if any(other.is_up and other.name == state.name for other in self.nodes.values()):
            return  # the node has joined anew, which was fenced
        if was_up:
            _log.warning("node %s: %s", state.name, "it died" if is_dead else f"agent lost, {why}")
        for process in tuple(self.processes.values()):
            if process.node_id == state.id:
                process.lose("node-lost" if is_dead else "agent-lost")
        if was_up:
            self._notify(NodeDown(state.node(None)))

    def _lose_namesakes(self, state: NodeState) -> None:
        """Count as ended what ran when *state* was another node: its agent has ended all that."""
        for process in tuple(self.processes.values()):
            if process.node_name == state.name and process.node_id != state.id:
                process.lose("node-lost", is_certain=True)
        for other in self.nodes.values():
            if other.name == state.name and other is not state:
                other.set_down(is_gone=True)

    def _match(self, state: NodeState, reports: list[Message]) -> dict[str, bool]:
        """Match what runs on a node with what is known.

        At once, since the next event may be the output of one of these processes, or its end.

        Returns:
            The ids of those to end -> whether with their hooks, as what an earlier proxy has kept.
        """
        listed = {report["id"]: report for report in reports}
        for process in tuple(self.processes.values()):
            if process.node_id == state.id and process.id not in listed and process.facts:
                process.lose("agent-lost", is_certain=True)
        foreign: dict[str, bool] = {}
        for id_, report in listed.items():
            known = self.processes.get(id_) or self.unclaimed.get(id_)
            if known is not None and (known.exit is None or known.exit.certain):
                known.take(report)
            elif known is None and not self._is_claimed and not report["is_hook"]:
                process = RayProcess(id_, self, None, node=state.name, node_id=state.id)
                process.take(report)
                self.unclaimed[id_] = process
            else:
                is_own = known is not None or id_ in self._condemned
                foreign[id_] = not is_own and bool(report.get("memo"))
        return foreign

    async def _bring_up(self, state: NodeState, turn: int, foreign: Mapping[str, bool]) -> None:
        """End the processes *foreign* on a node, and report the node then, unless it is lost."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._warn_of, state, turn)
            async with anyio.create_task_group() as ends:
                for id_, with_hooks in foreign.items():
                    end = partial(self._end_left, state, turn, id_, with_hooks=with_hooks)
                    ends.start_soon(end)
            tasks.cancel_scope.cancel()
        if state.turn == turn:
            state.is_up = True
            _log.info("node %s is up", state.name)
            self._report_up(state)
            self._note_change()

    async def _warn_of(self, state: NodeState, turn: int) -> None:
        """Log, after some time, that processes on a node do not end."""
        await anyio.sleep(_FENCE_S)
        if state.turn == turn:
            _log.error("node %s is not used yet: processes there have not ended", state.name)

    async def _lose_absent_nodes(self) -> None:
        """Count processes as lost whose nodes are not back some time after the engine."""
        await anyio.sleep(ABSENT_S)
        if self.connection.is_open:
            for process in tuple(self.processes.values()):
                state = self.nodes.get(process.node_id)
                if state is None or not state.has_agent:
                    process.lose("node-lost")

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
