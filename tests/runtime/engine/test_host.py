"""Host and player: listeners, misuse, waits and records, on both back ends."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import anyio
import pytest

from swapchart.machine import (
    ChartError,
    EventError,
    Machine,
    NotHandledError,
    StartActivity,
    read,
)
from swapchart.runtime import (
    Actions,
    ActivityContext,
    ActivityFunction,
    EndedError,
    Host,
    HostStateError,
    Instance,
    Player,
    Step,
    WrongThreadError,
)

from .backends import BACKENDS, WORKER, run_on, sleeper, worker

pytestmark = pytest.mark.parametrize("backend", BACKENDS)

#: A dict of activities with two kinds of answers can be annotated.
ACTIVITIES: dict[str, ActivityFunction] = {"work": sleeper}
ACTIONS = Actions(activities=ACTIVITIES, timers={"limit": 60})


def player(**options: Any) -> Player:
    return Player(worker(), activities=ACTIVITIES, timers={"limit": 60}, **options)


def seen(instance: Instance[Any]) -> tuple[Any, ...]:
    return instance.configuration, instance.data, instance.number, instance._stepper.context.out


def test_listener_that_raises_does_not_break_the_step(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The activity starts, the timer is armed, the error is logged."""

    def fail(what: object) -> None:
        raise RuntimeError("listener")

    async def main() -> None:
        async with player(on_step=fail, on_notify=fail) as one:
            began = anyio.current_time()
            one.listen(fail)
            one.post("go")
            assert one.configuration == ("busy",)
            await one.wait_for("idle")
            assert anyio.current_time() - began == pytest.approx(10)

    run_on(backend, main)
    assert sum("raised an exception" in record.message for record in caplog.records) >= 2
    assert any("a listener failed" in record.message for record in caplog.records)


def test_event_with_wrong_fields_leaves_the_instance_equal(backend: str) -> None:
    """Each wrong post raises an error and changes nothing."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), actions=ACTIONS)
            before = copy.deepcopy(seen(one))
            for event, fields in (
                ("go", {"size": 99}), ("go", {"n": 3}), ("go", {"out": []}), ("boil", {}),
                ("go", {"size": None}), ("go", {"state": "busy"}),
            ):  # fmt: skip
                with pytest.raises(EventError):
                    one.post(event, fields)  # type: ignore[arg-type]
                assert seen(one) == before
            with pytest.raises(EventError, match="carries no payload"):
                one.post("go", payload=object())
            with pytest.raises(NotHandledError):
                one.post("back")
            assert seen(one) == before
            assert one.post("go", {"size": 2}) is not None
            assert one.data == {"n": 2}

    run_on(backend, main)


def test_post_in_another_thread_is_refused_before_anything_changes(backend: str) -> None:
    """The error names the method for threads."""

    async def main() -> None:
        async with player() as one:
            caught: list[BaseException] = []

            def post() -> None:
                try:
                    one.post("go")
                except BaseException as error:  # noqa: BLE001 - looked at below
                    caught.append(error)

            thread = threading.Thread(target=post)
            thread.start()
            thread.join()
            assert isinstance(caught[0], WrongThreadError)
            assert "post_threadsafe" in str(caught[0])
            assert one.configuration == ("idle",)
            assert one.data == {"n": 0}
            one.post("go")

    run_on(backend, main)


def test_calls_outside_the_block_say_what_to_do(backend: str) -> None:
    """Before, after and twice: each is an error, and no step is taken."""

    async def main() -> None:
        one = player()
        with pytest.raises(HostStateError, match="has not begun: enter `async with` first"):
            one.post("go")
        async with one:
            assert one.configuration == ("idle",)
            with pytest.raises(HostStateError, match="entered once"):
                await one.__aenter__()
            one.post("go")
        with pytest.raises(HostStateError, match="has ended"):
            one.post("back")
        with pytest.raises(HostStateError, match="has ended"):
            one.post_threadsafe("back")
        assert one.configuration == ("busy",)
        with pytest.raises(HostStateError, match="entered once"):
            await one.__aenter__()
        with pytest.raises(HostStateError, match="has not begun"):
            Host().start(worker(), actions=ACTIONS)
        async with Host() as host:
            host.start(worker(), id="a", actions=ACTIONS)
            with pytest.raises(HostStateError, match="has an instance 'a'"):
                host.start(worker(), id="a", actions=ACTIONS)
            kept = host["a"]
            host.remove("a")
            assert "a" not in host
            with pytest.raises(HostStateError, match="was removed"):
                kept.post("go")

    run_on(backend, main)


def test_error_of_the_block_comes_out_as_itself(backend: str) -> None:
    """`except NotHandledError` around the block catches it, also while activities run."""

    async def main() -> None:
        with pytest.raises(NotHandledError):  # noqa: PT012 - the block is what is tested
            async with player() as one:
                one.post("go")
                one.post("go")
        with pytest.raises(KeyError):
            async with Host():
                raise KeyError("x")

    run_on(backend, main)


def test_wait_for_what_cannot_come_ends(backend: str) -> None:
    """Unknown states, ended charts and states that nothing leads to raise instead of hanging."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="a", actions=ACTIONS)
            with pytest.raises(LookupError, match="a: no state 'bizzy'; known: broken, busy"):
                await one.wait_for("bizzy")
            errors: list[EndedError] = []

            async def wait(state: str) -> None:
                try:
                    await one.wait_for(state)
                except EndedError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, "busy")
                tasks.start_soon(wait, "broken")
                await anyio.sleep(1)
                one.post("finish")
            assert {error.states for error in errors} == {("busy",), ("broken",)}
            with pytest.raises(EndedError, match="the chart has ended"):
                await one.wait_for("busy")
            await one.wait_for("over")
            other = host.start(worker(), actions=ACTIONS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, "over")
                one = other
                await anyio.sleep(1)
                host.remove(other.id)
            assert "removed" in str(errors[-1])

    run_on(backend, main)


