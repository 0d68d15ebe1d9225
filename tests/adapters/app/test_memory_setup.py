"""Pools and needs of memory, from the configuration and readings of a machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swapchart.adapters.app.memory_setup import (
    MemoryPools,
    MemorySetup,
    memory_need,
    memory_pools,
    memory_rules,
    used_pools,
)
from swapchart.adapters.app.service_setup import eviction_policy
from swapchart.adapters.config import Config, load_config
from swapchart.adapters.config.schema.memory import MemorySection
from swapchart.adapters.memory import Meter
from swapchart.adapters.memory.estimate import Estimate
from swapchart.adapters.memory.launches import Launch
from swapchart.runtime.memory import MemoryNeed, Pool, lru_cost
from swapchart.runtime.ports import PoolReading

GIB = 1 << 30
READINGS = (
    PoolReading(name="RAM", capacity=64 * GIB),
    PoolReading(name="GPU0", capacity=24 * GIB, device="GPU-aa"),
    PoolReading(name="GPU1", capacity=8 * GIB, device="GPU-bb"),
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a configuration with one model for each form of `memory`."""
    path = tmp_path / "config.yaml"
    path.write_text("""
memory:
  evict: lru
  unknown: refuse
  pools:
    big: {device: GPU-aa, limit: 50%}
    RAM: {reserve: 10%}
    NPU: {capacity: 16GiB}
models:
  plain: {cmd: "x --port ${PORT}", memory: 2GiB}
  pools: {cmd: "x --port ${PORT}", memory: {RAM: 25%, NPU: 1GiB, GPU7: 1GiB}}
  split: {cmd: "x --port ${PORT}", memory: {need: 9GiB, on: [big, GPU1], place: [any, all]}}
  auto: {cmd: "x --port ${PORT}"}
  free: {cmd: "x --port ${PORT}", memory: 0}
  by-env: {cmd: "x --port ${PORT}", memory: 1GiB, env: [CUDA_VISIBLE_DEVICES=1]}
  by-uuid: {cmd: "x --port ${PORT}", memory: 1GiB, env: [CUDA_VISIBLE_DEVICES=GPU-aa]}
  no-gpu: {cmd: "x --port ${PORT}", memory: 1GiB, env: ["CUDA_VISIBLE_DEVICES="]}
  by-option: {cmd: "x --port ${PORT} --device CUDA1", memory: 1GiB}
  main-gpu: {cmd: "x --port ${PORT} -sm none -mg 1", memory: 1GiB}
""")
    return load_config([path])


def test_memory_pools_take_names_limits_and_reserves_of_the_configuration(config: Config) -> None:
    found = memory_pools(config, READINGS)

    assert found.pools == {
        "RAM": Pool(name="RAM", capacity=64 * GIB, reserve=int(6.4 * GIB)),
        "big": Pool(name="big", capacity=24 * GIB, reserve=int(1.2 * GIB), limit=12 * GIB),
        "GPU1": Pool(name="GPU1", capacity=8 * GIB, reserve=512 << 20),
        "NPU": Pool(name="NPU", capacity=16 * GIB),
    }
    assert found.gpus == ("big", "GPU1")


def test_memory_pools_without_readings_are_those_with_a_capacity(config: Config) -> None:
    assert list(memory_pools(config, ()).pools) == ["NPU"]


