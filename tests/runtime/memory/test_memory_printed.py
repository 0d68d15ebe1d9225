"""Learning from the sizes that servers print, where the driver does not tell processes apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import anyio
import pytest

from swapchart.runtime.errors import LaunchError, RequestError
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.memory import MemoryNeed, Pool, Rules
from swapchart.runtime.placement import Device, pools_of
from swapchart.runtime.ports import Exit
from swapchart.runtime.start_output import StartOutput
from swapchart.runtime.testing import ServerScript, service

from .cases import GIB
from .test_memory_learning import LearningWorld

GPU0 = Device(id="GPU-a", vendor="nvidia")
GPU1 = Device(id="GPU-b", vendor="nvidia", number=1, position=1)
GPU2 = Device(id="c", vendor="amd", number=0, position=2)
THREE = {"GPU0": GPU0, "GPU1": GPU1, "GPU2": GPU2}


#: Seconds after the spawn, and what is printed then.
Output: TypeAlias = tuple[tuple[float, bytes], ...]


class Sizes:
    """Reads ``DEVICE=GIB`` from each line; the last of a device counts."""

    def __init__(self) -> None:
        self.text = b""

    def feed(self, data: bytes) -> None:
        self.text += data

    def amounts(self) -> Mapping[str, int]:
        pairs = [line.split("=") for line in self.text.decode().splitlines() if "=" in line]
        return {name: int(float(gib) * GIB) for name, gib in pairs}


class PrintingWorld(LearningWorld):
    """A world of servers that print sizes, and of a driver that tells no processes apart."""

    def __init__(
        self, needs: dict[str, float], held: dict[str, float], output: dict[str, bytes | Output],
        devices: dict[str, Device] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(needs, held)
        for name, text in output.items():
            self.launcher.servers[name] = ServerScript(
                healthy_s=3.0, output=((0.5, text),) if isinstance(text, bytes) else text
            )
        pools = [Pool(name=name, capacity=24 * GIB) for name in devices or {"GPU0": GPU0}]
        self.ledger.configure(pools, Rules(), {"GPU0": GPU0} if devices is None else devices)
        self.ledger.learning.sizes = Sizes
        self.meter.is_told_apart = False

    def learned(self) -> list[tuple[str, str, str, float]]:
        return [(o.model, o.pool, o.method, o.highest / GIB) for o in self.stored]

    def noted(self) -> dict[str, int]:
        """Return the bytes by pool that the first run of ``u`` has printed."""
        run, amounts = self.ledger.learning._printed["u"]
        assert run == 1
        return dict(amounts)

    def log(self, name: str) -> LogRing:
        return self.supervisor[name].log


def test_memory_printed_sizes_count_before_the_difference_of_the_pool() -> None:
    world = PrintingWorld({"u": 0}, {"u": 7}, {"u": b"CUDA0=3\nCUDA0=6\n"})

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await anyio.sleep(12.0)
        assert not world.log("u")._readers, "nothing is read once it is ready"
        await world.supervisor.unload("u")
        assert world.need("u").options == ({"GPU0": 6 * GIB + int(6 * GIB * 0.08)},)

    world.run(scenario)
    assert world.learned() == [("u", "GPU0", "log", 6.0)]


def test_memory_printed_sizes_of_starts_that_overlap_are_learned() -> None:
    """By difference neither would be."""
    world = PrintingWorld(
        {"a": 5, "b": 5}, {}, {"a": b"CUDA0=4\n", "b": b"CUDA0=3\n"}
    )  # fmt: skip

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(world.supervisor.load, name)
        await anyio.sleep(12.0)

    world.run(scenario)
    assert sorted(world.learned()) == [("a", "GPU0", "log", 4.0), ("b", "GPU0", "log", 3.0)]


def test_memory_printed_sizes_do_not_count_where_the_driver_tells_processes_apart() -> None:
    world = PrintingWorld({"u": 0}, {"u": 7}, {"u": b"CUDA0=6\n"})
    world.meter.is_told_apart = True

    async def scenario() -> None:
        await world.supervisor.load("u")
        await anyio.sleep(12.0)

    world.run(scenario)
    assert world.learned() == [("u", "GPU0", "process", 7.0)]


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"CUDA0=25\n",  # more than the GPU has
        b"CUDA1=6\n",
        b"OpenCL=6\n",
        ((4.0, b"CUDA0=6\n"),),  # when a user may write
        ((0.5, b"x" * (4 << 20)), (1.0, b"CUDA0=6\n")),
    ],
    ids=["none", "too much", "another GPU", "unknown device", "after the start", "beyond 4 MiB"],
)
def test_memory_printed_sizes_in_doubt_leave_the_difference(output: bytes | Output) -> None:
    world = PrintingWorld({"u": 0}, {"u": 7}, {"u": output})

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await anyio.sleep(12.0)

    world.run(scenario)
    assert world.learned() == [("u", "GPU0", "delta", 7.0)]


def test_memory_printed_sizes_of_an_earlier_run_do_not_count() -> None:
    world = PrintingWorld({"u": 0}, {"u": 7}, {"u": b"CUDA0=6\n"})

    async def scenario() -> None:
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await anyio.sleep(6.0)
        await world.supervisor.unload("u")
        world.launcher.servers["u"] = ServerScript(healthy_s=3.0)
        await anyio.sleep(6.0)
        await world.supervisor.load("u")
        await anyio.sleep(12.0)

    world.run(scenario)
    assert world.learned() == [("u", "GPU0", "log", 6.0), ("u", "GPU0", "delta", 7.0)]


async def fail_to_load(world: PrintingWorld) -> None:
    with pytest.raises(RequestError):
        await world.supervisor.load("u")


def test_memory_printed_output_is_left_when_a_start_fails() -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\n"})

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_to_load, world)
            await anyio.sleep(1.0)
            assert len(world.log("u")._readers) == 1
            world.launcher.crash("u", Exit(code=1))
        assert not world.log("u")._readers
        world.launcher.servers["u"] = ServerScript(error=LaunchError("no such file"))
        await fail_to_load(world)
        assert not world.log("u")._readers

    world.run(scenario)
    assert world.stored == []


def test_memory_printed_output_is_left_when_a_start_is_stopped() -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\n"})

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_to_load, world)
            await anyio.sleep(1.0)
            await world.supervisor.unload("u")
        assert not world.log("u")._readers

    world.run(scenario)


def test_memory_printed_sizes_are_not_read_without_a_need() -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\n"})
    world.specs = [service("u", endpoint="http://127.0.0.1:5801")]

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.load, "u")
            await anyio.sleep(1.0)
            assert not world.log("u")._readers

    world.run(scenario)


@pytest.mark.parametrize(
    ("place", "need", "output", "learned"),
    [
        # It sees one GPU, which it calls the first one.
        ("GPU1", {}, b"CUDA0=6\n", [("GPU1", 6.0)]),
        ("GPU2", {}, b"ROCm0=6\n", [("GPU2", 6.0)]),
        ("GPU2", {}, b"Vulkan0=6\n", [("GPU2", 6.0)]),
        ("GPU0 GPU1", {}, b"CUDA0=6\nCUDA1=5\n", [("GPU0", 6.0), ("GPU1", 5.0)]),
        ("GPU0 GPU1 GPU2", {}, b"Vulkan0=6\nVulkan2=5\n", [("GPU0", 6.0), ("GPU2", 5.0)]),
        # Its command says one GPU, by a variable or by an option.
        ("GPU1", {"sets_devices": True}, b"CUDA0=6\n", [("GPU1", 6.0)]),
        ("GPU1", {"sets_devices": True}, b"CUDA1=6\n", [("GPU1", 6.0)]),
        ("GPU1", {"sets_devices": True}, b"GPU=6\n", [("GPU1", 6.0)]),
        # In which order its command says two is not known.
        ("GPU0 GPU1", {"sets_devices": True}, b"CUDA0=6\nCUDA1=5\n", []),
        ("GPU0 GPU1", {}, b"GPU=6\n", []),
    ],
)
def test_memory_printed_devices_are_those_of_the_place(
    place: str, need: dict[str, Any], output: bytes, learned: list[tuple[str, float]]
) -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": output}, THREE)
    options = (dict.fromkeys(place.split(), 7 * GIB),)
    made = MemoryNeed(options=options, key="u", **need)
    world.specs = [service("u", endpoint="http://127.0.0.1:5801", memory=made)]

    async def scenario() -> None:
        await world.supervisor.load("u")

    world.run(scenario)
    assert world.noted() == {pool: int(gib * GIB) for pool, gib in learned}


@pytest.mark.parametrize("is_unlike", [False, True])
def test_memory_printed_devices_of_unlike_gpus_are_in_doubt(is_unlike: bool) -> None:
    """CUDA numbers the fastest GPU first, and a process that may use all gets no order."""
    two = {"GPU0": GPU0, "GPU1": GPU1}
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\n"}, two)
    pools = [
        Pool(name="GPU0", capacity=24 * GIB),
        Pool(name="GPU1", capacity=(16 if is_unlike else 24) * GIB),
    ]
    world.ledger.configure(pools, Rules(), two)
    made = MemoryNeed(options=({"GPU0": 7 * GIB, "GPU1": 7 * GIB},), key="u")
    world.specs = [service("u", endpoint="http://127.0.0.1:5801", memory=made)]

    async def scenario() -> None:
        await world.supervisor.load("u")

    world.run(scenario)
    assert world.noted() == ({} if is_unlike else {"GPU0": 6 * GIB})


@pytest.mark.parametrize("decides", [True, False])
def test_memory_printed_devices_where_no_variable_is_set_are_in_doubt(decides: bool) -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\nRAM=1\n"}, THREE)
    pools = [Pool(name=name, capacity=24 * GIB) for name in (*THREE, "RAM")]
    world.ledger.configure(pools, Rules(), THREE)
    world.ledger.decides = decides
    made = MemoryNeed(options=({"GPU1": 7 * GIB},), key="u")
    world.specs = [service("u", endpoint="http://127.0.0.1:5801", memory=made)]

    async def scenario() -> None:
        await world.supervisor.load("u")

    world.run(scenario)
    assert world.noted() == {"RAM": GIB, **({"GPU1": 6 * GIB} if decides else {})}


def test_memory_printed_sizes_of_unified_memory_are_added_up() -> None:
    world = PrintingWorld({"u": 1}, {}, {"u": b"CUDA0=6\nRAM=1\n"}, {})
    world.ledger.configure([Pool(name="RAM", capacity=24 * GIB)], Rules(), {})
    made = MemoryNeed(options=({"RAM": 9 * GIB},), key="u")
    world.specs = [service("u", endpoint="http://127.0.0.1:5801", memory=made)]

    async def scenario() -> None:
        await world.supervisor.load("u")

    world.run(scenario)
    assert world.noted() == {"RAM": 7 * GIB}


@pytest.mark.parametrize(
    ("names", "gpus", "pools"),
    [
        (["CUDA0", "CUDA1"], ["GPU1", "GPU0"], {"CUDA0": "GPU1", "CUDA1": "GPU0"}),
        (["CUDA1"], ["GPU1", "GPU2"], {"CUDA1": "GPU1"}),
        (["ROCm0"], ["GPU0", "GPU2"], {"ROCm0": "GPU2"}),
        (["MTL0"], ["GPU0"], {"MTL0": "GPU0"}),
        (["Vulkan2"], ["GPU2"], {"Vulkan2": "GPU2"}),
        (["CUDA0", "Vulkan0"], ["GPU0"], {}),
        (["CUDA0", "CUDA0_Split"], ["GPU0"], {}),
        (["CUDA2"], ["GPU0", "GPU1"], {}),
        (["ROCm0"], ["GPU0"], {}),
        ([], ["GPU0"], {}),
        (["GPU"], [], {}),
        (["CUDA0"], [], {}),
    ],
)
def test_pools_of_names_of_a_backend(
    names: list[str], gpus: list[str], pools: dict[str, str]
) -> None:
    assert pools_of(names, gpus, THREE) == pools


def test_start_output_passes_the_first_bytes_on_and_keeps_none() -> None:
    ring, sizes = LogRing(8), Sizes()
    output = StartOutput(sizes, 10)
    ring.write(b"before")
    ring.add_reader(output)
    for piece in (b"1234567", b"89abc", b"def"):
        ring.write(piece)
    ring.discard_reader(output)
    ring.write(b"after")
    assert sizes.text == b"123456789a"
    assert not output._chunks
