"""Snapshots: another process goes on exactly where an instance was left."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from swapchart.machine import Machine, Snapshot, SnapshotError, StepError, read
from swapchart.runtime import Actions, ActivityContext, Answer, Host, HostStateError, Step, Store

from .backends import BACKENDS, WORKER, run_on, sleeper, worker
from .orders import ACTIONS, events, follow, machine, told, ways

both = pytest.mark.parametrize("backend", BACKENDS)
WORK = Actions(activities={"work": sleeper}, timers={"limit": 60})


@pytest.mark.parametrize("needed", [1, 2])
def test_resumed_process_does_what_the_uninterrupted_one_does(needed: int) -> None:
    """At each step of the order chart: snapshot, JSON, a new interpreter, and the same goes on."""
    chart = machine()
    snapshots: list[dict[str, Any]] = []
    expected: list[Any] = []

    async def main() -> None:
        async with Host() as host:
            for number, way in enumerate(ways(chart, needed)):
                for event, fields in events(chart.document):
                    one = host.start(
                        chart, id=f"A-{number}", actions=ACTIONS, parameters={"needed": needed},
                        payload={"order": number},
                    )  # fmt: skip
                    for earlier, given in way:
                        one.replay(earlier, given)
                    if len(snapshots) == number:
                        snapshots.append(one.snapshot().to_json())
                    expected.append(told(one, event, fields))
                    host.remove(one.id)
                    await anyio.lowlevel.checkpoint()

    anyio.run(main)
    assert len(snapshots) > 100
    program = Path(__file__).with_name("orders.py")
    done = subprocess.run(
        [sys.executable, program], input=json.dumps(snapshots), capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


# ---- timers and activities
def resumed(
    backend: str, *, gap_s: float, timers: Any = "deadline", activities: Any = "restart"
) -> list[tuple[str, float]]:
    """Run a worker for 20 s, stop it for *gap_s*, resume it; return events and their times."""
    found: list[tuple[str, float]] = []

    async def slow(context: ActivityContext[None]) -> Answer:
        found.append((f"work again: {context.is_resumed}", 0.0))
        await anyio.sleep(1000)
        return "done"

    actions = Actions(activities={"work": slow}, timers={"limit": 60})

    async def main() -> None:
        async with Host(wall=lambda: 5e8 + anyio.current_time()) as host:
            one = host.start(worker(), id="w", actions=actions)
            one.post("go")
            await anyio.sleep(20)
            raw = json.dumps(one.snapshot().to_json())
        await anyio.sleep(gap_s)
        began = anyio.current_time()
        async with Host(wall=lambda: 5e8 + anyio.current_time()) as host:
            snapshot = Snapshot.from_json(json.loads(raw))
            one = host.resume(
                worker(), snapshot, actions=actions, timers=timers, activities=activities
            )
            host.listen(
                lambda step: found.append((step.event, round(anyio.current_time() - began, 3)))
            )
            await anyio.sleep(100)

    run_on(backend, main)
    return found


@both
@pytest.mark.parametrize(
    ("policy", "gap_s", "fires_at"),
    [
        ("deadline", 10, 30), ("deadline", 500, 0), ("remaining", 500, 40), ("restart", 500, 60),
    ],
)  # fmt: skip
def test_timer_of_a_resumed_instance_fires_by_its_policy(
    backend: str, policy: str, gap_s: float, fires_at: float
) -> None:
    """A deadline that has passed fires at once; the time left or the whole one can be asked for."""
    found = resumed(backend, gap_s=gap_s, timers=policy)

    assert ("late", fires_at) in found
    assert found.count(("late", fires_at)) == 1


@both
def test_activity_of_a_resumed_instance_runs_again(backend: str) -> None:
    """It is told that it was resumed."""
    found = [event for event, _ in resumed(backend, gap_s=1)]

    assert found[:2] == ["work again: False", "work again: True"]


@both
def test_activity_of_a_resumed_instance_can_fail_instead(backend: str) -> None:
    """Its failure is the event of the chart, at once."""
    found = resumed(backend, gap_s=1, activities="fail")

    assert "broke" not in [event for event, _ in found]  # posted before the listener was added
    assert "work again: True" not in [event for event, _ in found]


@both
def test_event_posted_inside_a_step_is_in_the_snapshot(backend: str) -> None:
    """A snapshot that a listener takes has the events that wait, and they come after a resume."""
    taken: list[Snapshot] = []

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="w", actions=WORK)

            def listen(step: Step) -> None:
                if step.event == "go":
                    one.post("back", cause="listener")
                    taken.append(one.snapshot())

            one.listen(listen)
            one.post("go")
        async with Host() as host:
            again = host.resume(worker(), taken[0], actions=WORK)
            assert again.configuration == ("idle",)
            assert again.number == 2

    run_on(backend, main)
    assert [(e.event, e.cause) for e in taken[0].pending] == [("back", "listener")]
    assert taken[0].configuration == ("busy",)
    assert pickle.loads(pickle.dumps(taken[0])) == taken[0]


# ---- what does not fit
def a_snapshot() -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def main() -> None:
        async with Host() as host:
            one = host.start(machine(), id="A-17", actions=ACTIONS, payload={"a": [1, None]})
            for event in ("submit", "hold"):
                one.post(event, {"value": 50} if event == "submit" else {})
            one.post("resume")
            found.append(one.snapshot().to_json())

    anyio.run(main)
    return found[0]


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in path[:-2]:
            raw = raw[key]
        raw[path[-2]] = path[-1]

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("chart", "Loop"), "chart: expected 'Order', got 'Loop'"),
        (put("version", "0"), "version: expected '1', got '0'; add a migration from '0'"),
        (put("digest", "0" * 64), "digest: expected .* the chart has changed"),
        (put("format", "x/v1"), "format: expected 'swapchart.snapshot/v1'"),
        (put("configuration", ["open"]), "configuration: the chart can never be in open"),
        (put("configuration", ["nowhere"]), "configuration: the chart has no state 'nowhere'"),
        (put("configuration", "open"), "configuration: expected a list"),
        (put("data", "amount", 51), "data.amount: expected one of 0, 50, 5000; got 51"),
        (put("data", "amount", True), "data.amount: expected one of"),
        (put("data", "amount", None), "data.amount: expected text, int or bool"),
        (put("data", "money", 1), "data.money: the chart has no such variable"),
        (put("data", {}), "data.amount|data.approvals|data.reminders: is missing"),
        (put("parameters", "needed", 9), "parameters.needed: expected one of 1, 2; got 9"),
        (put("memory", "back", ["held"]), "memory.back: expected states inside 'open'"),
        (put("memory", "front", ["held"]), "memory.front: the chart has no such history state"),
        (put("timers", "tea", 5.0), "timers.tea: the chart has no such timer"),
        (put("timers", "escalation", "x"), "timers.escalation: expected seconds"),
        (put("activities", 0, "activity", "sing"), "activities.sing: the chart has no such"),
        (put("activities", 0, "event", "sing"), "activities.reserve: event 'sing'"),
        (put("number", -1), "number: expected a number >= 0"),
        (put("taken_at", float("nan")), "taken_at: expected seconds"),
        (put("pending", [{}]), r"pending\[0\].event: is missing"),
        (put("extra", 1), "snapshot.extra: unknown key"),
        (lambda raw: raw.pop("data"), "snapshot.data: is missing"),
    ],
)
def test_snapshot_that_does_not_fit_is_refused(change: Any, why: str) -> None:
    """The error says where and why, and no instance is made."""
    raw = a_snapshot()
    change(raw)

    async def main() -> None:
        async with Host() as host:
            with pytest.raises(SnapshotError, match=why):
                host.resume(machine(), Snapshot.from_json(raw), actions=ACTIONS)
            assert len(host) == 0

    anyio.run(main)


def test_snapshot_with_a_payload_that_json_lacks_needs_encode() -> None:
    """A tuple would come back as a list, so it is refused; encode and decode keep it."""
    snapshot = replace(Snapshot.from_json(a_snapshot()), payload=(1, 2))
    with pytest.raises(SnapshotError, match="payload: expected a value of JSON, got tuple"):
        snapshot.to_json()

    raw = json.loads(json.dumps(snapshot.to_json(list)))
    assert Snapshot.from_json(raw, tuple).payload == (1, 2)


# ---- versions
def test_snapshot_of_an_earlier_version_is_migrated() -> None:
    """Each step of the way changes the snapshot; the last one has to fit."""
    text = WORKER.replace("name: Worker", "name: Worker\nversion: 3").replace("idle", "waiting")
    chart = Machine(read(text))

    def rename(old: Snapshot) -> Snapshot:
        names = ["waiting" if name == "idle" else name for name in old.configuration]
        return replace(old, configuration=tuple(names))

    chart.migrations.add("", "2", lambda old: replace(old, data={"n": 1}))
    chart.migrations.add("2", "3", rename)

    async def main() -> None:
        async with Host() as host:
            old = host.start(worker(), id="w", actions=WORK).snapshot()
            host.remove("w")
            with pytest.raises(SnapshotError, match="expected '', got '3'"):
                host.resume(worker(), replace(old, version="3"), actions=WORK)
            one = host.resume(chart, old, actions=WORK)
            assert (one.configuration, one.data) == (("waiting",), {"n": 1})

    anyio.run(main)
    with pytest.raises(ValueError, match="circle"):
        chart.migrations.add("3", "", rename)


def test_migration_that_fails_is_reported() -> None:
    """The error names both versions, and the exception is its cause."""
    chart = Machine(read(WORKER.replace("name: Worker", "name: Worker\nversion: 2")))
    chart.migrations.add("", "2", lambda old: old.missing)  # type: ignore[attr-defined]

    async def main() -> None:
        async with Host() as host:
            old = host.start(worker(), id="w", actions=WORK).snapshot()
            host.remove("w")
            with pytest.raises(SnapshotError, match="migration from '' to '2' failed"):
                host.resume(chart, old, actions=WORK)

    anyio.run(main)


@both
def test_replaced_chart_takes_the_instances_that_fit(backend: str) -> None:
    """Instances whose states exist go on with the new chart, their work and timers included."""
    text = WORKER.replace("  back: {}\n", "  back: {}\n  pat: {}\n").replace(
        "- {event: done, target: idle}", "- {event: done, target: over}\n        - {event: pat}"
    )
    text = text.replace("    broken: {", "    wreck: {").replace("target: broken", "target: wreck")
    chart = Machine(read(text))

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="one", actions=WORK)
            two = host.start(worker(), id="two", actions=WORK)
            one.post("go")
            two.post("go")
            two.replay("broke")
            assert not chart.document.guards
            found = host.replace(chart)
            assert found.moved == ("one",)
            assert "no state 'broken'" in found.kept["two"]
            assert one.can("pat")
            await one.wait_for("over")
            two.post("back")
            assert two.machine is not chart
            assert host.replace(chart).moved == ("two",)

    run_on(backend, main)


# ---- stores
class Broken:
    """A store that fails from the n-th call on."""

    def __init__(self, works: int) -> None:
        self.works = works
        self.saved: list[Snapshot] = []

    def save(self, snapshot: Snapshot) -> None:
        self.works -= 1
        if self.works < 0:
            raise OSError("disk full")
        self.saved.append(snapshot)

    def load(self) -> list[Snapshot]:
        return self.saved

    def has(self, name: str) -> bool:
        return any(kept.id == name for kept in self.saved)

    def forget(self, name: str) -> None:
        self.saved = [kept for kept in self.saved if kept.id != name]


@both
def test_step_that_the_store_does_not_take_is_undone(backend: str) -> None:
    """No effect of it happens, and the instance is as before."""

    async def main() -> None:
        store = Broken(2)
        kept: Store = store
        async with Host(store=kept) as host:
            one = host.start(worker(), id="w", actions=WORK)
            one.post("go", {"size": 2})
            assert [run.activity for run in store.saved[-1].activities] == ["work"]
            assert list(store.saved[-1].timers) == ["limit"]
            before = one.snapshot()
            with pytest.raises(StepError, match="the store failed: OSError: disk full"):
                one.post("back")
            after = one.snapshot()
            assert replace(after, taken_at=0, timers={}) == replace(before, taken_at=0, timers={})
            await anyio.sleep(1)
            assert one.configuration == ("busy",)
            host.remove("w")
            assert store.saved == []
            with pytest.raises(OSError, match="disk full"):
                host.start(worker(), id="x", actions=WORK)
            assert "x" not in host

    run_on(backend, main)


def test_follow_is_what_the_other_process_runs() -> None:
    """The program of the other process takes what this one takes."""
    assert len(anyio.run(follow, [a_snapshot()])) == len(events(machine().document))


class Flaky:
    """A store that fails while it is told to, and keeps the last snapshot of each instance."""

    def __init__(self) -> None:
        self.is_failing = False
        self.kept: dict[str, Snapshot] = {}

    def save(self, snapshot: Snapshot) -> None:
        if self.is_failing:
            raise OSError("database is locked")
        self.kept[snapshot.id] = snapshot

    def load(self) -> list[Snapshot]:
        return list(self.kept.values())

    def has(self, name: str) -> bool:
        return name in self.kept

    def forget(self, name: str) -> None:
        self.kept.pop(name, None)


@both
@pytest.mark.parametrize("answer", ["done", "raise"])
def test_event_of_an_activity_that_the_store_refused_is_delivered_again(
    backend: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile the activity counts as running, so that a restart would run it again."""
    store = Flaky()

    async def work(context: ActivityContext[None]) -> Answer:
        del context
        await anyio.sleep(1)
        if answer == "raise":
            raise RuntimeError("no answer")
        return answer

    async def main() -> None:
        actions = Actions(activities={"work": work}, timers={"limit": 600})
        async with Host(store=store) as host:
            one = host.start(worker(), id="w", actions=actions)
            one.post("go", {"size": 1})
            store.is_failing = True
            await anyio.sleep(20)
            assert one.configuration == ("busy",)
            assert [activity.activity for activity in one.snapshot().activities] == ["work"]
            store.is_failing = False
            await anyio.sleep(61)
            assert one.configuration == ("idle" if answer == "done" else "broken",)
            assert one.snapshot().activities == ()
            assert store.kept["w"].configuration == one.configuration

    run_on(backend, main)
    assert "is delivered again" in caplog.text