def test_wait_for_a_state_passed_through_in_one_turn_returns(backend: str) -> None:
    """A waiter is woken by a state that was active between two posts."""

    async def main() -> None:
        async with player() as one, anyio.create_task_group() as tasks:
            tasks.start_soon(one.wait_for, "busy")
            await anyio.sleep(1)
            one.post("go")
            one.post("back")

    run_on(backend, main)


def test_wait_for_a_state_that_is_always_left_is_refused(backend: str) -> None:
    """A choice is never active after a step, so waiting for it would never end."""
    choice = "    choice: {transitions: [{target: idle}]}"
    back = "{event: back, target: choice}]}"
    text = WORKER.replace("{event: back, target: idle}]}", f"{back}\n{choice}")

    async def main() -> None:
        async with Player(read(text), activities=ACTIVITIES, timers={"limit": 1}) as one:
            with pytest.raises(LookupError, match="is left in the step that enters it"):
                await one.wait_for("choice")

    run_on(backend, main)


@pytest.mark.parametrize(
    ("activities", "timers", "why"),
    [
        ({"work": sleeper, "wrok": sleeper}, {"limit": 5}, r"activities\.wrok: .* known: work"),
        ({"work": sleeper}, {"limit": 5, "limt": 5}, r"timers\.limt: .* known: limit"),
        ({"work": sleeper}, {"limit": -5}, r"timers\.limit: expected seconds >= 0, got -5"),
        ({"work": sleeper}, {"limit": None}, "got None"),
        ({"work": sleeper}, {"limit": "5"}, "got '5'"),
        ({"work": sleeper}, {"limit": float("nan")}, "got nan"),
        ({"work": sleeper}, {"limit": True}, "got True"),
        ({"work": None}, {"limit": 5}, r"activities\.work: expected a function, got None"),
        ({"work": sleeper}, {}, "expected seconds for timer 'limit'"),
    ],
)
def test_actions_that_do_not_fit_are_refused_before_the_start(
    backend: str, activities: Any, timers: Any, why: str
) -> None:
    """Misspelled names and times that are none are errors of the constructor."""
    with pytest.raises(ChartError, match=why):
        Player(worker(), activities=activities, timers=timers)


