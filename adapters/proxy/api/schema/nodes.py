"""Bodies that describe nodes: the machines on which models run."""

from __future__ import annotations

from .base import Body, Part
from .memory import MemoryPool


class NodeDevice(Part, kw_only=True):
    """A GPU of a node.

    Attributes:
        pool: Name of its memory pool on that node.
        id: UUID, or another stable id; empty if unknown.
        vendor: ``nvidia``, ``amd`` or ``intel``; empty if unknown.
        capacity: Size of its memory in bytes; 0 if unknown.
    """

    pool: str
    id: str
    vendor: str
    capacity: int


class NodeModel(Part, kw_only=True):
    """A model whose server runs on a node.

    Attributes:
        state: State in llama-swap's words.
        pid: Process id of the server on that node; null if it is not known.
        proxy: URL at which the server is reached.
        devices: Pools of the GPUs that it was given on that node; empty if unknown.
    """

    model: str
    state: str
    pid: int | None
    proxy: str
    devices: list[str]


class LostModel(Part, kw_only=True):
    """A model whose server was lost with its node, and may still run there."""

    model: str


class NodeState(Part, kw_only=True):
    """A machine on which models run.

    Attributes:
        address: Address at which the proxy reaches the servers there.
        own: The proxy itself runs there.
        alive: Its engine sees it.
        capacity: Resource -> amount: ``cpus``, bytes of memory pools, and others of the engine.
        free: The same for what is not granted; null means that it is unknown.
        labels: Label -> value, as set by its administrator.
        pools: Its memory pools, with ``memory:``.
        models: Models whose server runs there.
        lost: Models that may still run there: none of them is started there.
    """

    name: str
    address: str
    own: bool
    alive: bool
    capacity: dict[str, float]
    free: dict[str, float] | None
    labels: dict[str, str]
    devices: list[NodeDevice]
    pools: list[MemoryPool]
    models: list[NodeModel]
    lost: list[LostModel]


class FreedNode(Body, kw_only=True):
    """A node on which nothing that was lost runs any more.

    Attributes:
        models: Models that could still run there until now.
    """

    node: str
    models: list[LostModel]


class Nodes(Body, kw_only=True):
    """All nodes; without a cluster that is this machine.

    Attributes:
        engines_down: Launcher -> why its engine does not respond: nothing is started by it, and
            what runs goes on.
    """

    nodes: list[NodeState]
    engines_down: dict[str, str]
