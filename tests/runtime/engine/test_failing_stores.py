"""Stores that fail at every call: a step is complete or undone, nothing is lost or comes twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.machine import Machine, Snapshot, StepError, read
from swapchart.runtime import Actions, Host, HostStateError, Instance, Step

from .backends import BACKENDS, run_on
from .stores import MemoryStore

TEXT = """
format: swapchart.chart/v1
name: Counts
data: {ticks: {initial: 0}, tocks: {initial: 0}, done: {initial: 0}, late: {initial: 0}}
events:
  tick: {}
  tock: {}
  begin: {}
  end: {origin: activity, of: work}
  broke: {origin: activity, of: work, on: error}
  limit: {origin: timer, of: limit}
actions:
  count_tick: {set: {ticks: ticks + 1}}
  count_tock: {set: {tocks: tocks + 1}}
  count_done: {set: {done: done + 1}}
  count_late: {set: {late: late + 1}}
  work: {do: {effect: activity.start, activity: work}}
  stop_work: {do: {effect: activity.cancel, activity: work}}
  arm: {do: {effect: timer.start, timer: limit}}
  disarm: {do: {effect: timer.cancel, timer: limit}}
chart:
  states:
    open:
      initial: true
      transitions: [{event: tick, "on": count_tick}, {event: tock, "on": count_tock}]
      states:
        idle: {initial: true, transitions: [{event: begin, target: busy}]}
        busy:
          enter: [work, arm]
          exit: [stop_work, disarm]
          transitions:
            - {event: end broke, target: idle, "on": count_done}
            - {event: limit, target: idle, "on": count_late}
            - {event: begin}
"""
CHART = Machine(read(TEXT))
NEXT = Machine(
    read(
        TEXT.replace(
            "            - {event: begin}\n", "            - {event: begin, target: busy}\n"
        )
    )
)
#: Pauses in seconds; the activity takes 10 or 1000, the timer 20.
STORY = ("start", "tick", "begin", 11, "tick", "begin", 21, "start", "replace", "tick", "begin", 5,
         "tick", "remove", "start", "begin", "tick", 40)  # fmt: skip
OPERATIONS = ("start", "tick", "begin", "replace", "remove", 3, 11, 21, 45)
ERRORS = (OSError("disk full"), sqlite3.OperationalError("database is locked"))
Plan = Mapping[tuple[int, str], Exception]


class Run:
    """Instances in a store that fails as planned, and what was acknowledged of each."""

    def __init__(self, plan: Plan) -> None:
        self.store = MemoryStore()
        self.plan = plan
        self.store.fail = self.fail
        self.ticks: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.doubtful: set[str] = set()  # the store may be one step ahead
        self.runs = 0

    def fail(self, call: int, name: str, when: str) -> None:
        if (call, when) in self.plan:
            raise self.plan[call, when]

    async def work(self, point: str) -> str:
        self.runs += 1
        await anyio.sleep(10 if self.runs % 2 else 1000)
        if self.runs % 4 == 1:
            raise OSError("injected into the activity")
        return "end"

    def listen(self, host: Host) -> Any:
        def on_step(step: Step) -> None:
            if step.event == "tick":
                host[step.name].post("tock")

        return on_step

    def actions(self) -> Actions:
        return Actions(activities={"work": self.work}, timers={"limit": 20})

    async def play(self, host: Host, operation: str | int) -> None:
        """Play one operation; what raises must have changed nothing."""
        if isinstance(operation, int):
            await anyio.sleep(operation)
            return
        before = {one.id: bare(one.snapshot()) for one in host}
        name = next(reversed(before), "")
        try:
            self.act(host, operation, name)
        except (StepError, HostStateError, OSError, sqlite3.Error):
            assert {one.id: bare(one.snapshot()) for one in host} == before
            if (self.store.calls, "after") in self.plan:
                self.doubtful.add(name)

    def act(self, host: Host, operation: str, name: str) -> None:
        if operation == "start":
            one = host.start(CHART, actions=self.actions())
            self.ticks[one.id] = self.begun[one.id] = 0
        elif operation == "replace":
            found = host.replace(NEXT if self.runs % 2 else CHART)
            assert not set(found.moved) & set(found.kept)
        elif name and operation == "remove":
            host.remove(name)
        elif name and (operation != "begin" or "idle" in host[name].active):
            host[name].post(operation)
            counts = self.ticks if operation == "tick" else self.begun
            counts[name] += 1

    def check(self, one: Instance[Any], most: int) -> None:
        """Check that each event counted once, or *most* times more."""
        data: Mapping[str, Any] = one.data
        ticks, begun = self.ticks.get(one.id, 0), self.begun.get(one.id, 0)
        assert ticks <= data["ticks"] <= ticks + most
        assert begun <= data["done"] + data["late"] <= begun + most
        assert "idle" in one.active


def bare(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* without the time at which it was taken."""
    return replace(snapshot, taken_at=0.0)