def test_parameters_that_do_not_fit_are_refused(backend: str) -> None:
    """Unknown parameters and values outside the domain are errors."""
    document = read(
        WORKER.replace("events:", "parameters: {most: {initial: 1, values: [1, 2]}}\nevents:")
    )
    for parameters in ({"mots": 1}, {"most": 3}, {"most": True}, {"most": "1"}):
        with pytest.raises(ChartError, match="parameters"):
            Player(document, activities=ACTIVITIES, timers={"limit": 1}, parameters=parameters)


def test_step_says_what_happened(backend: str) -> None:
    """A record has fields, actions, effects, data, name, number and cause."""

    async def main() -> None:
        async with Host() as host:
            records: list[Step] = []
            host.listen(records.append)
            one = host.start(worker(), id="a", actions=ACTIONS)
            step = one.post("go", {"size": 2}, cause="button")
            await one.wait_for("idle")
            one.post("finish")
            assert one.post("go") is None

        assert step is records[1]
        assert [(r.kind, r.event, r.number, r.cause) for r in records] == [
            ("begun", "", 0, "start"),
            ("taken", "go", 1, "button"),
            ("taken", "done", 2, "activity work"),
            ("taken", "finish", 3, "user"),
            ("dropped", "go", 3, "user"),
        ]
        assert step.name == "a"
        assert (step.source, step.target) == (("idle",), ("busy",))
        assert (step.fields, step.data) == ({"size": 2}, {"n": 2})
        assert step.actions == ("add", "tell", "work", "arm")
        assert StartActivity("work") in step.effects
        assert records[2].at - step.at == pytest.approx(10)

    run_on(backend, main)


def test_events_end_with_the_chart(backend: str) -> None:
    """The stream yields each step and ends after the last one."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), actions=ACTIONS)
            found: list[str] = []

            async def collect() -> None:
                found.extend([step.event async for step in one.events()])

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect)
                await anyio.sleep(1)
                one.post("go")
                await one.wait_for("idle")
                one.post("finish")
            assert found == ["go", "done", "finish"]

    run_on(backend, main)


def test_post_inside_a_listener_is_processed_after_the_step(backend: str) -> None:
    """A listener may post; what fails there is logged, and the outer post is not affected."""

    async def main() -> None:
        async with player() as one:
            order: list[str] = []

            def listen(step: Step) -> None:
                order.append(step.event)
                if step.event == "go":
                    assert one.post("back") is None
                    one.post("back")  # not handled in idle

            one.listen(listen)
            one.post("go")
            assert order == ["go", "back"]
            assert one.configuration == ("idle",)

    run_on(backend, main)


def test_instances_share_one_heap_and_no_tasks(backend: str) -> None:
    """Many instances need as many tasks as one, and their timers fire in order."""

    async def main() -> None:
        fired: list[str] = []
        async with Host() as host:
            host.start(worker(), actions=ACTIONS)
            before = len(anyio.get_running_tasks())
            for number in range(200):
                actions = Actions(activities={"work": forever}, timers={"limit": 200 - number})
                one = host.start(worker(), id=str(number), actions=actions)
                one.listen(lambda step: fired.append(step.name) if step.event == "late" else None)
            assert len(anyio.get_running_tasks()) == before
            for one in host:
                one.post("go")
            await anyio.sleep(300)
        assert fired == [str(number) for number in reversed(range(200))]

    async def forever(point: str) -> str:
        await anyio.sleep_forever()
        return ""

    run_on(backend, main)


def test_can_tells_what_post_would_do(backend: str) -> None:
    """`can` is about the present configuration and changes nothing."""

    async def main() -> None:
        async with player() as one:
            assert one.can("go")
            assert not one.can("back")
            with pytest.raises(EventError):
                one.can("boil")
            one.post("go")
            assert one.can("back")

    run_on(backend, main)


def test_instance_cannot_be_pickled(backend: str) -> None:
    """A running instance holds tasks; the error says what to use instead."""

    async def main() -> None:
        async with Host() as host:
            with pytest.raises(TypeError, match="snapshot"):
                pickle.dumps(host.start(worker(), actions=ACTIONS))

    run_on(backend, main)


RAISING = """
format: swapchart.chart/v1
name: Raising
events: {go: {}, up: {origin: chart}, end: {origin: process}}
actions: {lift: {raise: up}}
promises: {rest: [low, high]}
chart:
  states:
    low:
      initial: true
      ignores: [up]
      transitions: [{event: go, target: mid}, {event: end, target: gone}]
    mid: {enter: lift, ignores: [go, end], transitions: [{event: up, target: high}]}
    high: {ignores: [go, up], transitions: [{event: end, target: gone}]}
    gone: {final: true}
