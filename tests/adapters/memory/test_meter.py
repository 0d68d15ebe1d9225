"""The meter over several sources: numbers of GPUs, failures, unified memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import anyio
import pytest

from swapchart.adapters.memory import Meter
from swapchart.adapters.memory.command import CommandPool
from swapchart.adapters.memory.host import HostMemory
from swapchart.adapters.memory.joining import Joiner, with_unified
from swapchart.runtime.ports import PoolReading

GIB = 1 << 30
RAM = PoolReading(name="RAM", capacity=64 * GIB, used=GIB, processes={7: GIB}, is_prompt=True)
NVIDIA = PoolReading(name="GPU0", capacity=24 * GIB, device="GPU-a", vendor="nvidia", processes={})
AMD = PoolReading(name="GPU0", capacity=16 * GIB, device="GPU-b", vendor="amd", processes={})


class Given:
    """A source with given readings, which may fail."""

    def __init__(self, *readings: PoolReading) -> None:
        self.readings = list(readings)
        self.error: OSError | None = None

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        if self.error is not None:
            raise self.error
        return self.readings


def test_meter_numbers_gpus_in_the_order_of_their_drivers_and_keeps_the_numbers() -> None:
    nvidia, amd = Given(NVIDIA), Given(AMD)
    meter = Meter([Given(RAM), nvidia, amd])

    def names() -> dict[str, str]:
        return {each.device: each.name for each in meter.read_blocking(())}

    assert names() == {"": "RAM", "GPU-a": "GPU0", "GPU-b": "GPU1"}
    nvidia.error = OSError("the driver is gone")
    assert names() == {"": "RAM", "GPU-b": "GPU1"}


def test_meter_source_that_fails_leaves_out_its_pools_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Given(NVIDIA)
    broken.error = OSError("the driver does not respond")
    meter = Meter([Given(RAM), broken])

    async def main() -> None:
        for _ in range(3):
            assert await meter.read(()) == [RAM]
        broken.error = None
        assert len(await meter.read(())) == 2

    with caplog.at_level(logging.INFO):
        anyio.run(main)
    assert [record.getMessage() for record in caplog.records] == [
        "memory cannot be read by Given: the driver does not respond",
        "memory is read again by Given",
    ]


def test_meter_without_any_reading_raises_an_oserror_with_the_reasons() -> None:
    one = Given()
    one.error = OSError("no /proc")

    async def main() -> None:
        with pytest.raises(OSError, match="no /proc"):
            await Meter([one, Given()]).read(())

    anyio.run(main)


def test_meter_source_that_hangs_holds_up_no_other_source() -> None:
    release = threading.Event()

    class Hanging:
        def read(self, pids: object) -> list[PoolReading]:
            release.wait(30)
            return [NVIDIA]

    async def main() -> None:
        meter = Meter([HostMemory(), Hanging()], limit_s=0.3)
        before = threading.active_count()
        began = time.monotonic()
        for _ in range(20):
            (reading,) = await meter.read(())
            assert reading.name == "RAM"
        assert time.monotonic() - began < 5.0, "only the first reading waits for its limit"
        assert threading.active_count() <= before + 4
        release.set()

    anyio.run(main)


def test_meter_source_that_hangs_delays_a_reload_once_and_takes_one_thread() -> None:
    """A reload reads from a thread that may wait, and waited for a driver that hung for ever."""
    release = threading.Event()

    class Hanging:
        def read(self, pids: object) -> list[PoolReading]:
            release.wait(30)
            return [NVIDIA]

    meter = Meter([Given(RAM), Hanging()], limit_s=0.3)
    before = set(threading.enumerate())  # some of earlier tests may end meanwhile
    began = time.monotonic()
    for _ in range(20):
        assert meter.read_blocking(()) == [RAM]
    assert time.monotonic() - began < 3.0, "only the first reading waits for its limit"
    assert len({*threading.enumerate()} - before) == 1
    release.set()


def test_meter_pool_of_a_command_takes_the_place_of_what_the_machine_says() -> None:
    meter = Meter([Given(RAM, NVIDIA)])
    meter.add([CommandPool("NPU", 4 * GIB, ["echo", "0"]), CommandPool("RAM", GIB, ["echo", "0"])])
    readings = {each.name: each for each in meter.read_blocking(())}
    assert readings.keys() == {"RAM", "GPU0", "NPU"}
    assert (readings["RAM"].source, readings["RAM"].used) == ("check", GIB)
    meter.add([])
    assert [each.name for each in meter.read_blocking(())] == ["RAM", "GPU0"]


def test_with_unified_main_memory_counts_what_gpus_use_of_it() -> None:
    part = replace(
        AMD, name="GPU0", part_of="RAM", capacity=40 * GIB, processes={7: 5 * GIB, 8: GIB}
    )
    ram, _ = with_unified([RAM, part])
    assert (ram.capacity, ram.processes) == (40 * GIB, {7: 6 * GIB, 8: GIB})
    ram, _ = with_unified([RAM, replace(part, capacity=0, processes=None)])
    assert (ram.capacity, ram.processes) == (64 * GIB, None)
    assert with_unified([RAM, AMD]) == [RAM, AMD]


def test_joiner_gpu_without_an_id_keeps_its_number() -> None:
    joiner = Joiner()
    bare = replace(NVIDIA, device="", source="nvidia-smi")
    for _ in range(2):
        assert [each.name for each in joiner.join([bare, AMD])] == ["GPU0", "GPU1"]
