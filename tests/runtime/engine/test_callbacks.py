"""Callbacks that look at an instance, or remove it, in the middle of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.machine import Snapshot
from swapchart.runtime import Actions, EndedError, Host, HostStateError, Instance, Step

from .backends import BACKENDS, run_on, sleeper, worker
from .stores import MemoryStore

both = pytest.mark.parametrize("backend", BACKENDS)
CALLBACKS = ("on_step", "listener", "host listener", "on_notify")
callbacks = pytest.mark.parametrize("callback", CALLBACKS)
WORK = Actions(activities={"work": sleeper}, timers={"limit": 60})


def started(
    host: Host, callback: str, act: Callable[[], object], event: str = "go"
) -> Instance[Any]:
    """Start a worker that calls *act* from *callback* when it takes *event*."""

    def on_step(step: Step) -> None:
        if step.event == event:
            act()

    def on_notify(name: str) -> None:
        act()

    actions = WORK
    if callback == "on_step":
        actions = replace(WORK, on_step=on_step)
    if callback == "on_notify":
        actions = replace(WORK, on_notify=on_notify)
    one = host.start(worker(), id="w", actions=actions)
    if callback == "listener":
        one.listen(on_step)
    if callback == "host listener":
        host.listen(on_step)
    return one


def alike(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* without the time at which it was taken."""
    timers = {name: round(at, 3) for name, at in snapshot.timers.items()}
    return replace(snapshot, taken_at=0.0, timers=timers)


# ---- snapshots
@both
@callbacks
def test_snapshot_of_a_callback_has_what_the_step_starts(backend: str, callback: str) -> None:
    """It is the snapshot that the instance gives after the step."""
    taken: list[Snapshot] = []

    async def main() -> None:
        async with Host(wall=anyio.current_time) as host:
            one = started(host, callback, lambda: taken.append(one.snapshot()))
            one.post("go")
            after = one.snapshot()
            assert [run.activity for run in after.activities] == ["work"]
            assert [*after.timers] == ["limit"]
            assert alike(taken[0]) == alike(after)

    run_on(backend, main)


@both
def test_snapshot_of_a_callback_lacks_what_the_step_ends(backend: str) -> None:
    taken: list[Snapshot] = []

    async def main() -> None:
        async with Host(wall=anyio.current_time) as host:
            one = started(host, "listener", lambda: taken.append(one.snapshot()), "back")
            one.post("go")
            one.post("back")
            assert (taken[0].activities, taken[0].timers) == ((), {})

    run_on(backend, main)


@both
@pytest.mark.parametrize("end", ["remove", "host", "exception"])
def test_last_snapshot_of_an_ended_instance_is_the_one_of_its_end(backend: str, end: str) -> None:
    """Deadlines, activities and the time are those of the end, however much later it is taken."""

    async def main() -> None:
        before: list[Snapshot] = []
        with pytest.raises(ZeroDivisionError) if end == "exception" else anyio.CancelScope():
            async with Host(wall=anyio.current_time) as host:
                one = host.start(worker(), id="w", actions=WORK)
                one.post("go")
                await anyio.sleep(5)
                before.append(one.snapshot())
                if end == "remove":
                    host.remove("w")
                    await anyio.sleep(7)
                if end == "exception":
                    raise ZeroDivisionError
        await anyio.sleep(20)
        assert [*one.snapshot().timers] == ["limit"]
        assert alike(one.snapshot()) == alike(before[0])
        assert round(one.snapshot().taken_at - before[0].taken_at, 3) == 0
        async with Host(wall=anyio.current_time) as host:
            began = anyio.current_time()
            never = replace(WORK, activities={"work": anyio_forever})
            again = host.resume(worker(), one.snapshot(), actions=never, timers="remaining")
            await again.wait_for("idle")
            assert round(anyio.current_time() - began, 3) == 55

    run_on(backend, main)


async def anyio_forever(point: str) -> str:
    await anyio.sleep_forever()
    return "done"