def test_memory_needs_follow_the_forms_of_the_configuration(config: Config) -> None:
    found = memory_pools(config, READINGS)
    needs = {name: memory_need(model, found) for name, model in config.models.items()}

    assert [name for name, need in needs.items() if need is not None and need.sets_devices] == [
        "by-env", "by-uuid", "no-gpu", "by-option", "main-gpu",
    ]  # fmt: skip
    assert needs["plain"] == MemoryNeed(options=({"big": 2 * GIB}, {"GPU1": 2 * GIB}))
    assert needs["pools"] == MemoryNeed(options=({"RAM": 16 * GIB, "NPU": GIB},))
    assert needs["split"] == MemoryNeed(
        options=(
            {"big": 9 * GIB}, {"GPU1": 9 * GIB}, {"big": 9 * GIB // 2, "GPU1": 9 * GIB // 2},
        )
    )  # fmt: skip
    assert needs["auto"] == MemoryNeed(options=({"big": 0, "GPU1": 0},), source="unknown")
    assert needs["free"] is None
    assert [
        [*needs[name].options[0]]  # type: ignore[union-attr]
        for name in ("by-env", "by-uuid", "by-option", "main-gpu")
    ] == [["GPU1"], ["big"], ["GPU1"], ["GPU1"]]
    assert needs["no-gpu"] is not None
    assert needs["no-gpu"].options == ()


def test_used_pools_without_gpu_are_main_memory(config: Config) -> None:
    ram = MemoryPools(pools={"RAM": Pool(name="RAM", capacity=GIB)})
    assert used_pools(config.models["plain"], ram) == ["RAM"]
    assert used_pools(config.models["plain"], MemoryPools(pools={})) == []
    declared = MemoryPools(pools={"GPU0": Pool(name="GPU0", capacity=GIB)})
    assert used_pools(config.models["plain"], declared) == ["GPU0"]


def test_memory_rules_and_policy_follow_the_configuration(config: Config) -> None:
    rules = memory_rules(config)
    assert (rules.cost, rules.refuse_unknown) == (lru_cost, True)
    assert eviction_policy(config)("plain", frozenset({"plain", "auto"})) == frozenset()


def test_groups_stay_in_force_beside_memory(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
memory: auto
groups: {one: {members: [a, b]}}
models: {a: {cmd: "x --port ${PORT}"}, b: {cmd: "x --port ${PORT}"}}
""")
    policy = eviction_policy(load_config([path]))
    assert policy("a", frozenset({"b"})) == {"b"}


def test_memory_need_without_a_declaration_is_the_estimate_of_its_launch(config: Config) -> None:
    """Main memory beside GPUs counts only where it has a limit."""
    found = memory_pools(config, READINGS)
    estimate = Estimate(
        amounts={"GPU1": 5 * GIB, "RAM": GIB}, note="5 GiB files", files=4, advice="-c 2"
    )
    launch = Launch(key="k", estimate=estimate, is_elastic=True)
    need = memory_need(config.models["auto"], found, launch)

    assert need == MemoryNeed(
        options=({"GPU1": 5 * GIB},), source="estimated", key="k", estimated={"GPU1": 5 * GIB},
        note="5 GiB files", is_elastic=True, files=4, advice="-c 2",
    )  # fmt: skip
    ram = replace(found.pools["RAM"], limit=8 * GIB)
    scarce = MemoryPools(pools={**found.pools, "RAM": ram}, devices=found.devices)
    need = memory_need(config.models["auto"], scarce, launch)
    assert need is not None
    assert need.options == (estimate.amounts,)
    declared = memory_need(config.models["plain"], found, launch)
    assert declared is not None
    assert (declared.source, declared.key) == ("declared", "k")
    assert declared.options == ({"big": 2 * GIB}, {"GPU1": 2 * GIB})


def test_memory_pools_number_gpus_by_vendor_and_keep_every_gpu(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
memory: {pools: {GPU1: {device: GPU-aa}, GPU3: {capacity: 8GiB}}}
models: {m: {cmd: "x --port ${PORT}", memory: {need: 1GiB, on: GPU1}}}
""")
    readings = [
        PoolReading(name="GPU0", capacity=24 * GIB, device="GPU-aa", vendor="nvidia"),
        PoolReading(name="GPU1", capacity=16 * GIB, device="GPU-bb", vendor="nvidia"),
        PoolReading(name="GPU2", capacity=16 * GIB, device="GPU-cc", vendor="amd"),
        PoolReading(name="GPU3", capacity=0, device="0000:0c:00.0", vendor="intel"),
        PoolReading(name="GPU4", capacity=0, device="0000:0d:00.0", vendor="intel"),
    ]
    found = memory_pools(load_config([path]), readings)

    assert {name: pool.capacity // GIB for name, pool in found.pools.items()} == {
        "GPU1": 24, "GPU0": 16, "GPU2": 16, "GPU3": 8,
    }  # fmt: skip
    assert [(name, d.id, d.number, d.position) for name, d in found.devices.items()] == [
        ("GPU1", "GPU-aa", 0, 0), ("GPU0", "GPU-bb", 1, 1), ("GPU2", "GPU-cc", 0, 2),
        ("GPU3", "0000:0c:00.0", 0, 3),
    ]  # fmt: skip


def test_memory_pools_of_a_unified_machine_are_main_memory_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
memory: {pools: {GPU0: {limit: 20GiB}}}
models:
  amounts: {cmd: "x --port ${PORT}", memory: {GPU0: 12GiB, RAM: 4GiB}}
  on: {cmd: "x --port ${PORT}", memory: {need: 12GiB, on: [GPU0, RAM]}}
  plain: {cmd: "x --port ${PORT}", memory: 2GiB}
""")
    readings = [
        PoolReading(name="RAM", capacity=128 * GIB),
        PoolReading(name="GPU0", capacity=0, device="GPU-a", vendor="nvidia", part_of="RAM"),
    ]
    config = load_config([path])
    found = memory_pools(config, readings)
    needs = [memory_need(model, found) for model in config.models.values()]

    reserve = int(128 * GIB * 0.08)
    assert found.pools == {"RAM": Pool(name="RAM", capacity=128 * GIB, reserve=reserve)}
    assert found.devices == {}
    assert [need.options for need in needs if need is not None] == [
        ({"RAM": 16 * GIB},), ({"RAM": 12 * GIB},), ({"RAM": 2 * GIB},),
    ]  # fmt: skip


def test_memory_setup_reads_pools_of_commands(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
memory: {pools: {NPU: {capacity: 16GiB, check: "echo 1073741824"}}}
models: {m: {cmd: "x --port ${PORT}", memory: {NPU: 2GiB}}}
""")
    config, meter = load_config([path]), Meter([])
    setup = MemorySetup(meter)
    setup.configure(config)
    (reading,) = meter.read_blocking(())
    assert (reading.name, reading.used, reading.source) == ("NPU", 15 * GIB, "check")
    setup.configure(replace(config, memory=MemorySection(mode="off")))
    assert meter.read_blocking(()) == []


