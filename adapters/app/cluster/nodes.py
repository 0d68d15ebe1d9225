"""The cluster of a configuration: its launcher, and its nodes in the memory of the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import anyio

from ....machine.errors import SwapchartError
from ....runtime import EngineError, Launcher, MemoryLedger, ServiceSpec, Supervisor
from ....runtime.ports import Node, NodeChanged, NodeDown, NodeEvent, NodeUp
from ...config import Config, ModelConfig
from ...process.port import http_probe
from .memory import NodeEstimate, node_pools

if TYPE_CHECKING:
    from ...ray.launcher import RayLauncher

_ESTIMATE_S = 10.0  # for the first estimates; later ones are made when the proxy serves
_LOOK_S = 5.0  # between two looks at what others have reserved


class EngineMissingError(SwapchartError):
    """The configuration asks for an engine that is not installed."""


def check_engine(config: Config) -> None:
    """Check that the engine of `cluster` is installed.

    Raises:
        EngineMissingError: It is not; the text says what to install.
    """
    if config.cluster is not None and find_spec("ray") is None:
        raise EngineMissingError(
            "`cluster: {engine: ray}` needs Ray, which is not installed: "
            "pip install 'swapchart[ray]'"
        )


def cluster_launcher(config: Config, local: Launcher, lease_s: float | None) -> RayLauncher | None:
    """Return the launcher of the nodes of *config*; None without `cluster`.

    Args:
        config: The configuration.
        local: Launcher of this machine.
        lease_s: Time in seconds that models may outlive the proxy; None means that none may.
    """
    cluster = config.cluster
    if cluster is None:
        return None
    from ...ray.launcher import RayLauncher  # 0.3 MB, and few proxies have a cluster

    return RayLauncher(
        local, _http_get, address=cluster.address, cluster=cluster.name, lease_s=lease_s or 0.0
    )


async def _http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    response = await http_probe.get(url, timeout_s=timeout_s)
    return response.status, response.detail


class NodeMemory(Protocol):
    """Memory of the supervisor, as far as nodes are concerned; see `MemorySetup`."""

    nodes: Sequence[Node]
    node_estimates: Callable[[ModelConfig], Mapping[str, NodeEstimate]]

    @property
    def ledger(self) -> MemoryLedger:
        """Claims of all models."""
        ...

    def configure(self, config: Config) -> None:
        """Apply the pools of the nodes."""
        ...

    def service(self, model: ModelConfig) -> ServiceSpec:
        """Return the service of *model*, with what it needs of memory."""
        ...


class ClusterNodes:
    """Keeps the memory pools of nodes, and what models need of them, up to date.

    Args:
        launcher: Launcher of the nodes.
        memory: Memory of the supervisor.
        config: Returns the configuration in force.
    """

    def __init__(
        self, launcher: RayLauncher, memory: NodeMemory, config: Callable[[], Config]
    ) -> None:
        from .estimates import NodeEstimates

        self._launcher, self._memory, self._config = launcher, memory, config
        self._estimates = NodeEstimates(launcher)
        memory.node_estimates = self._estimates.of
        self._nodes: dict[str, Node] = {}
        self._supervisor: Supervisor | None = None

    async def read(self) -> None:
        """Read the nodes that are there; before the services of the supervisor are made."""
        try:
            self._nodes = {node.name: node for node in await self._launcher.nodes()}
        except EngineError:
            self._nodes = {}  # the launcher has logged it
        self._memory.nodes = tuple(self._nodes.values())
        with anyio.move_on_after(_ESTIMATE_S):
            await self._make_estimates()

    async def _make_estimates(self) -> bool:
        """Make the estimates that are missing; return True if there is a new one."""
        config = self._config()
        if config.memory.mode == "off":
            return False
        return await self._estimates.make(config.models.values(), tuple(self._nodes.values()))

    def watch(self, supervisor: Supervisor) -> None:
        """Follow the nodes for *supervisor*."""
        self._supervisor = supervisor
        self._launcher.listen(self._on_event)

    async def run(self) -> None:
        """Look again and again at what others have reserved on the nodes; never returns."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                nodes = await self._launcher.nodes()
            except EngineError:
                continue  # the launcher has logged it
            self._nodes = {node.name: node for node in nodes}
            if await self._make_estimates():
                self._update()
            if self._take_foreign() and self._supervisor is not None:
                self._supervisor.review()

    def _take_foreign(self) -> bool:
        """Count what others have reserved as held by other programs; return True if it changed."""
        ledger = self._memory.ledger
        held = {name: ledger.held(name) for name in ledger.pools}
        has_changed = False
        for name, pool in node_pools(self._nodes.values(), held).items():
            known = ledger.pools.get(name)
            if known is not None and known.foreign != pool.foreign:
                ledger.begin_round()
                ledger.pools[name] = replace(known, foreign=pool.foreign)
                has_changed = True
        return has_changed

    def _on_event(self, event: NodeEvent) -> None:
        if not isinstance(event, (NodeUp, NodeDown, NodeChanged)):
            return
        self._nodes[event.node.name] = event.node
        if isinstance(event, NodeUp):
            self._estimates.forget(event.node.name)
        self._update()

    def _update(self) -> None:
        """Apply the nodes to the pools, and to what models need of them."""
        self._memory.nodes = tuple(self._nodes.values())
        supervisor, config = self._supervisor, self._config()
        if supervisor is None or config.memory.mode == "off":
            return
        self._memory.configure(config)
        for name, entry in supervisor.scheduler.services.items():
            model = config.models.get(name)
            if model is not None and model.nodes is not None:
                self._memory.ledger.adopt(entry, self._memory.service(model).memory)
        supervisor.review()