"""


@pytest.mark.parametrize("event", ["done", "broke", "late"])
def test_event_of_an_activity_or_timer_is_refused_from_outside(backend: str, event: str) -> None:
    """By each way in, whether that runs or not: the checker explored no such step."""

    async def main() -> None:
        async with Host() as host, player() as single:
            one = host.start(worker(), id="one", actions=ACTIONS)
            for is_busy in (False, True):
                if is_busy:
                    one.post("go")
                    single.post("go")
                before = copy.deepcopy(seen(one))
                for post in (one.post, single.post):
                    with pytest.raises(EventError, match=f"event '{event}': .*only .* sends it"):
                        post(event)
                futures = (
                    host.post_threadsafe("one", event), one.post_threadsafe(event),
                    single.post_threadsafe(event),
                )  # fmt: skip
                await anyio.sleep(0.1)
                assert all(isinstance(future.exception(), EventError) for future in futures)
                assert seen(one) == before
            await one.wait_for("idle")

    run_on(backend, main)


def test_event_that_the_chart_raises_is_refused_from_outside(backend: str) -> None:
    """An action raises it in the same step; one of the process may come from the program."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(Machine(read(RAISING)))
            with pytest.raises(EventError, match=r"'up': .*the chart itself.*origin: chart"):
                one.post("up")
            one.post("go")
            assert one.configuration == ("high",)
            one.post("end")
            assert one.is_final

    run_on(backend, main)


def test_activity_may_not_post_the_event_by_which_it_ends(backend: str) -> None:
    """It returns that event: posted, it would leave the activity running in another state."""
    told: list[str] = []

    async def work(context: ActivityContext[Any]) -> str:
        with pytest.raises(EventError, match="return it"):
            context.post("done")
        told.append("refused")
        return "done"

    async def main() -> None:
        actions = Actions(activities={"work": work}, timers={"limit": 60})
        async with Host() as host:
            one = host.start(worker(), actions=actions)
            one.post("go")
            await one.wait_for("idle")
            assert told == ["refused"]

    run_on(backend, main)


def test_replay_takes_the_events_of_every_sender(backend: str) -> None:
    """For tests, and to go through recorded steps again; fields are checked as for `post`."""

    async def main() -> None:
        async with Host() as host, player() as single:
            one = host.start(worker(), actions=ACTIONS)
            for instance in (one, single):
                instance.replay("go", {"size": 2})
                step = instance.replay("done", cause="recorded")
                assert step is not None
                assert (step.event, step.cause, step.target) == ("done", "recorded", ("idle",))
                with pytest.raises(EventError, match="expected field 'size'"):
                    instance.replay("go", {"size": 9})

    run_on(backend, main)
