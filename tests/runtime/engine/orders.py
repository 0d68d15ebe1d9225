"""Every situation of the order chart, and what follows each event in it; also run as a program.

python orders.py <snapshots.json     print what follows, by a process that made none of them
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from swapchart.machine import Document, Machine, NotHandledError, Snapshot, read
from swapchart.runtime import Actions, Answer, Host, Instance

ORDER = Path(__file__).parents[2] / "charts" / "order.yaml"
Event = tuple[str, dict[str, Any]]


def machine() -> Machine:
    """Return the order chart."""
    return Machine(read(ORDER.read_text("utf-8")))


async def never(point: str) -> Answer:
    """Work for ever: the events of activities are posted by the test."""
    await anyio.sleep_forever()
    return None


ACTIONS = Actions(
    activities=dict.fromkeys(("reserve", "charge", "ship"), never),
    timers={"escalation": 172_800},
)


def events(document: Document) -> list[Event]:
    """Return every event with every value of its field."""
    return [
        (name, dict(zip(event.data, [value], strict=True)) if event.data else {})
        for name, event in document.events.items()
        for value in (next(iter(event.data.values())) if event.data else (None,))
    ]


def ways(chart: Machine, needed: int) -> Iterator[list[Event]]:
    """Yield a shortest way to every situation that events lead to, its steps in order."""
    stepper = chart.traced_stepper(needed=needed)
    chart.begin(stepper)
    first = (stepper.configuration, stepper.context.values(), stepper.memory)
    seen: dict[Any, list[Event]] = {first: []}
    todo = [first]
    for state in todo:  # grows while it is walked
        yield seen[state]
        for event, fields in events(chart.document):
            stepper.restore(*state)
            if stepper.is_final:
                continue
            try:
                chart.step(stepper, event, chart.fields(event, fields))
            except NotHandledError:
                continue
            reached = (stepper.configuration, stepper.context.values(), stepper.memory)
            if reached not in seen:
                seen[reached] = [*seen[state], (event, fields)]
                todo.append(reached)


def told(instance: Instance[Any], event: str, fields: dict[str, Any]) -> list[Any]:
    """Post an event and return everything that can be seen afterward."""
    try:
        step = instance.replay(event, fields)
    except NotHandledError as error:
        step, text = None, str(error)
    else:
        text = repr(step and (step.source, step.target, step.actions, step.effects, step.number))
    after = instance.snapshot()
    # To 100 s: the process that resumes does so a little later.
    left = {name: round(at - after.taken_at, -2) for name, at in after.timers.items()}
    return [
        text, repr((after.configuration, after.data, after.memory, after.payload)), left,
        sorted(run.activity for run in after.activities),
    ]  # fmt: skip


async def follow(raw: list[Any]) -> list[Any]:
    """Resume each snapshot for each event, and return what follows."""
    chart, found = machine(), []
    async with Host() as host:
        for item in raw:
            for event, fields in events(chart.document):
                one = host.resume(chart, Snapshot.from_json(item), actions=ACTIONS)
                found.append(told(one, event, fields))
                host.remove(one.id)
                await anyio.lowlevel.checkpoint()
    return found


if __name__ == "__main__":
    json.dump(anyio.run(follow, json.load(sys.stdin)), sys.stdout)
