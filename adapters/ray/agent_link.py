"""Connection of the sidecar with the agent of one node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .messages import Message
from .node import agent, child, ending, host, leftovers

POLL_S = 2.0
HELLO_S = 60.0  # an agent first ends what an earlier one has left
_PAUSE_S, _MAX_PAUSE_S = 0.2, 5.0
_GUARD = Path(__file__).parent / "node" / "tree_guard.py"


class LinkError(Exception):
    """A call of an agent failed.

    Attributes:
        kind: ``lost`` if the fate of the call is unknown, else ``engine``.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def ship_code() -> None:
    """Make Ray send the code of agents to the nodes, which then need not have swapchart."""
    for module in (agent, child, ending, host, leftovers):
        ship(module)


def ship(module: ModuleType) -> None:
    """Make Ray send the code of *module* to the nodes."""
    register: Any = ray.cloudpickle.register_pickle_by_value  # has no types
    register(module)


class AgentLink:
    """One node and its agent, which is created again when it has died.

    Args:
        cluster: Name of the owner's cluster.
        owner: The proxy: ``id``, ``host``, ``boot``, ``pid`` and ``start``.
        node: What is known of the node: ``id``, ``name``, ``address`` and more.
        emit: Sends an event to the proxy.
        is_dead: Returns True if an owner is certainly dead.

    Attributes:
        node: See above; kept up to date by the sidecar.
        is_up: The agent has responded, and has ended what earlier ones have left.
    """

    def __init__(
        self, cluster: str, owner: Mapping[str, Any], node: Message,
        emit: Callable[[Message], None], is_dead: Callable[[Mapping[str, Any]], bool],
    ) -> None:  # fmt: skip
        self._cluster, self._owner, self.node = cluster, dict(owner), node
        self._emit, self._is_dead = emit, is_dead
        self._actor: Any = None
        self._seen: dict[str, list[int]] = {}
        self.is_up = False
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keep the agent until canceled."""
        pause_s = _PAUSE_S
        while True:
            try:
                if await self._connect():
                    pause_s = _PAUSE_S
                    await self._poll()
            except Exception as error:  # noqa: BLE001  (whatever Ray raises, the node may be back)
                self._lose(f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)

    def _lose(self, why: str) -> None:
        was_up, self.is_up, self._actor = self.is_up, False, None
        if was_up:
            self._emit({"event": "node", "state": "lost", "node": self.node, "why": why})

    async def _connect(self) -> bool:
        """Find or create the agent and become its owner; return False if another proxy is."""
        self._actor = await asyncio.to_thread(self._find_or_create)
        answer = await self._hello("")
        if answer.get("error") == "busy" and self._is_dead(answer["owner"]):
            answer = await self._hello(answer["owner"]["id"])
        if "error" in answer:
            self._emit({"event": "busy", "node": self.node, "owner": answer["owner"]})
            return False
        if answer["protocol"] != agent.PROTOCOL:
            await asyncio.wait_for(self._actor.end.remote(), HELLO_S)
            return False
        self._seen = {}
        self.is_up = True
        processes = answer["processes"]
        self._emit({"event": "node", "state": "up", "node": self.node, "processes": processes})
        return True

    async def _hello(self, takes_over: str) -> Message:
        call = self._actor.hello.remote(self._owner, takes_over)
        answer: Message = await asyncio.wait_for(call, HELLO_S)
        return answer

    def _find_or_create(self) -> Any:
        node_id = self.node["id"]
        make = ray.remote(agent.Agent).options(
            name=f"agent:{node_id}", get_if_exists=True, lifetime="detached", num_cpus=0,
            max_concurrency=1000, max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )  # fmt: skip
        return make.remote(
            self._cluster, self.node["name"], node_id, self.node["address"], _GUARD.read_text()
        )

    async def _poll(self) -> None:
        while True:
            try:
                answer = await self._actor.poll.remote(self._owner["id"], self._seen, POLL_S)
            except ActorUnavailableError:  # its connection broke, which says nothing about it
                await asyncio.sleep(_PAUSE_S)
                continue
            if "error" in answer:
                self._lose("another proxy has taken over")
                return
            for report in answer["changed"]:
                self._seen[report["id"]] = [report["version"], report["offset"]]
                self._emit({"event": "process", "node_id": self.node["id"], **report})

    async def call(self, method: str, *arguments: Any, limit_s: float | None = None) -> Any:
        """Call a method of the agent.

        Raises:
            LinkError: The agent does not respond.
        """
        if not self.is_up or self._actor is None:
            raise LinkError("engine", f"the agent of node {self.node['name']} does not respond")
        try:
            call = getattr(self._actor, method).remote(*arguments)
            return await asyncio.wait_for(call, limit_s)
        except (RayError, TimeoutError) as error:
            kind = type(error).__name__
            text = f"node {self.node['name']}: {method} was not confirmed ({kind})"
            raise LinkError("lost", text) from error

    async def forget(self, id_: str) -> None:
        """Forget a process that the proxy knows to have ended."""
        self._seen.pop(id_, None)
        await self.call("forget", id_)

    async def start(self, facts: Message, limit_s: float | None) -> Message:
        """Start a process; see `Agent.start`."""
        answer: Message = await self.call("start", self._owner["id"], facts, limit_s=limit_s)
        return answer

    async def release(self) -> None:
        """Tell the agent that this proxy is gone."""
        if self._actor is not None:
            await self._actor.release.remote(self._owner["id"])
