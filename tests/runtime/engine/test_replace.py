"""Charts that change while instances run: migrations, new timers, and stores that fail."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from swapchart.machine import (
    Machine,
    PendingEvent,
    RunningActivity,
    Snapshot,
    SnapshotError,
    read,
)
from swapchart.runtime import Actions, ActivityContext, Answer, Host

from .backends import BACKENDS, WORKER, run_on, sleeper, worker
from .stores import MemoryStore

both = pytest.mark.parametrize("backend", BACKENDS)
WORK = Actions(activities={"work": sleeper}, timers={"limit": 60})

#: In `idle` there is a timer and an activity now; `busy` has another timer besides.
MORE = (
    WORKER.replace(
        "      initial: true\n", "      initial: true\n      enter: [wait, look, arm_late]\n"
    )
    .replace("      enter: [work, arm]\n", "      enter: [work, arm, wait]\n")
    .replace(
        "  late: {origin: timer, of: limit}\n",
        "  late: {origin: timer, of: limit}\n  bored: {origin: timer, of: patience}\n"
        "  never: {origin: timer, of: later}\n  seen: {origin: activity, of: look}\n",
    )
    .replace(
        "actions:\n",
        "actions:\n"
        "  wait: {do: {effect: timer.start, timer: patience}}\n"
        "  look: {do: {effect: activity.start, activity: look}}\n"
        "  arm_late: {when: n == 3, do: {effect: timer.start, timer: later}}\n",
    )
    .replace(
        "        - {event: finish, target: over}\n",
        "        - {event: finish bored seen never, target: over}\n",
    )
    .replace(
        "        - {event: late, target: idle}\n",
        "        - {event: late bored never seen, target: idle}\n",
    )
)


async def look(context: ActivityContext[None]) -> Answer:
    assert not context.is_resumed
    await anyio.sleep(500)
    return "seen"


MORE_WORK = Actions(
    activities={"work": sleeper, "look": look}, timers={"limit": 60, "patience": 30, "later": 5}
)


@both
def test_new_timers_and_activities_of_the_present_state_start(backend: str) -> None:
    """Timers of the old chart keep their deadlines; actions that depend on data are run."""

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store, wall=anyio.current_time) as host:
            idle = host.start(worker(), id="idle", actions=WORK)
            busy = host.start(worker(), id="busy", actions=WORK)
            busy.post("go")
            await anyio.sleep(5)
            deadline = busy.snapshot().timers["limit"]
            now = anyio.current_time()
            found = host.replace(Machine(read(MORE)), actions=MORE_WORK)
            assert found.moved == ("idle", "busy")
            assert idle.snapshot().timers == pytest.approx({"patience": now + 30})
            assert [run.activity for run in idle.snapshot().activities] == ["look"]
            timers = {"limit": deadline, "patience": now + 30}
            assert busy.snapshot().timers == pytest.approx(timers)
            for kept in store.load():
                live = replace(host[kept.id].snapshot(), taken_at=kept.taken_at, timers={})
                assert replace(kept, timers={}) == live
                assert kept.timers == pytest.approx(host[kept.id].snapshot().timers)
            await idle.wait_for("over")
            assert round(anyio.current_time() - now, 3) == 30

    run_on(backend, main)


@both
def test_replace_uses_the_migrations(backend: str) -> None:
    """Renamed states, other data, timers, activities, events and payloads: all of it goes on."""
    text = (
        WORKER.replace("name: Worker", "name: Worker\nversion: 2")
        .replace("    busy:", "    working:")
        .replace("target: busy", "target: working")
        .replace("  go: {", "  begin: {")
        .replace("event: go", "event: begin")
    )
    chart = Machine(read(text))

    def change(old: Snapshot) -> Snapshot:
        names = {"busy": "working"}
        return replace(
            old,
            configuration=tuple(names.get(name, name) for name in old.configuration),
            data={"n": 3},
            timers=dict.fromkeys(old.timers, old.taken_at + 7),
            activities=tuple(replace(run, event="begin") for run in old.activities),
            pending=(PendingEvent(event="begin"),) if old.configuration == ("idle",) else (),
            payload="new",
        )

    chart.migrations.add("", "2", change)

    async def main() -> None:
        store = MemoryStore()
        actions = replace(WORK, activities={"work": forever})
        async with Host(store=store, wall=anyio.current_time) as host:
            one = host.start(worker(), id="one", actions=actions, payload="old")
            two = host.start(worker(), id="two", actions=actions)
            one.post("go")
            now = anyio.current_time()
            assert host.replace(chart).moved == ("one", "two")
            assert (one.configuration, one.data, one.payload) == (("working",), {"n": 3}, "new")
            assert two.data == {"n": 3}  # the pending event came, and left the domain of `n`
            assert [run.event for run in one.snapshot().activities] == ["begin"]
            assert one.snapshot().version == "2"
            again = next(iter(store.load()))
            assert again.version == "2"
            await one.wait_for("idle")
            assert round(anyio.current_time() - now, 3) == 7
            host.remove("one")
            host.resume(chart, again, actions=actions)

    run_on(backend, main)


async def forever(point: str) -> str:
    await anyio.sleep_forever()
    return "done"


@both
def test_migration_can_end_and_start_what_runs(backend: str) -> None:
    chart = Machine(read(WORKER.replace("name: Worker", "name: Worker\nversion: 2")))

    def change(old: Snapshot) -> Snapshot:
        if old.configuration == ("busy",):
            return replace(old, configuration=("idle",), timers={}, activities=())
        work = (RunningActivity(activity="work"),)
        return replace(
            old, configuration=("busy",), timers={"limit": old.taken_at + 3}, activities=work
        )

    chart.migrations.add("", "2", change)

    async def main() -> None:
        actions = replace(WORK, activities={"work": forever})
        async with Host(wall=anyio.current_time) as host:
            one = host.start(worker(), id="one", actions=actions)
            two = host.start(worker(), id="two", actions=actions)
            one.post("go")
            waits = [one.snapshot(), two.snapshot()]
            assert host.replace(chart).moved == ("one", "two")
            assert (one.snapshot().timers, one.snapshot().activities) == ({}, ())
            assert [run.activity for run in two.snapshot().activities] == ["work"]
            await two.wait_for("idle")
            await anyio.sleep(100)
            assert (one.number, two.number) == (1, 1)
            assert [before.configuration for before in waits] == [("busy",), ("idle",)]

    run_on(backend, main)


@pytest.mark.parametrize("fails_at", range(1, 6))
@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("encode")])
def test_replace_reports_what_the_store_does_not_take(fails_at: int, error: Exception) -> None:
    """Each instance goes on with the chart that the store has of it; another try takes the rest."""
    new = Machine(
        read(WORKER.replace("{event: late, target: idle}", "{event: late, target: busy}"))
    )

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:
            for name in "abcde":
                host.start(worker(), id=name, actions=WORK).post("go")
            first = store.calls

            def fail(call: int, name: str, when: str) -> None:
                if call == first + fails_at and when == "before":
                    raise error

            store.fail = fail
            found = host.replace(new)
            failed = "abcde"[fails_at - 1]
            assert found.moved == tuple(name for name in "abcde" if name != failed)
            assert list(found.kept) == [failed]
            assert f"the store failed: {type(error).__name__}: {error}" in found.kept[failed]
            for kept in store.load():
                assert kept.digest == host[kept.id].machine.digest
                assert kept.digest == (worker() if kept.id == failed else new).digest
            assert host.replace(new).moved == (failed,)
            host[failed].post("back")

    anyio.run(main)


# ---- results of migrations
@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"id": 5}, "id: expected a text, got 5"),
        ({"id": "other"}, "id: expected 'w', got 'other'"),
        ({"timers": {"limit": float("nan")}}, "timers.limit: expected seconds, got nan"),
        ({"timers": {"limit": float("inf")}}, "timers.limit: expected seconds, got inf"),
        ({"timers": {"limit": 10**400}}, "timers.limit: expected seconds"),
        ({"timers": {"limit": None}}, "timers.limit: expected seconds, got None"),
        ({"timers": None}, "timers: expected a mapping"),
        ({"timers": {5: 1.0}}, "timers: expected a mapping with text keys"),
        ({"number": 1.5}, "number: expected a number >= 0, got 1.5"),
        ({"number": True}, "number: expected a number >= 0, got True"),
        ({"taken_at": "now"}, "taken_at: expected seconds, got 'now'"),
        ({"configuration": "idle"}, "configuration: expected a list, got 'idle'"),
        ({"configuration": None}, "configuration: expected a list, got None"),
        ({"configuration": (5,)}, "configuration: expected a text, got 5"),
        ({"data": [1]}, "data: expected a mapping"),
        ({"data": {"n": 1.0}}, "data.n: expected text, int or bool, got 1.0"),
        ({"data": {"n": None}}, "data.n: expected text, int or bool, got None"),
        ({"parameters": None}, "parameters: expected a mapping"),
        ({"memory": 5}, "memory: expected a mapping"),
        ({"memory": ("back",)}, "memory: expected a mapping"),
        ({"memory": (("back", 5),)}, "memory.back: expected a list, got 5"),
        ({"activities": ("work",)}, r"activities\[0\]: expected a mapping"),
        ({"activities": (RunningActivity(activity=5),)}, r"activities\[0\].activity: expected"),  # type: ignore[arg-type]
        ({"activities": None}, "activities: expected a list"),
        ({"pending": (PendingEvent(event="go", fields=None),)}, r"pending\[0\].fields: expected"),  # type: ignore[arg-type]
        ({"pending": (PendingEvent(event=None),)}, r"pending\[0\].event: expected a text"),  # type: ignore[arg-type]
        ({"digest": None}, "digest: expected a text"),
        ({"chart": None}, "chart: expected a text"),
    ],
)
def test_wrong_result_of_a_migration_is_refused(part: dict[str, Any], where: str) -> None:
    """By `resume` and by `replace`, with the path and the migration; and timers go on."""
    chart = Machine(read(WORKER.replace("name: Worker", "name: Worker\nversion: 2")))
    chart.migrations.add("", "2", lambda old: replace(old, **part))

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="w", actions=WORK)
            one.post("go")
            before = replace(one.snapshot(), taken_at=0, timers={})
            kept = host.replace(chart).kept
            assert "the migration from '' to '2'" in kept["w"]
            with pytest.raises(SnapshotError, match=where):
                raise SnapshotError("", kept["w"])
            assert replace(one.snapshot(), taken_at=0, timers={}) == before
            snapshot = one.snapshot()
            host.remove("w")
            with pytest.raises(SnapshotError, match=where):
                host.resume(chart, snapshot, actions=WORK)
            with pytest.raises(SnapshotError):
                host.resume(worker(), replace(snapshot, **{**part, "id": 7}), actions=WORK)
            assert len(host) == 0
            host.start(worker(), id="x", actions=WORK).post("go")
            await host["x"].wait_for("idle")

    run_on("asyncio", main)


@pytest.mark.parametrize("result", [None, {}, "snapshot", SimpleNamespace(id="w", version="")])
def test_migration_that_returns_no_snapshot_is_refused(result: Any) -> None:
    chart = Machine(read(WORKER.replace("name: Worker", "name: Worker\nversion: 2")))
    chart.migrations.add("", "2", lambda old: result)

    async def main() -> None:
        async with Host() as host:
            snapshot = host.start(worker(), id="w", actions=WORK).snapshot()
            assert "the migration from '' to '2' failed" in host.replace(chart).kept["w"]
            host.remove("w")
            with pytest.raises(SnapshotError, match="the migration from '' to '2' failed"):
                host.resume(chart, snapshot, actions=WORK)
            with pytest.raises(SnapshotError, match="expected a Snapshot"):
                host.resume(worker(), result, actions=WORK)

    anyio.run(main)


@both
def test_actions_alone_can_be_replaced(backend: str) -> None:
    """Later starts take the new function; a running activity goes on."""
    runs: list[str] = []

    async def other(point: str) -> str:
        runs.append("other")
        return "done"

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:
            old = host.start(worker(), id="v", actions=WORK)
            old.post("go")
            await anyio.sleep(1)
            one = host.start(worker(), id="w", actions=WORK)
            assert host.replace(worker()).moved == ()
            found = host.replace(worker(), actions=replace(WORK, activities={"work": other}))
            assert (found.moved, found.kept) == (("v", "w"), {})
            assert one.post("go") is not None
            await anyio.sleep(1)
            assert runs == ["other"]
            assert (one.configuration, old.configuration) == (("idle",), ("busy",))
            await anyio.sleep(10)
            assert (runs, old.configuration) == (["other"], ("idle",))

    run_on(backend, main)


# ---- what a host keeps
@both
def test_host_keeps_nothing_of_a_removed_instance(backend: str) -> None:
    """Not even while the heap has a timer of it that would have fired in two days."""

    class Payload:
        pass

    def start(host: Host, name: str) -> list[weakref.ref[Any]]:
        actions = Actions(activities={"work": sleeper}, timers={"limit": 172_800})
        one = host.start(worker(), id=name, actions=actions, payload=Payload())
        one.post("go")
        return [weakref.ref(actions), weakref.ref(one.payload)]

    async def main() -> None:
        async with Host() as host:
            found = [ref for number in range(5) for ref in start(host, f"w{number}")]
            await anyio.sleep(1)
            for number in range(5):
                host.remove(f"w{number}")
            await anyio.sleep(1)
            gc.collect()
            assert [ref() for ref in found] == [None] * 10
            assert host._checked._machines == {}

    run_on(backend, main)


def test_actions_are_checked_anew_for_another_chart() -> None:
    """Also if they have the address of earlier ones."""
    mute: Mapping[str, Callable[..., Any]] = {}

    async def main() -> None:
        async with Host() as host:
            for number in range(50):
                host.start(
                    worker(), actions=Actions(activities=WORK.activities, timers=WORK.timers)
                )
                with pytest.raises(Exception, match="expected an activity 'work'"):
                    host.start(worker(), actions=Actions(activities=mute, timers=WORK.timers))
                host.remove(f"Worker-{number + 1}")

    anyio.run(main)
