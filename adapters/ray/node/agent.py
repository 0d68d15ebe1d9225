"""The resident actor of one node: starts processes there, and ends them when the proxy is gone.

The proxy's sidecar calls its methods; arguments and results are values of JSON. An error is a
mapping with ``error`` (``spec``, ``placement``, ``engine`` or ``busy``) and ``text``.

An agent belongs to one *owner*, the proxy that calls `hello`, for as long as that proxy polls. A
reservation is a placement group that the agent creates itself. Ray removes it when the agent or
its node dies, so none outlives both. When the owner is absent for longer than the lease of a
process, that process is ended; an agent without processes and owner exits.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from .child import Child, GuardServer
from .ending import carry_out
from .host import environment_of, exit_with, fill, free_port
from .leftovers import end_marked

PROTOCOL = 2
CLAIM_S = 6.0  # an owner that has not polled for this long is absent
ABSENCE_S = 30.0  # absence that a process with a shorter lease survives: a broken connection
LOG_PAUSE_S = 0.02  # output is collected this long before it is sent
PATIENCE_S = 15.0  # for the guards of an earlier agent, whose grace periods run
KILL_S = 10.0
LEAST_WAIT_S = 1.0  # Ray learns of what was given back on a node only a moment later


class Agent:
    """Agent of one node.

    Args:
        cluster: Name of the cluster's owner in configurations.
        node: Name of the node.
        node_id: Id that Ray gave it.
        address: Address at which processes of this node are reached.
        guard_source: Source text of ``tree_guard``.
    """

    def __init__(
        self, cluster: str, node: str, node_id: str, address: str, guard_source: str
    ) -> None:
        self._node, self._node_id, self._address = node, node_id, address
        self._place = {"SWAPCHART_CLUSTER": cluster, "SWAPCHART_NODE": node}
        self._self = {"SWAPCHART_AGENT": f"{os.getpid()}-{time.time_ns()}"}
        self._server = GuardServer(guard_source, {**self._place, **self._self})
        self._children: dict[str, Child] = {}
        self._owner: dict[str, Any] | None = None
        self._polled_at = time.monotonic()
        self._epoch = 0
        self._has_swept = False
        self._changed = asyncio.Event()
        self._log_timer: asyncio.TimerHandle | None = None
        self._environment: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._endings: dict[str, asyncio.Task[Any]] = {}
        self._is_watching = False
        threading.Thread(target=exit_with, args=(os.getppid(),), daemon=True).start()
        # An agent that was created for a proxy which is gone since must not stay.
        self._claim = threading.Timer(ABSENCE_S, os._exit, (0,))
        self._claim.daemon = True
        self._claim.start()

    # ---- owner
    async def hello(self, owner: dict[str, Any], takes_over: str) -> dict[str, Any]:
        """Make *owner* the owner, unless another one is present.

        Args:
            owner: ``id`` of the proxy, and where it runs.
            takes_over: Id of an owner that is known to be dead; empty if none is.
        """
        current = self._owner
        if current is not None and current["id"] != owner["id"]:
            age_s = time.monotonic() - self._polled_at
            if age_s < CLAIM_S and takes_over != current["id"]:
                return {"error": "busy", "text": "", "owner": current}
        if not self._has_swept:
            await asyncio.to_thread(
                end_marked, self._place, self._self, patience_s=PATIENCE_S, limit_s=KILL_S
            )
            self._has_swept = True
        self._polled_at = time.monotonic()
        while self._endings:  # a process that ends is not adopted
            await asyncio.wait(self._endings.values())
        is_other = self._owner is not None and self._owner["id"] not in (owner["id"], takes_over)
        if is_other and self._owner is not current:  # it came during the sweep
            return {"error": "busy", "text": "", "owner": self._owner}
        self._epoch += self._owner is None or self._owner["id"] != owner["id"]
        self._owner, self._polled_at = owner, time.monotonic()
        self._claim.cancel()
        if not self._is_watching:
            self._is_watching = True
            self._keep(self._watch_owner())
        return {
            "protocol": PROTOCOL, "node": self._node, "address": self._address,
            "processes": [c.describe() for c in self._children.values() if c.pid],
        }  # fmt: skip

    async def release(self, owner: str) -> None:
        """Note that the owner is gone: only what has a lease stays, for that time."""
        if self._owner is not None and self._owner["id"] == owner:
            self._owner, self._polled_at = None, time.monotonic()
            for child in self._children.values():
                if not child.facts["lease_s"]:
                    self._end(child)

    async def poll(self, owner: str, seen: dict[str, list[int]], wait_s: float) -> dict[str, Any]:
        """Return the processes that have changed; wait up to *wait_s* seconds for the first.

        Args:
            owner: Id of the owner.
            seen: Id of a process -> its version, and the bytes of output, that are known.
            wait_s: Longest time to wait.
        """
        deadline = time.monotonic() + wait_s
        while True:
            if self._owner is None or self._owner["id"] != owner:
                return {"error": "busy", "text": "", "owner": self._owner}
            self._polled_at = time.monotonic()
            self._changed.clear()
            reports = [
                report for child in self._children.values()
                if child.pid and (report := child.report(*seen.get(child.id, (0, 0))))
            ]  # fmt: skip
            left_s = deadline - time.monotonic()
            if reports or left_s <= 0:
                return {"changed": reports}
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                continue

    async def _watch_owner(self) -> None:
        """End what outlives its lease, and this agent when it has no purpose any more."""
        while True:
            await asyncio.sleep(1.0)
            absent_s = time.monotonic() - self._polled_at
            least_s = 0.0 if self._owner is None else ABSENCE_S  # it may be cut off
            for child in tuple(self._children.values()):
                if absent_s > max(child.facts["lease_s"], least_s):
                    self._end(child)
            if absent_s > ABSENCE_S and not self._children:
                os._exit(0)

    def _end(self, child: Child) -> asyncio.Task[Any] | None:
        """Begin to end a process whose proxy is gone, with its hooks.

        Returns:
            The task of that, also if it has begun before; None if it is being ended otherwise.
        """
        if not child.is_ending:
            child.is_ending = True
            task = self._endings[child.id] = self._keep(self._end_whole(child))
            task.add_done_callback(lambda _: self._endings.pop(child.id, None))
        return self._endings.get(child.id)

    async def _end_whole(self, child: Child) -> None:
        if child.ending is None:
            child.end(child.facts["grace_s"])
            await child.ended
        else:
            environment = {**self._base(), **self._place, **self._self}
            is_hurried = not child.facts["lease_s"]
            await carry_out(child, child.ending, self._server, environment, is_hurried=is_hurried)
        await self._drop(child)

    # ---- processes
    async def start(self, owner: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Reserve what a process takes, choose its port, and start it.

        Args:
            owner: Id of the owner.
            facts: ``id``, ``label``, ``incarnation``, ``argv``, ``env``, ``cwd``, ``gpus`` (numbers
                of its GPUs), ``reserve`` (amounts by resource of Ray), ``wait_s`` (for the
                reservation), ``grace_s``, ``lease_s``, ``is_hook``.
        """
        if self._owner is None or self._owner["id"] != owner:
            return {"error": "busy", "text": "this proxy no longer owns the node"}
        epoch = self._epoch
        kept = ("id", "label", "incarnation", "grace_s", "lease_s", "is_hook", "cwd", "gpus")
        child = Child({**{name: facts[name] for name in kept}, "port": 0}, self._report)
        self._children[child.id] = child
        problem: dict[str, Any] | None = None
        try:
            problem = await self._start(child, facts)
            is_owned = self._owner is not None and self._owner["id"] == owner
            if problem is None and not (is_owned and epoch == self._epoch):
                problem = {"error": "engine", "text": "the proxy was replaced meanwhile"}
        except OSError as error:
            problem = {"error": "engine", "text": f"{self._node}: {error.strerror or error}"}
        except BaseException as error:
            problem = {"error": "engine", "text": f"{self._node}: {error!r}"}
            if not isinstance(error, Exception):
                raise
        finally:
            if problem is not None:
                await self._drop(child)
        return child.describe() if problem is None else problem

    async def _start(self, child: Child, facts: dict[str, Any]) -> dict[str, Any] | None:
        if facts["reserve"]:
            child.reservation, why = await asyncio.to_thread(
                reserve, self._node_id, facts["reserve"], facts["wait_s"]
            )
            if child.reservation is None:
                return {"error": "placement", "text": f"{self._node}: {why}"}
        if child.is_ending or self._children.get(child.id) is not child:
            return {"error": "engine", "text": f"{self._node}: the start was given up"}
        port = 0 if facts["is_hook"] else self._free_port()
        child.facts.update(port=port, address=self._address, node=self._node)
        values = {"HOST": self._address, "PORT": str(port), "NODE": self._node}
        argv = [fill(item, values) for item in facts["argv"]]
        given = {name: fill(value, values) for name, value in facts["env"].items()}
        run = {**self._place, **self._self, "SWAPCHART_RUN": child.id}
        child.spawn(self._server, argv, {**self._base(), **given, **run})
        errno = await child.spawned
        if errno == 0:
            return None
        if errno == 255:
            return {"error": "engine", "text": f"{self._node}: its guard ended"}
        where = f"{argv[0]} on node {self._node}"
        return {"error": "spec", "text": f"{where}: {os.strerror(errno)}", "errno": errno}

    def _free_port(self) -> int:
        """Return a port that nothing listens at, and that no process was given that starts."""
        given = {child.facts["port"] for child in self._children.values()}
        while (port := free_port(self._address)) in given:
            continue
        return port

    async def order(self, id_: str, line: str) -> None:
        """Give the guard of a process an order: ``term``, ``kill`` or ``sweep SECONDS``."""
        child = self._children.get(id_)
        if child is not None:
            child.tell(line)

    async def remember(
        self, id_: str, memo: str, lease_s: float, ending: dict[str, Any] | None
    ) -> None:
        """Keep *memo* with a process for the next proxy, and let it outlive its own by a lease.

        If that lease is over, or without one, the process is ended as *ending* says.
        """
        child = self._children.get(id_)
        if child is not None:
            child.facts.update(memo=memo, lease_s=lease_s)
            child.ending = ending

    async def dismiss(self, id_: str) -> bool:
        """End a process with its hooks; return True if it had any, and they have run."""
        child = self._children.get(id_)
        if child is None:
            return False
        ending = self._end(child)
        if ending is not None:
            await asyncio.wait({ending})
        return child.ending is not None

    async def forget(self, id_: str) -> None:
        """Forget a process, and end it if it has not ended."""
        child = self._children.get(id_)
        if child is not None:
            await self._drop(child)

    async def ping(self) -> list[str]:
        """Return the ids of the processes whose leader runs."""
        return [c.id for c in self._children.values() if c.pid and c.code is None and not c.is_lost]

    async def apply(self, function: Any, arguments: list[Any]) -> Any:
        """Call a function in a thread, and return its result."""
        return await asyncio.to_thread(function, *arguments)

    async def end(self) -> None:
        """End all processes, and then the agent."""
        for child in tuple(self._children.values()):
            child.end(child.facts["grace_s"])
        for child in tuple(self._children.values()):
            await self._drop(child)
        os._exit(0)

    async def _drop(self, child: Child) -> None:
        if not child.ended.done() and child.pid:
            child.tell("kill")
            await child.ended
        self._children.pop(child.id, None)
        await self._free(child)
        child.close()

    async def _free(self, child: Child) -> None:
        held, child.reservation = child.reservation, None
        if held is not None:
            await asyncio.to_thread(free, held)

    def _base(self) -> dict[str, str]:
        """Return the environment with which Ray was started, without what Ray adds."""
        if not self._environment:
            self._environment = environment_of(os.getppid())
        return self._environment

    # ---- reports
    def _report(self, is_state: bool) -> None:
        if is_state:
            for child in self._children.values():
                if child.killed is not None and child.reservation is not None:
                    self._keep(self._free(child))
                if child.is_lost and not child.is_ending:
                    child.is_ending = True
                    self._keep(self._end_lost(child))
            self._changed.set()
        elif self._log_timer is None:
            loop = asyncio.get_running_loop()
            self._log_timer = loop.call_later(LOG_PAUSE_S, self._report_log)

    def _report_log(self) -> None:
        self._log_timer = None
        self._changed.set()

    async def _end_lost(self, child: Child) -> None:
        """End the tree of a process whose guard was killed."""
        run = {"SWAPCHART_RUN": child.id}
        await asyncio.to_thread(end_marked, run, {}, patience_s=0.0, limit_s=KILL_S)
        child.conclude()

    def _keep(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def reserve(node_id: str, amounts: dict[str, float], wait_s: float) -> tuple[Any, str]:
    """Reserve *amounts* on a node; return the placement group, or None and the reason."""
    from ray.util import placement_group, placement_group_table

    group = placement_group(
        [amounts], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": node_id}]
    )
    if group.wait(max(wait_s, LEAST_WAIT_S)):
        return group, ""
    state = placement_group_table(group).get("stats", {}).get("scheduling_state", "")
    free(group)
    wanted = ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items()))
    why = "it has less in all" if state == "INFEASIBLE" else "others hold it"
    return None, f"cannot reserve {wanted}: {why}"


def free(group: Any) -> None:
    """Give a reservation back."""
    from ray.util import remove_placement_group

    remove_placement_group(group)