def test_memory_cost_of_eviction_is_that_of_the_matrix_unless_the_model_has_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
memory: {pools: {NPU: {capacity: 16GiB}}}
matrix: {vars: {v: a}, evict_costs: {v: 7, b: 3}, sets: {all: v & b}}
models:
  a: {cmd: "x --port ${PORT}", memory: {NPU: 1GiB}}
  b: {cmd: "x --port ${PORT}", memory: {need: 1GiB, on: [NPU], evictCost: 1}}
  c: {cmd: "x --port ${PORT}", memory: {NPU: 1GiB}}
""")
    config = load_config([path])
    setup = MemorySetup(Meter([]))
    setup.configure(config)
    needs = {name: setup.service(model).memory for name, model in config.models.items()}
    assert {name: need.weight for name, need in needs.items() if need is not None} == {
        "a": 7, "b": 1, "c": 1,
    }  # fmt: skip


def test_memory_setup_reads_the_sizes_that_servers_print() -> None:
    make = MemorySetup(Meter()).ledger.learning.sizes
    assert make is not None
    sizes = make()
    sizes.feed(b"fit: projected to use 1 MiB of device memory\n")
    assert sizes.amounts() == {"GPU": 513 << 20}
    assert make().amounts() == {}, "each start has a reader of its own"


@pytest.mark.parametrize(
    ("keys", "pools", "is_set"),
    [
        ("", ["RAM"], True),
        (", gpus: all", ["GPU0", "GPU1"], False),
        (", gpus: 1", ["GPU0"], True),
        (", gpus: [1]", ["GPU1"], True),
        (", gpus: [GPU-bb]", ["GPU1"], True),
        (", gpus: ['nvidia.com/gpu=1']", ["GPU0", "GPU1"], False),  # any name may be chosen for it
        (", devices: [/dev/kfd, /dev/dri]", ["GPU0", "GPU1"], False),
        (", options: [--gpus=all]", ["GPU0", "GPU1"], False),
        (", options: [--ipc, host]", ["RAM"], True),
    ],
)
def test_used_pools_of_a_container_are_the_gpus_that_it_is_given(
    tmp_path: Path, keys: str, pools: list[str], is_set: bool
) -> None:
    """Its GPUs are not those of the environment, and a container without one has none."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"memory: auto\nmodels:\n  m: {{memory: 1GiB, container: {{image: i, port: 80{keys}}}}}\n"
    )
    config = load_config([path])
    found = memory_pools(config, READINGS)
    need = memory_need(config.models["m"], found)

    assert used_pools(config.models["m"], found) == pools
    assert need is not None
    assert need.sets_devices == is_set
