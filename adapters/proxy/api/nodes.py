"""Route for the nodes: the machines on which models run, and what runs there."""

from __future__ import annotations

from collections.abc import Sequence

from ....runtime import EngineError, Lifecycle, Node
from ....runtime.lost_claims import node_of
from ....runtime.ports import NodeProcess
from ...system import threads
from ..context import ProxyContext
from ..models.public_state import public_state
from ..monitoring.hardware import HardwareProbe
from ..request import Request
from .handler import ApiHandler
from .host import memory_view
from .schema.memory import MemoryPool
from .schema.nodes import FreedNode, LostModel, NodeDevice, NodeModel, Nodes, NodeState


@ApiHandler
async def nodes(proxy: ProxyContext, request: Request) -> Nodes:
    """Return the nodes with their devices, and what runs there."""
    view = proxy.view(request.access)
    found = await nodes_view(proxy)
    for node in found.nodes:
        node.models, node.lost = view.rows(node.models), view.rows(node.lost)
    return found


@ApiHandler
async def free(proxy: ProxyContext, request: Request) -> FreedNode:
    """Take the administrator's word that nothing runs on a lost node any more."""
    watch, name = proxy.supervisor.nodes, request.path_suffix
    models = sorted(watch.lost.get(name, ()))
    watch.free(name)
    return FreedNode(node=name, models=[LostModel(model=model) for model in models])


async def nodes_view(proxy: ProxyContext) -> Nodes:
    """Return the nodes with all models."""
    watch = proxy.supervisor.nodes
    pools = memory_view(proxy).pools
    rows = []
    for node in await known_nodes(proxy):
        devices, capacity = _devices(node), dict(node.capacity)
        if node.is_own and not devices:
            devices, more = await _own_devices(proxy, pools)
            capacity = {**more, **capacity}
        rows.append(
            NodeState(
                name=node.name, address=node.address, own=node.is_own, alive=node.is_alive,
                capacity=capacity, free=None if node.free is None else dict(node.free),
                labels=dict(node.labels), devices=devices,
                pools=[p for p in pools if node_of(p.name) == ("" if node.is_own else node.name)],
                models=[_model(life) for life in models_on(proxy, node)],
                lost=[LostModel(model=name) for name in sorted(watch.lost.get(node.name, ()))],
            )
        )  # fmt: skip
    return Nodes(nodes=rows, engines_down=dict(watch.engines_down))


async def known_nodes(proxy: ProxyContext) -> Sequence[Node]:
    """Return the nodes of the launcher; none while its only engine does not respond."""
    try:
        return await proxy.supervisor.nodes.nodes()
    except EngineError:
        return ()


def models_on(proxy: ProxyContext, node: Node) -> list[Lifecycle]:
    """Return the lifecycles whose process runs on *node*, sorted by name."""
    names = {node.name, ""} if node.is_own else {node.name}
    found = [
        life for life in proxy.supervisor.lifecycles()
        if life.process is not None and life.node in names
    ]  # fmt: skip
    return sorted(found, key=lambda life: life.spec.name)


def _model(life: Lifecycle) -> NodeModel:
    process = life.process
    devices = process.devices if isinstance(process, NodeProcess) else ()
    return NodeModel(
        model=life.spec.name, state=public_state(life), proxy=life.endpoint, devices=[*devices],
        pid=None if process is None else process.pid or None,
    )  # fmt: skip


def _devices(node: Node) -> list[NodeDevice]:
    return [
        NodeDevice(pool=each.pool, id=each.id, vendor=each.vendor, capacity=each.capacity)
        for each in node.devices
    ]


async def _own_devices(
    proxy: ProxyContext, pools: Sequence[MemoryPool]
) -> tuple[list[NodeDevice], dict[str, float]]:
    """Return the GPUs of this machine, and its memory: from the meter, or as detected."""
    ledger = proxy.supervisor.scheduler.memory
    own = {pool.name: pool.capacity for pool in pools if not node_of(pool.name)}
    if ledger is not None and own:
        devices = [
            NodeDevice(pool=pool, id=each.id, vendor=each.vendor, capacity=own.get(pool, 0))
            for pool, each in ledger.devices.items()
        ]
        return devices, dict(own)
    accounting = proxy.accounting
    if accounting.hardware is None:
        accounting.hardware = await threads.run(HardwareProbe().detect)
    hardware = accounting.hardware
    devices = [
        NodeDevice(
            pool=f"GPU{each['index']}", id="", vendor=each["vendor"].lower(),
            capacity=each["memory"]["capacity_bytes"] or 0,
        )
        for each in hardware["accelerators"]
    ]  # fmt: skip
    memory = hardware["memory"]["capacity_bytes"]
    return devices, {} if memory is None else {"RAM": float(memory)}
