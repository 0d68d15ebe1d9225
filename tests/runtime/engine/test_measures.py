"""Cost of many instances."""

from __future__ import annotations

import gc
import time
import tracemalloc
from pathlib import Path

import anyio
import pytest

from swapchart.machine import Machine, read
from swapchart.runtime import Actions, Host

COUNT = 10_000
ORDER = Path(__file__).parents[2] / "charts" / "order.yaml"


async def never(point: str) -> str:
    await anyio.sleep_forever()
    return "reserved"


@pytest.mark.measures
def test_ten_thousand_orders_are_cheap() -> None:
    """10,000 driven orders take 2 s and 20 MB and no task of their own (bounds: times five)."""

    async def main() -> None:
        machine = Machine(read(ORDER.read_text("utf-8")))
        actions = Actions(
            activities=dict.fromkeys(("reserve", "charge", "ship"), never),
            timers={"escalation": 172_800},
        )
        async with Host() as host:
            host.start(machine, actions=actions)
            tasks = len(anyio.get_running_tasks())
            gc.collect()
            began = time.process_time()
            for number in range(COUNT):
                host.start(machine, id=f"A-{number}", actions=actions)
            for order in host:
                order.post("submit", {"value": 5000})
            used = time.process_time() - began
            assert len(anyio.get_running_tasks()) == tasks

            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for number in range(1000):
                host.start(machine, id=f"B-{number}", actions=actions)
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
        print(f"{COUNT} orders: {used:.2f} s, {held * COUNT / 1000 / 1e6:.1f} MB")
        assert used < 5 * 2.0
        assert held * COUNT / 1000 < 5 * 20e6

    anyio.run(main)
