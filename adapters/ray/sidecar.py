"""Sidecar: the process of a proxy that is a driver of Ray.

It runs as ``python -m swapchart.adapters.ray.sidecar``.

A driver in the proxy itself would end the proxy: when the head of a cluster is gone for 60 s, Ray
ends the processes of its drivers. This process reads requests from its standard input and writes
responses and events to its standard output (see ``messages``); its first request is ``open``. It
ends with the proxy, whose end it sees as that of its input.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray

from .agent_link import AgentLink, LinkError, ship, ship_code
from .messages import LineBuffer, Message, encode
from .owner import is_dead

_LOOK_S = 1.0  # between two looks at the nodes
_SILENT_S = 5.0  # without a response of the head, the engine counts as down after this time
_CONNECT_S = 3.0
_RELEASE_S = 15.0  # a proxy that ends by itself does not wait as long, and kills this process


class Sidecar:
    """All nodes of one cluster, for one proxy."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._links: dict[str, AgentLink] = {}
        self._cluster, self._owner = "", dict[str, Any]()
        self._own_node = ""
        self._is_down = False
        self._is_alone = False  # the proxy reads no more
        self._tasks: set[asyncio.Task[Any]] = set()

    def emit(self, message: Message) -> None:
        """Send an event or a response to the proxy."""
        if self._is_alone:
            return
        try:
            self._output.write(encode(message))
            self._output.flush()
        except BrokenPipeError:  # the input ends too, and then the agents have to know of it
            self._is_alone = True

    async def run(self) -> None:
        """Serve until the input ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await loop.connect_read_pipe(lambda: protocol, os.fdopen(0, "rb"))
        buffer = LineBuffer()
        while data := await reader.read(1 << 16):
            for message in buffer.feed(data):
                self._keep(self._serve(message))
        await self._release()

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Message) -> None:
        method = getattr(self, f"do_{message['do']}")
        try:
            response = {"result": await method(message)}
        except LinkError as error:
            response = {"error": error.kind, "text": str(error)}
        except Exception as error:  # noqa: BLE001  (whatever Ray raises is the engine's failure)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            response = {"error": "engine", "text": lines[0]}
        if "n" in message:
            self.emit({"n": message["n"], **response})

    async def _release(self) -> None:
        """Tell the agents that the proxy is gone."""
        calls = [link.release() for link in self._links.values() if link.is_up]
        if calls:
            gathered = asyncio.gather(*calls, return_exceptions=True)
            await asyncio.wait({gathered}, timeout=_RELEASE_S)
        os._exit(0)  # `ray.shutdown` takes a second, and has nothing to add

    # ---- requests
    async def do_open(self, message: Message) -> Message:
        """Connect to the cluster; begins to watch its nodes."""
        address = message["address"]
        self._cluster, self._owner = message["cluster"], message["owner"]
        if ":" in address:
            await asyncio.to_thread(_check_reachable, address)
        await asyncio.to_thread(
            ray.init, address, namespace=f"swapchart:{self._cluster}", log_to_driver=False,
            logging_level=logging.ERROR, configure_logging=False,
        )  # fmt: skip
        ship_code()
        self._own_node = ray.get_runtime_context().get_node_id()
        nodes = await asyncio.to_thread(ray.nodes)
        self._update(nodes)
        self._keep(self._watch())
        return {"nodes": [node["NodeID"] for node in nodes if node["Alive"]]}

    async def do_start(self, message: Message) -> Message:
        """Start a process on a node; see `Agent.start`."""
        link = self._link(message["node"])
        return await link.start(message["facts"], message.get("limit_s"))

    async def do_order(self, message: Message) -> None:
        """Give the guard of a process an order; see `Agent.order`."""
        await self._link(message["node"]).call("order", message["id"], message["line"])

    async def do_remember(self, message: Message) -> None:
        """Keep facts with a process; see `Agent.remember`."""
        link = self._link(message["node"])
        facts = (message["memo"], message["lease_s"], message["ending"])
        await link.call("remember", message["id"], *facts)

    async def do_dismiss(self, message: Message) -> bool:
        """End a process with its hooks; see `Agent.dismiss`."""
        link = self._link(message["node"])
        return bool(await link.call("dismiss", message["id"]))

    async def do_forget(self, message: Message) -> None:
        """Forget a process."""
        await self._link(message["node"]).forget(message["id"])

    async def do_ping(self, message: Message) -> list[str]:
        """Return the ids of the processes that run on a node."""
        ids: list[str] = await self._link(message["node"]).call("ping", limit_s=message["limit_s"])
        return ids

    async def do_apply(self, message: Message) -> Any:
        """Call a function on a node, to which the code of *modules* is sent."""
        for name in message["modules"]:
            ship(importlib.import_module(name))
        function = getattr(importlib.import_module(message["modules"][0]), message["function"])
        link = self._link(message["node"])
        return await link.call("apply", function, message["arguments"], limit_s=message["limit_s"])

    async def do_free(self, message: Message) -> Message:
        """Return what is free, by id of the node."""
        del message
        free = await asyncio.to_thread(ray._private.state.available_resources_per_node)
        return {node_id: _plain(amounts) for node_id, amounts in free.items()}

    def _link(self, node_id: str) -> AgentLink:
        link = self._links.get(node_id)
        if link is None:
            raise LinkError("engine", "the node has left the cluster")
        return link

    # ---- nodes
    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            look = asyncio.get_running_loop().create_task(asyncio.to_thread(ray.nodes))
            await asyncio.wait({look}, timeout=_SILENT_S)
            if not look.done():
                self._set_down("the head of the cluster does not respond")
            try:
                nodes = await look
            except Exception as error:  # noqa: BLE001  (as above)
                self._set_down(str(error))
                continue
            self._update(nodes)
            if self._is_down:
                self._is_down = False
                self.emit({"event": "engine", "state": "up"})

    def _set_down(self, why: str) -> None:
        if not self._is_down:
            self._is_down = True
            self.emit({"event": "engine", "state": "down", "why": why})

    def _update(self, nodes: list[dict[str, Any]]) -> None:
        alive = {node["NodeID"]: node for node in nodes if node["Alive"]}
        for node_id, link in tuple(self._links.items()):
            if node_id not in alive:
                del self._links[node_id]
                if link.task is not None:
                    link.task.cancel()
                self.emit({"event": "node", "state": "down", "node": link.node, "why": "it died"})
        for node_id, node in alive.items():
            known = self._links.get(node_id)
            facts = {
                "id": node_id, "name": _name_of(node, nodes),
                "address": node["NodeManagerAddress"], "resources": _plain(node["Resources"]),
                "labels": node.get("Labels", {}), "is_own": node_id == self._own_node,
            }  # fmt: skip
            if known is None:
                link = AgentLink(self._cluster, self._owner, facts, self.emit, is_dead)
                self._links[node_id] = link
                link.task = asyncio.get_running_loop().create_task(link.run())
            elif facts != known.node:
                known.node = facts
                self.emit({"event": "node", "state": "changed", "node": facts})


def _name_of(node: Mapping[str, Any], nodes: list[dict[str, Any]]) -> str:
    """Return the name that was given to a node, else its host name, else its address."""
    given, address = str(node.get("NodeName") or ""), str(node["NodeManagerAddress"])
    if given and given != address:
        return given
    host = str(node["NodeManagerHostname"])
    alike = [n for n in nodes if n["Alive"] and n["NodeManagerHostname"] == host]
    return host if len(alike) == 1 else address


def _plain(resources: Mapping[str, float]) -> dict[str, float]:
    """Return resources without those that Ray makes for itself."""
    return {
        name: amount for name, amount in resources.items()
        if not name.startswith(("node:", "bundle_group_")) and "_group_" not in name
        and name != "object_store_memory"
    }  # fmt: skip


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise LinkError("engine", f"no Ray cluster responds at {address}: {why}") from error


def main() -> None:
    """Run the sidecar."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Ray prints to it
    asyncio.run(Sidecar(output).run())


if __name__ == "__main__":
    main()