async def live(run: Run, story: tuple[str | int, ...]) -> None:
    """Play *story* to its end; then the store works, and what waits for it is delivered."""
    async with Host(store=run.store, wall=anyio.current_time) as host:
        host.listen(run.listen(host))
        for operation in story:
            await run.play(host, operation)
        run.plan = {}
        await anyio.sleep(200)
        for one in host:
            run.check(one, 0)
            assert one.data["tocks"] == one.data["ticks"]
            one.post("tick")  # the store may know of a step that was undone
            kept = {snapshot.id: bare(snapshot) for snapshot in run.store.load()}[one.id]
            assert kept == bare(one.snapshot())


async def crash(run: Run, story: tuple[str | int, ...]) -> None:
    """Play *story*, end the process, and let another one go on with what the store has."""
    async with Host(store=run.store, wall=anyio.current_time) as host:
        host.listen(run.listen(host))
        for operation in story:
            await run.play(host, operation)
        run.plan = {}
        known = {one.id for one in host}
        run.store.fail_next = None
        kept = run.store.load()
    assert known <= {snapshot.id for snapshot in kept} | run.doubtful
    async with Host(store=MemoryStore(), wall=anyio.current_time) as host:
        for snapshot in kept:
            host.resume(NEXT if snapshot.digest == NEXT.digest else CHART, snapshot,
                        actions=run.actions())  # fmt: skip
        await anyio.sleep(200)
        for one in host:
            if one.id in known:
                run.check(one, 1)


def calls_of(story: tuple[str | int, ...]) -> int:
    """Return how often an undisturbed *story* calls the store."""
    run = Run({})

    async def main() -> None:
        await live(run, story)

    run_on("asyncio", main)
    return run.store.calls


CALLS = calls_of(STORY)


@pytest.mark.parametrize("play", [live, crash])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("length", [1, 3])
def test_store_that_fails_at_one_call_of_a_story(play: Any, when: str, length: int) -> None:
    """At each call in turn, or three in a row from every second one on; the step kept or not."""
    assert CALLS > 25
    for first in range(1, CALLS + 1, 2 if length > 1 else 1):
        error = ERRORS[first % len(ERRORS)]
        plan = {(call, when): error for call in range(first, first + length)}

        async def main(plan: Plan = plan) -> None:
            await play(Run(plan), STORY)

        run_on("asyncio", main)


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    story=st.lists(st.sampled_from(OPERATIONS), min_size=3, max_size=15),
    failing=st.dictionaries(
        st.tuples(st.integers(2, 40), st.sampled_from(["before", "after"])),
        st.sampled_from(ERRORS), max_size=12,
    ),
    play=st.sampled_from([live, crash]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_store_that_fails_at_random_calls_of_a_random_story(
    backend: str, story: list[str | int], failing: Plan, play: Any
) -> None:
    async def main() -> None:
        await play(Run(failing), ("start", *story))

    run_on(backend, main)


def test_step_whose_save_is_interrupted_is_undone() -> None:
    """The poster gets the interrupt, such as that of Ctrl-C, and the instance is as before."""

    class Interrupt(BaseException):
        pass

    async def main() -> None:
        run = Run({})
        async with Host(store=run.store, wall=anyio.current_time) as host:
            one = host.start(CHART, actions=run.actions())
            before = bare(one.snapshot())
            run.store.fail_next = Interrupt()
            with pytest.raises(Interrupt):
                one.post("begin")
            assert bare(one.snapshot()) == before
            await anyio.sleep(1)
            assert run.runs == 0
            one.post("begin")
            assert "busy" in one.active

    run_on("asyncio", main)
