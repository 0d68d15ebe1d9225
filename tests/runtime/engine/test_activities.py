"""Activities of instances: failures are events, answers are checked, cancellation stays inside."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from swapchart.machine import Document, check, read
from swapchart.runtime import (
    Actions,
    ActivityContext,
    ActivityFunction,
    Answer,
    Host,
    Instance,
    Player,
)

from .backends import BACKENDS, MUTE, WORKER, run_on, sleeper, worker

both = pytest.mark.parametrize("backend", BACKENDS)


def start(host: Host, function: Any, document: Document | None = None) -> Instance[Any]:
    actions = Actions(activities={"work": function}, timers={"limit": 60})
    return host.start(document or worker(), id="w-1", actions=actions)


async def raising(point: str) -> Answer:
    raise OSError("no water")


async def unknown(point: str) -> Answer:
    return "dune"


async def foreign(point: str) -> Answer:
    return "back"


async def mute(point: str) -> Answer:
    return None


async def wrong_fields(point: str) -> Answer:
    return "done", {"size": 1}


FAULTS = [
    (raising, "no water"),
    (unknown, "returned 'dune'; expected one of broke, done"),
    (foreign, "returned 'back'; expected one of broke, done"),
    (mute, "returned no event"),
    (wrong_fields, "has no field 'size'"),
]


@both
@pytest.mark.parametrize(("function", "why"), FAULTS, ids=lambda x: getattr(x, "__name__", "why"))
def test_activity_that_fails_posts_the_event_of_its_failure(
    backend: str, function: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Exceptions and wrong answers become the declared event; the log names chart and instance."""

    async def main() -> None:
        async with Host() as host:
            one = start(host, function)
            one.post("go")
            await one.wait_for("broken")

    run_on(backend, main)
    (message,) = errors(caplog)
    assert message.startswith("Worker 'w-1': activity 'work' failed: ")
    assert why in message


@both
@pytest.mark.parametrize(("function", "why"), FAULTS, ids=lambda x: getattr(x, "__name__", "why"))
def test_activity_whose_failure_has_no_event_is_logged(
    backend: str, function: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A chart without such an event stays where it is, and the log says what to declare."""

    async def main() -> None:
        async with Host() as host:
            one = start(
                host,
                function,
                read(
                    MUTE.replace("finish: {}", "finish: {}\n  broke: {}")
                    .replace(
                        "    broken:",
                        "    broken_: {transitions: [{event: broke, target: idle}]}\n    broken:",
                    )
                    .replace("{event: back, target: idle}]}", "{event: back, target: broken_}]}")
                ),
            )
            one.post("go")
            await anyio.sleep(1)
            assert one.configuration == ("busy",)

    run_on(backend, main)
    assert any("no event reports the failure of activity 'work'" in m for m in errors(caplog))
    assert any("Worker 'w-1'" in message for message in errors(caplog))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@both
def test_on_error_that_returns_a_foreign_event_is_not_followed(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """on_error may choose among the events of the activity; anything else is the chart's choice."""

    async def main() -> None:
        async with Player(
            worker(), activities={"work": raising}, timers={"limit": 60},
            on_error=lambda name, error: "back",
        ) as one:  # fmt: skip
            one.post("go")
            await one.wait_for("broken")

    run_on(backend, main)
    assert any("on_error returned 'back'" in message for message in errors(caplog))


def test_activity_whose_inner_task_is_cancelled_fails_alone() -> None:
    """Cancelling a task that an activity awaits is a failure of that activity alone."""
    ended: list[str] = []

    async def waiting(point: str) -> Answer:
        inner = asyncio.ensure_future(asyncio.sleep(1000))
        asyncio.get_running_loop().call_later(1, inner.cancel)
        await inner
        return "done"

    async def main() -> None:
        async with Host() as host:
            one = start(host, waiting)
            other = host.start(
                worker(), actions=Actions(activities={"work": sleeper}, timers={"limit": 60})
            )
            one.post("go")
            other.post("go")
            await one.wait_for("broken")
            await other.wait_for("idle")
            ended.append("block")

    run_on("asyncio", main)
    assert ended == ["block"]


@both
def test_activity_cancelled_by_the_chart_is_no_failure(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving the state cancels the work, and its answer is dropped, silently."""
    cancelled: list[str] = []

    async def stubborn(point: str) -> Answer:
        try:
            await anyio.sleep(10)
        except anyio.get_cancelled_exc_class():
            cancelled.append(point)
            raise
        return "done"

    async def main() -> None:
        async with Host() as host:
            one = start(host, stubborn)
            one.post("go")
            await anyio.sleep(1)
            one.post("back")
            await anyio.sleep(20)
            assert one.configuration == ("idle",)
            one.post("go")
            await anyio.sleep(1)

    run_on(backend, main)
    assert cancelled == ["", ""]
    assert errors(caplog) == []


@both
def test_activity_gets_what_started_it(backend: str) -> None:
    """A context has the instance, the event with its fields, the data and the payload."""
    contexts: list[ActivityContext[dict[str, int]]] = []

    async def work(context: ActivityContext[dict[str, int]]) -> Answer:
        contexts.append(context)
        context.payload["seen"] += 1
        return "done"

    functions: dict[str, ActivityFunction] = {"work": work}

    async def main() -> None:
        async with Host() as host:
            actions = Actions(activities=functions, timers={"limit": 60})
            document = read(WORKER.replace("go: {data", "go: {payload: true, data"))
            one = host.start(document, id="A-17", actions=actions, payload={"seen": 0})
            one.post("go", {"size": 2}, payload="parcel")
            await one.wait_for("idle")
            assert one.payload == {"seen": 1}

    run_on(backend, main)
    (context,) = contexts
    assert (context.id, context.activity, context.event) == ("A-17", "work", "go")
    assert (context.fields, context.data) == ({"size": 2}, {"n": 2})
    assert (context.event_payload, context.is_resumed) == ("parcel", False)


def test_check_asks_what_follows_on_the_failure_of_an_activity() -> None:
    """An activity needs an event for its failure, or a place among the unsure ones."""
    kind = "an activity whose failure has no event"
    mute = read(MUTE)
    unsure = read(MUTE + "promises: {unsure: [work]}\n")

    assert kind in {finding.kind for finding in check(mute).findings}
    assert kind not in {finding.kind for finding in check(unsure).findings}
    assert kind not in {finding.kind for finding in check(read(WORKER)).findings}
    lost = WORKER.replace("        - {event: broke, target: broken}\n", "")
    lost = lost.replace(
        "- {event: finish,", "- {event: broke, target: broken}\n        - {event: finish,"
    )
    assert any("broke in busy" in finding.sentence for finding in check(read(lost)).findings)
