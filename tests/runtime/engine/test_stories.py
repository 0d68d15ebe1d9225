"""Random stories: whatever callback fails, the instance does what an undisturbed one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.machine import EventError, Machine, NotHandledError, StepError, read
from swapchart.runtime import Actions, Answer, Host, Instance, Step

from .backends import BACKENDS, run_on

ORDER = Machine(read((Path(__file__).parents[2] / "charts" / "order.yaml").read_text("utf-8")))
EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("submit", {"value": 50}), ("submit", {"value": 5000}), ("submit", {}), ("approve", {}),
    ("reject", {}), ("hold", {}), ("resume", {}), ("cancel", {}), ("overdue", {}),
    # what is refused
    ("submit", {"value": 1}), ("submit", {"amount": 50}), ("shipped", {}), ("nothing", {}),
)  # fmt: skip
CALLBACKS = ("on_step", "on_notify", "on_error", "listener", "host listener")


class Run:
    """One instance of the order chart, whose callbacks fail as a script says."""

    def __init__(self, failing: frozenset[str], answers: list[int]) -> None:
        self.failing = failing
        self.answers = answers
        self.told: list[Any] = []
        self.begun: list[str] = []
        self.ended: list[str] = []

    def fail(self, name: str) -> None:
        if name in self.failing:
            raise RuntimeError(f"injected into {name}")

    def on_step(self, step: Step) -> None:
        self.told.append((step.event, step.source, step.target, step.actions, step.effects))
        self.fail("on_step")

    def on_notify(self, name: str) -> None:
        self.told.append(name)
        self.fail("on_notify")

    def on_error(self, name: str, error: Exception) -> str | None:
        self.told.append(f"{name}: {error}")
        self.fail("on_error")
        return None

    def listener(self, step: Step) -> None:
        self.fail("listener")

    def host_listener(self, step: Step) -> None:
        self.fail("host listener")

    def work(self, name: str, good: str, bad: str) -> Any:
        async def work(point: str) -> Answer:
            kind = self.answers[(self.begun.count(name) + len(name)) % len(self.answers)]
            self.begun.append(name)
            await anyio.sleep(5 + kind + len(name) / 10)  # no two end together
            self.ended.append(name)
            if kind == 2:
                raise OSError("injected into the activity")
            return bad if kind == 1 else good

        return work

    def actions(self) -> Actions:
        return Actions(
            activities={
                "reserve": self.work("reserve", "reserved", "out_of_stock"),
                "charge": self.work("charge", "charged", "declined"),
                "ship": self.work("ship", "shipped", "shipped"),
            },
            timers={"escalation": 100},
            on_step=self.on_step, on_notify=self.on_notify, on_error=self.on_error,
        )  # fmt: skip


async def play(run: Run, story: list[tuple[int, int]], injecting: bool) -> list[Any]:
    """Play *story* and return everything that can be seen of the instance after each event."""
    seen: list[Any] = []
    async with Host() as host:
        host.listen(run.host_listener)
        one = host.start(ORDER, id="A", actions=run.actions(), parameters={"needed": 2})
        one.listen(run.listener)
        for number, pause in story:
            event, fields = EVENTS[number]
            if injecting:
                inject(one, event, fields, pause)
            try:
                post = one.replay if event == "overdue" else one.post  # it is the timer's
                step = post(event, fields)
                seen.append(None if step is None else (step.event, step.data, step.number))
            except (NotHandledError, EventError) as error:
                seen.append(str(error))
            seen.append((one.configuration, one.data, one.number, one._stepper.memory))
            await anyio.sleep(pause or 0.01)  # all that is ready begins: trio's order is random
        await anyio.sleep(1000)
        seen.append((one.configuration, one.data, one.number, one._stepper.memory))
    return [*seen, run.told, sorted(run.begun), sorted(run.ended)]


def inject(one: Instance[Any], event: str, fields: Any, at: int) -> None:
    """Post *event* to an instance whose n-th guard or action fails: nothing may change."""
    real = one._stepper.context

    class Failing:
        left = at

        def __getattr__(self, name: str) -> Any:
            if name in ORDER.document.guards or name in ORDER.document.actions:
                Failing.left -= 1
                if Failing.left < 0:
                    raise RuntimeError("injected")
            return getattr(real, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(real, name, value)

    before = (one.configuration, one.data, one.number, one._stepper.memory)
    one._stepper.context = Failing()
    try:
        given = ORDER.fields(event, fields)
        ORDER.step(one._stepper, event, given)
    except (NotHandledError, EventError, StepError):
        assert (one.configuration, one.data, one.number, one._stepper.memory) == before
    else:
        one._stepper.restore(before[0], tuple(before[1].values()), before[3])
    finally:
        one._stepper.context = real


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    story=st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), st.integers(0, 6)), max_size=12),
    failing=st.frozensets(st.sampled_from(CALLBACKS)),
    answers=st.lists(st.integers(0, 2), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_instance_whose_callbacks_fail_does_what_another_does(
    backend: str, story: list[tuple[int, int]], failing: frozenset[str], answers: list[int]
) -> None:
    """No effect is lost, none comes twice, and each step is complete or not taken."""
    undisturbed = run_on(backend, lambda: play(Run(frozenset(), answers), story, False))
    disturbed = run_on(backend, lambda: play(Run(failing, answers), story, True))

    assert disturbed == undisturbed
