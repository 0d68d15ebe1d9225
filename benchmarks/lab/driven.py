"""Many driven orders: the chart of tests/charts/order.yaml with its timer, in one process each.

    python driven.py ENGINE INSTANCES    microseconds to make one and for an event, bytes each

Times are CPU time. Each order is started, submitted (which arms the timer of its escalation), held
and resumed into its history. ``host`` is a `Host`; ``library`` is python-statemachine, without
timers. XState is driven likewise by driven.mjs.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import psutil

ORDER = Path(__file__).resolve().parents[2] / "tests" / "charts" / "order.yaml"
EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("submit", {"value": 5000}), ("hold", {}), ("resume", {}),
)  # fmt: skip
END = ["open", "waiting"]
ESCALATION_S = 172_800.0


def figures(count: int, made: float, stepped: float, grown: int) -> dict[str, float]:
    return {
        "make_us": made / count * 1e6, "event_us": stepped / count / len(EVENTS) * 1e6,
        "bytes_each": grown / count,
    }  # fmt: skip


async def host(count: int) -> dict[str, float]:
    """Drive *count* instances of one host."""
    from swapchart.machine import Machine, read
    from swapchart.runtime import Actions, Host

    async def never(point: str) -> None:
        await anyio.sleep_forever()

    machine = Machine(read(ORDER.read_text("utf-8")))
    actions = Actions(
        activities=dict.fromkeys(("reserve", "charge", "ship"), never),
        timers={"escalation": ESCALATION_S},
    )
    async with Host() as one:
        gc.collect()
        before, began = psutil.Process().memory_info().rss, time.process_time()
        orders = [one.start(machine, id=f"A-{n}", actions=actions) for n in range(count)]
        made, began = time.process_time() - began, time.process_time()
        for event, fields in EVENTS:
            for order in orders:
                order.post(event, fields)
        stepped = time.process_time() - began
        grown = psutil.Process().memory_info().rss - before
        assert list(orders[-1].configuration) == END
        return figures(count, made, stepped, grown)


def library(count: int) -> dict[str, float]:
    """Drive *count* instances of the python-statemachine class."""
    from swapchart.machine import build_context, compile_chart, read

    document = read(ORDER.read_text("utf-8"))
    chart, context = compile_chart(document), build_context(document)
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.process_time()
    orders = [chart(context()) for _ in range(count)]
    made, began = time.process_time() - began, time.process_time()
    for event, fields in EVENTS:
        for order in orders:
            for name, value in fields.items():
                setattr(order.model, name, value)
            order.send(event)
    stepped = time.process_time() - began
    grown = psutil.Process().memory_info().rss - before
    assert sorted(str(state.id) for state in orders[-1].configuration) == sorted(END)
    return figures(count, made, stepped, grown)


def main() -> None:
    engine, count = sys.argv[1], int(sys.argv[2])
    if engine == "xstate":  # the machine for driven.mjs
        from swapchart.machine import read, to_xstate

        print(to_xstate(read(ORDER.read_text("utf-8")), timers={"escalation": ESCALATION_S}))
        return
    found = anyio.run(host, count) if engine == "host" else library(count)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
