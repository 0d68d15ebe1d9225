"""Memory pools of nodes, and the places of models on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swapchart.adapters.app.cluster.memory import NodeEstimate, cluster_need, node_pools
from swapchart.adapters.config import load_config
from swapchart.runtime.ports import Node

GIB = 1 << 30


def node(name: str, *gpus: int, ram: int = 64, **more: Any) -> Node:
    capacity = {f"GPU{i}": float(size * GIB) for i, size in enumerate(gpus)}
    return Node(name=name, address="10.0.0.1", capacity={**capacity, "RAM": ram * GIB}, **more)


NODES = [node("a"), node("b", 24, labels={"weights": "all"}), node("c", 24, 48)]


def test_estimates_are_places_on_nodes_that_have_them(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "cluster: {engine: ray}\nmemory: auto\nmodels:\n"
        '  m: {cmd: "s --host ${HOST} --port ${PORT}", nodes: [c, b]}\n'
        '  n: {cmd: "s --host ${HOST} --port ${PORT}", nodes: any, memory: 3GiB}\n'
    )
    models = load_config([path]).models
    both = {"GPU0": GIB, "GPU1": GIB}
    estimates = {
        "b": NodeEstimate(),  # it has no files
        "c": NodeEstimate(places=({"GPU0": 2 * GIB, "RAM": GIB}, {"GPU1": 2 * GIB}, both), files=9),
    }
    need = cluster_need(models["m"], NODES, estimates)

    assert need is not None
    assert (need.source, need.files) == ("estimated", 9)
    assert list(need.options) == [
        {"c/GPU0": 2 * GIB}, {"c/GPU1": 2 * GIB}, {"c/GPU0": GIB, "c/GPU1": GIB},
    ]  # fmt: skip
    unknown = cluster_need(models["m"], NODES, {"b": NodeEstimate()})
    assert unknown is not None
    assert unknown.source == "unknown"
    declared = cluster_need(models["n"], NODES, estimates)
    assert declared is not None
    assert declared.source == "declared"


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        ("memory: 20GiB", ["b/GPU0=20", "c/GPU0=20", "c/GPU1=20"]),
        ("memory: 20GiB, nodes: [c, b]", ["c/GPU0=20", "c/GPU1=20", "b/GPU0=20"]),
        ("memory: 20GiB, nodes: a", ["a/RAM=20"]),
        ("memory: 20GiB, labels: {weights: all}", ["b/GPU0=20"]),
        ("memory: {GPU1: 30GiB, RAM: 6GiB}", ["c/GPU1=30 c/RAM=6"]),
        ("memory: {need: 40GiB, place: all}", ["b/GPU0=40", "c/GPU0=20 c/GPU1=20"]),
        ("gpus: 1", ["b/GPU0=24", "c/GPU0=24", "c/GPU1=48"]),
        ("gpus: 2", ["c/GPU0=24 c/GPU1=48"]),
        ("gpus: 3", []),
        ("memory: 50%, nodes: c", ["c/GPU0=12", "c/GPU1=24"]),
        ("nodes: b", ["b/GPU0=0"]),  # nothing is known of it: it starts alone there
        ("labels: {weights: none}", []),
    ],
)
def test_places_of_a_model_are_those_of_the_nodes_it_may_run_on(
    tmp_path: Path, keys: str, places: list[str]
) -> None:
    nodes = "" if "nodes" in keys else "nodes: any, "
    path = tmp_path / "config.yaml"
    path.write_text(
        "cluster: {engine: ray}\nmemory: auto\nmodels:\n"
        f'  m: {{cmd: "s --host ${{HOST}} --port ${{PORT}}", {nodes}{keys}}}\n'
    )
    config = load_config([path])
    need = cluster_need(config.models["m"], NODES)

    assert need is not None
    assert [
        " ".join(f"{pool}={amount / GIB:g}" for pool, amount in place.items())
        for place in need.options
    ] == places


def test_pools_without_those_of_dead_nodes_count_what_others_reserved() -> None:
    busy = node("b", 24, free={"GPU0": 10.0 * GIB, "RAM": 64.0 * GIB})
    pools = node_pools([busy, node("c", 24, is_alive=False)], {"b/GPU0": 8 * GIB})

    assert set(pools) == {"b/GPU0", "b/RAM"}
    assert pools["b/GPU0"].capacity == 24 * GIB
    assert pools["b/GPU0"].foreign == 6 * GIB
