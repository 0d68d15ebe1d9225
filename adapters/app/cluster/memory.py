"""Memory pools of the nodes of a cluster, and what models need of them.

A pool of a node is named ``NODE/POOL``, such as ``box1/GPU0``. It is as large as the node declares,
and what others have reserved there counts as held by other programs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from ....dataclass import dataclass
from ....runtime.memory import Amounts, MemoryNeed, Pool
from ....runtime.ports import Node
from ...config import ModelConfig
from ...config.schema.memory import ModelMemory
from ...config.values import NodeChoice

RAM = "RAM"
_GPU = re.compile(r"GPU(\d+)")
_MOST_CHOICES = 64  # sets of GPUs of one node


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEstimate:
    """Estimate of a model on one node.

    Attributes:
        places: Bytes by pool of the node, for each set of GPUs that would do; empty if unknown.
        note: Parts of the sum in words.
        files: Bytes of the files of the model; 0 means unknown.
        advice: Change of the command that saves memory, in words; empty if none is known.
    """

    places: tuple[Mapping[str, int], ...] = ()
    note: str = ""
    files: int = 0
    advice: str = ""


def node_pools(nodes: Iterable[Node], held: Mapping[str, int]) -> dict[str, Pool]:
    """Return the pools of *nodes* that are alive.

    Args:
        nodes: All nodes.
        held: Bytes by pool that models of this proxy hold; the rest of what a node does not have
            free was reserved by others.
    """
    pools: dict[str, Pool] = {}
    for node in nodes:
        if not node.is_alive:
            continue
        for name in _pools_of(node):
            pool, capacity = f"{node.name}/{name}", int(node.capacity[name])
            free = capacity if node.free is None else int(node.free.get(name, 0))
            foreign = max(capacity - free - held.get(pool, 0), 0)
            pools[pool] = Pool(name=pool, capacity=capacity, foreign=foreign)
    return pools


def is_declared(model: ModelConfig) -> bool:
    """Return True if the configuration says what *model* takes of the memory of a node."""
    memory = model.memory
    has_gpus = model.nodes is not None and bool(model.nodes.gpus)
    return bool(memory.is_free or memory.pools or memory.need is not None or has_gpus)


def cluster_need(
    model: ModelConfig, nodes: Sequence[Node],
    estimates: Mapping[str, NodeEstimate] = MappingProxyType({}),
) -> MemoryNeed | None:  # fmt: skip
    """Return what *model* needs of the pools of *nodes*; None if memory is no condition for it.

    Its places are those on all nodes that it may run on, the preferred nodes first.

    Args:
        model: The model.
        nodes: All nodes.
        estimates: Estimates by node, for a model whose amounts are not declared. Where there are
            some, it runs only there, since its files cannot be read on the others.
    """
    memory, choice = model.memory, model.nodes or NodeChoice()
    if memory.is_free and not choice.gpus:
        return None
    allowed = [node for node in nodes if is_allowed(choice, node)]
    if not memory.pools and not memory.on:  # RAM counts where no node has a GPU
        with_gpus = [node for node in allowed if _pools_of(node)[:1] not in ([], [RAM])]
        allowed = with_gpus or allowed
    if choice.names:
        allowed.sort(key=lambda node: choice.names.index(node.name))
    is_known = is_declared(model)
    estimated = [node for node in allowed if node.name in estimates and estimates[node.name].places]
    if estimated and not is_known:
        first = estimates[estimated[0].name]
        return MemoryNeed(
            options=tuple(
                place for node in estimated for place in _estimated(memory, node, estimates)
            ),
            source="estimated", weight=memory.evict_cost, sets_devices=True, note=first.note,
            files=first.files, advice=first.advice,
        )  # fmt: skip
    places = [
        place for node in allowed for place in _places(memory, choice.gpus, node, is_known=is_known)
    ]
    return MemoryNeed(
        options=tuple(places), source="declared" if is_known else "unknown",
        weight=memory.evict_cost, sets_devices=True,
    )  # fmt: skip


def _estimated(
    memory: ModelMemory, node: Node, estimates: Mapping[str, NodeEstimate]
) -> list[Amounts]:
    """Return the places on one node by the estimate there; RAM counts only where no GPU does."""
    known = [*gpus_of(node), RAM]
    places: list[Amounts] = []
    for place in estimates[node.name].places:
        amounts = {name: n for name, n in place.items() if name in known}
        if len(amounts) > 1:
            amounts.pop(RAM, None)
        if amounts and (not memory.on or amounts.keys() <= {*memory.on}):
            places.append({f"{node.name}/{name}": n for name, n in amounts.items()})
    return places


def is_allowed(choice: NodeChoice, node: Node) -> bool:
    """Return True if a model with *choice* may run on *node*, which is alive."""
    if not node.is_alive or (choice.names and node.name not in choice.names):
        return False
    return all(node.labels.get(name) == value for name, value in choice.labels.items())


def _places(memory: ModelMemory, count: int, node: Node, *, is_known: bool) -> list[Amounts]:
    """Return the places of a model on one node, as bytes by pool; *count* is that of its GPUs."""
    capacity = {name: int(node.capacity[name]) for name in _pools_of(node)}
    gpus = [name for name in capacity if name != RAM]
    places: list[dict[str, int]]
    if count:  # whole ones, whatever it takes of them
        chosen = itertools.islice(itertools.combinations(gpus, count), _MOST_CHOICES)
        places = [{name: capacity[name] for name in group} for group in chosen]
        for place in places:
            if RAM in memory.pools:
                place[RAM] = memory.pools[RAM].of(capacity.get(RAM, 0))
    elif memory.pools:
        sizes = {n: size.of(capacity[n]) for n, size in memory.pools.items() if n in capacity}
        places = [sizes] if len(sizes) == len(memory.pools) else []
    else:
        where = [name for name in memory.on if name in capacity] or gpus or [RAM]
        if not is_known:
            places = [dict.fromkeys(where, 0)]
        elif memory.need is not None:
            places = []
            for way in memory.place:
                if way == "any":
                    places += [{name: memory.need.of(capacity[name])} for name in where]
                else:
                    total = memory.need.of(sum(capacity[name] for name in where))
                    share, rest = divmod(total, len(where))
                    places.append({name: share + (i < rest) for i, name in enumerate(where)})
    return [{f"{node.name}/{name}": n for name, n in place.items()} for place in places]


def gpus_of(node: Node) -> list[str]:
    """Return the pools of the GPUs of *node*, by number."""
    numbers = sorted(int(m[1]) for name in node.capacity if (m := _GPU.fullmatch(name)))
    return [f"GPU{number}" for number in numbers]


def _pools_of(node: Node) -> list[str]:
    """Return the memory pools of *node*: its GPUs by number, and RAM."""
    return gpus_of(node) + [RAM] * (RAM in node.capacity)
