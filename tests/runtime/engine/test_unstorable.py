"""Payloads that a store cannot keep harm no other instance or step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from swapchart.adapters.store import InstanceStore
from swapchart.machine import ChartError, Machine, Snapshot, SnapshotError, StepError, read
from swapchart.runtime import Actions, Host, Step

from .backends import BACKENDS, WORKER, run_on, sleeper
from .stores import MemoryStore

both = pytest.mark.parametrize("backend", BACKENDS)
CHART = Machine(
    read(WORKER.replace("go: {data: {size: [1, 2]}}", "go: {data: {size: [1, 2]}, payload: true}"))
)
WORK = Actions(activities={"work": sleeper}, timers={"limit": 60})
UNKEPT: Any = object()


@both
def test_event_whose_payload_cannot_be_kept_is_not_delivered_again(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A listener posts it; waiting for the store it would be in each further snapshot."""

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:
            one = host.start(CHART, id="w", actions=WORK)
            one.post("go")

            def listen(step: Step) -> None:
                if step.event == "back":
                    one.post("go", payload=UNKEPT)

            one.listen(listen)
            one.post("back")
            assert one.configuration == ("idle",)
            assert one.snapshot().pending == ()
            one.post("go", payload={"kept": True})
            await anyio.sleep(200)
            assert store.load()[0].configuration == ("idle",)

    run_on(backend, main)
    assert "event 'go' from user was not taken" in caplog.text
    assert "expected a value of JSON, got object" in caplog.text


def test_payload_that_encode_does_not_take_is_an_error_with_its_path() -> None:
    def encode(payload: Any) -> Any:
        raise TypeError("no order")

    async def main() -> None:
        with InstanceStore(None, encode=encode) as store:
            async with Host(store=store) as host:
                one = host.start(CHART, id="w", actions=WORK)
                with pytest.raises(StepError, match=r"activities\.work.*`encode` failed: Type"):
                    one.post("go", payload=1)
                one.post("go")
                with pytest.raises(SnapshotError, match=r"payload: `encode` failed: TypeError: no"):
                    host.start(CHART, id="x", actions=WORK, payload=1)

    run_on("asyncio", main)


@pytest.mark.parametrize("payload", ["\ud800", {"\udfff": ["ä", "\ud800"]}, "ä", 10**4000])
def test_payload_of_any_text_comes_back(payload: Any) -> None:
    """JSON can have one half of a surrogate pair, which UTF-8 cannot."""
    with InstanceStore(None) as store:
        store.save(snapshot(payload=payload))
        assert [kept.payload for kept in store.load()] == [payload]


@pytest.mark.parametrize("changed", [{"payload": [10**5000]}, {"number": 2**63}])
def test_number_that_cannot_be_kept_is_an_error_with_its_path(changed: Any) -> None:
    """JSON with such a number could not be read, and SQLite has 64 bits."""
    with pytest.raises(SnapshotError, match=next(iter(changed))):
        Snapshot.from_json(snapshot(**changed).to_json())


def snapshot(**changed: Any) -> Snapshot:
    made = Snapshot(
        id="w", chart="Worker", digest=CHART.digest, taken_at=0.0, configuration=("idle",),
        data={"n": 0},
    )  # fmt: skip
    return replace(made, **changed)


@both
def test_resumed_instance_is_in_a_store_that_does_not_have_it(backend: str) -> None:
    """Its snapshot came from elsewhere, and the process may die before its first step."""

    async def main() -> None:
        store = MemoryStore()
        async with Host(store=store) as host:
            store.fail_next = OSError("disk full")
            with pytest.raises(OSError, match="disk full"):
                host.resume(CHART, snapshot(payload=7), actions=WORK)
            assert "w" not in host
            host.resume(CHART, snapshot(payload=7), actions=WORK)
            assert [kept.payload for kept in store.load()] == [7]

    run_on(backend, main)


@pytest.mark.parametrize("seconds", [10**400, 1e12, 1e300, float("inf")])
def test_timer_longer_than_a_snapshot_can_hold_is_refused(seconds: Any) -> None:
    with pytest.raises(ChartError, match=r"timers\.limit: expected seconds >= 0"):
        replace(WORK, timers={"limit": seconds}).check(CHART)


@pytest.mark.parametrize("seconds", ["1653440w", "999999999w", 1e12])
def test_duration_longer_than_a_snapshot_can_hold_is_refused(seconds: Any) -> None:
    text = WORKER.replace("actions:\n", f"timers: {{limit: {seconds}}}\nactions:\n", 1)
    with pytest.raises(ChartError, match=r"timers\.limit: expected a duration"):
        read(text)


@pytest.mark.parametrize("seconds", [999_999_999_999, "1653439w"])
def test_longest_timer_is_in_a_snapshot_that_can_be_read(seconds: Any) -> None:
    chart = read(WORKER.replace("actions:\n", f"timers: {{limit: {seconds}}}\nactions:\n", 1))

    async def main() -> None:
        async with Host() as host:
            one = host.start(chart, actions=Actions(activities={"work": sleeper}))
            one.post("go")
            made = one.snapshot()
            assert Snapshot.from_json(made.to_json()) == made

    run_on("asyncio", main)