# ---- removal
@both
@callbacks
def test_instance_that_a_callback_removes_starts_nothing_more(backend: str, callback: str) -> None:
    """No activity, no timer, no further event; and the store keeps nothing of it."""
    begun: list[str] = []

    async def work(point: str) -> str:
        begun.append(point)
        await anyio.sleep_forever()
        return "done"

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store, wall=anyio.current_time) as host:

            def act() -> None:
                assert one.post("back") is None
                host.remove("w")
                with pytest.raises(HostStateError, match="was removed"):
                    one.post("back")

            one = started(host, callback, act)
            one._actions = replace(one._actions, activities={"work": work})
            step = one.post("go")
            assert step is not None
            assert step.target == ("busy",)
            assert store.kept == {}
            await anyio.sleep(100)
            assert (begun, store.kept, one.number) == ([], {}, 1)
            last = one.snapshot()
            assert last.configuration == ("busy",)
            assert [run.activity for run in last.activities] == ["work"]
            assert [*last.timers] == ["limit"]
            assert [event.event for event in last.pending] == ["back"]
            host.resume(worker(), last, actions=WORK)
            assert host["w"].configuration == ("idle",)

    run_on(backend, main)


@both
@pytest.mark.parametrize("where", ["begun", "inner", "on_error"])
def test_instance_can_be_removed_wherever_code_is_called(backend: str, where: str) -> None:
    """At its first step, in a step after a step, and while an activity fails."""

    async def fails(point: str) -> str:
        raise OSError("injected")

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:

            def on_step(step: Step) -> None:
                if where == "inner" and step.event == "go":
                    host["w"].post("back")
                    host["w"].post("go")
                if where == "inner" and step.event == "back":
                    host.remove("w")

            def on_error(name: str, error: Exception) -> None:
                if where == "on_error":
                    host.remove("w")

            if where == "begun":
                host.listen(lambda step: host.remove("w"))
            actions = Actions(
                activities={"work": fails}, timers={"limit": 60}, on_step=on_step,
                on_error=on_error,
            )  # fmt: skip
            one = host.start(worker(), id="w", actions=actions)
            if where != "begun":
                one.post("go")
                await anyio.sleep(1)
            assert (store.kept, "w" in host) == ({}, False)
            assert one.number == {"begun": 0, "inner": 2, "on_error": 1}[where]

    run_on(backend, main)


@both
@callbacks
def test_waiting_for_the_state_in_which_a_callback_removes_the_instance(
    backend: str, callback: str
) -> None:
    """The state was reached; a caller that waits for another one gets an error."""
    found: list[str] = []

    async def wait(one: Instance[Any], state: str) -> None:
        try:
            await one.wait_for(state)
        except EndedError as error:
            found.append(error.why)
        else:
            found.append(state)

    async def main() -> None:
        async with Host() as host, anyio.create_task_group() as tasks:
            event = "go" if callback == "on_notify" else "finish"
            one = started(host, callback, lambda: host.remove("w"), event)
            tasks.start_soon(wait, one, "busy" if callback == "on_notify" else "over")
            tasks.start_soon(wait, one, "broken")
            await anyio.sleep(1)
            one.post(event)

    run_on(backend, main)
    assert sorted(found) in (
        ["over", "the chart has ended"],
        ["busy", "the instance was removed from its host"],
    )


@both
def test_host_that_ends_does_not_break_a_wait_for_a_final_state(backend: str) -> None:
    """The chart ended in the last step before the end of the block."""
    found: list[str] = []

    async def wait(one: Instance[Any]) -> None:
        await one.wait_for("over")
        found.append("over")

    async def main() -> None:
        async with anyio.create_task_group() as tasks, Host() as host:
            one = host.start(worker(), id="w", actions=WORK)
            tasks.start_soon(wait, one)
            await anyio.sleep(1)
            one.post("finish")

    run_on(backend, main)
    assert found == ["over"]


@both
def test_instance_that_the_store_does_not_forget_stays(backend: str) -> None:
    """`remove` removes both or nothing, so that no removed instance is resumed later."""

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:
            one = host.start(worker(), id="w", actions=WORK)
            one.post("go")
            store.fail_next = OSError("read-only file system")
            with pytest.raises(OSError, match="read-only"):
                host.remove("w")
            assert host["w"] is one
            one.post("back")
            host.remove("w")
            assert store.kept == {}

    run_on(backend, main)