@both
def test_event_of_a_timer_that_the_store_refused_is_delivered_again(backend: str) -> None:
    store = Flaky()

    async def main() -> None:
        async with Host(store=store) as host:
            one = host.start(worker(), id="w", actions=WORK)
            one.post("go", {"size": 1})
            store.is_failing = True
            await anyio.sleep(70)
            assert one.configuration == ("busy",)
            store.is_failing = False
            await anyio.sleep(61)
            assert one.configuration == ("idle",)

    run_on(backend, main)


@both
def test_listener_that_raises_a_cancellation_loses_no_effect(backend: str) -> None:
    """The error reaches the poster, and the activity and the timer of the step run."""

    class Canceled(BaseException):
        pass

    def fail(step: Step) -> None:
        raise Canceled

    async def main() -> None:
        actions = replace(WORK, on_step=fail)
        async with Host() as host:
            one = host.start(worker(), id="w", actions=actions)
            with pytest.raises(Canceled):
                one.post("go", {"size": 1})
            assert one.configuration == ("busy",)
            assert [activity.activity for activity in one.snapshot().activities] == ["work"]
            assert [*one.snapshot().timers] == ["limit"]

    run_on(backend, main)


def test_resume_with_an_unknown_policy_leaves_no_instance() -> None:
    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="w", actions=WORK)
            snapshot = one.snapshot()
            host.remove("w")
            with pytest.raises(ValueError, match="timers: expected one of"):
                host.resume(worker(), snapshot, actions=WORK, timers="bogus")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="activities: expected one of"):
                host.resume(worker(), snapshot, actions=WORK, activities="x")  # type: ignore[arg-type]
            assert "w" not in host
            assert host.resume(worker(), snapshot, actions=WORK).configuration == ("idle",)

    run_on("asyncio", main)


def test_host_gives_an_id_that_no_resumed_instance_has() -> None:
    async def main() -> None:
        async with Host() as host:
            snapshot = host.start(worker(), actions=WORK).snapshot()
        async with Host() as host:
            resumed = host.resume(worker(), snapshot, actions=WORK)
            assert host.start(worker(), actions=WORK).id != resumed.id
            with pytest.raises(HostStateError, match="is a text, got 17"):
                host.start(worker(), id=17, actions=WORK)  # type: ignore[call-overload]

    run_on("asyncio", main)


def test_initial_entry_that_leaves_the_domain_of_a_datum_is_refused() -> None:
    text = WORKER.replace(
        "    idle:\n      initial: true\n", "    idle:\n      initial: true\n      enter: far\n"
    ).replace("actions:\n", "actions:\n  far: {set: {n: n + 5}}\n")

    async def main() -> None:
        async with Host() as host:
            with pytest.raises(StepError, match="n is 5, expected one of 0, 1, 2, 3"):
                host.start(read(text), id="w", actions=WORK)
            assert "w" not in host

    run_on("asyncio", main)
