"""Log lines about models."""

from __future__ import annotations

import logging
import re

import pytest
from tools.virtual import World, hook, run_scenario, swap_and_unload

from swapchart.adapters.app.transition_log import TransitionLog
from swapchart.runtime import Exit, Transition
from swapchart.runtime.testing import CommandScript, ServerScript, service


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return level and text of the lines, with every pid as N."""
    return [
        re.sub(r"pid=\d+", "pid=N", f"{record.levelname} {record.getMessage()}")
        for record in caplog.records
        if record.name == "swapchart.models"
    ]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swapchart.models")


def test_swap_is_logged_with_its_reasons_and_times(caplog: pytest.LogCaptureFixture) -> None:
    """Loading, ready, eviction and end are a line each, and so is a hook that failed."""

    async def scenario(world: World) -> None:
        world.supervisor.listen(TransitionLog().take)
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.at(20.0)
        world.client("b", hold_s=1.0)
        await world.until("b", "ready")

    failing = hook("save")
    run_scenario(
        scenario,
        service("a", hooks={"beforeStop": (failing,)}),
        service("b"),
        servers={"a": ServerScript(healthy_s=5.0, terminate_s=2.0)},
        commands={"save": CommandScript(exit=Exit(code=3), takes_s=0.5)},
    )

    assert lines(caplog)[:5] == [
        "INFO loading a: requested (model=a event=loading)",
        "INFO a is ready (model=a event=ready after=5.0s pid=N)",
        "INFO stopping a: evicted for b (model=a event=stopping pid=N)",
        "WARNING a hook of a failed: run save: exit code 3"
        " (model=a event=hook_failed point=beforeStop after=0.5s pid=N)",
        "INFO a has stopped (model=a event=stopped after=2.5s)",
    ]


def test_failures_are_logged_until_the_breaker_trips(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure gives its cause and state; a model that is given up is an error."""

    async def scenario(world: World) -> None:
        world.supervisor.listen(TransitionLog().take)
        for _ in range(5):
            client = world.client("a")
            while client.ended_at is None:
                await world.at(world.now + 1.0)
            await world.at(world.now + 300.0)

    run_scenario(
        scenario,
        service("a"),
        servers={"a": ServerScript(healthy_s=None, exit_s=1.0, exit=Exit(code=7))},
    )

    found = lines(caplog)
    assert found[:3] == [
        "INFO loading a: requested (model=a event=loading)",
        "WARNING a failed: exit code 7 (model=a event=failed state=health_checking pid=N code=7)",
        "INFO a may start again after a pause (model=a event=backoff)",
    ]
    assert [line for line in found if line.startswith("ERROR")] == [
        "ERROR a failed too often; requests are refused until it has cooled down"
        " (model=a event=tripped)"
    ]


def test_start_and_eviction_name_the_request_they_are_for(caplog: pytest.LogCaptureFixture) -> None:
    """Also when the model is ready or has stopped, and not after that."""

    async def scenario(world: World) -> None:
        swaps = world.supervisor.scheduler.swaps

        def request_of(record: Transition) -> str:
            if record.event == "request":
                return f"for-{record.service}"
            return "for-b" if any(record.service in gone for gone in swaps.values()) else ""

        world.supervisor.listen(TransitionLog(request_of=request_of).take)
        await swap_and_unload(world)

    run_scenario(scenario, service("a"), service("b"))

    found = [
        re.findall(r"model=(\w) event=(\w+).*?(?:request=([\w-]+)|\))", line)
        for line in lines(caplog)
    ]
    assert [row for (row,) in found] == [
        ("a", "loading", "for-a"), ("a", "ready", "for-a"), ("a", "stopping", "for-b"),
        ("a", "stopped", "for-b"), ("b", "loading", "for-b"), ("b", "ready", "for-b"),
        ("b", "stopping", ""), ("b", "stopped", ""),
    ]  # fmt: skip


def test_process_that_does_not_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A model that has to be killed is a warning."""

    async def scenario(world: World) -> None:
        world.supervisor.listen(TransitionLog().take)
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.supervisor.unload("a")

    run_scenario(scenario, service("a"), servers={"a": ServerScript(terminate_s=None)})

    assert any(
        line.startswith("WARNING a did not stop in its grace period and is killed")
        for line in lines(caplog)
    )


def test_line_from_outside_text_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Names and causes with line breaks or quotes cannot look like other lines."""
    record = Transition(
        service="a\nb c", at=1.0, event="request", cause="x\ny", source="stopped",
        target="before_start", configuration=("alive", "starting", "before_start"), seconds=0.0,
        incarnation=1,
    )  # fmt: skip
    TransitionLog().take(record)

    (line,) = lines(caplog)
    assert line == r'INFO loading a\nb c: x\ny (model="a\nb c" event=loading)'
