"""Ready services: liveness, sleep and admission."""

from __future__ import annotations

import anyio
import pytest
from tools.rows import row
from tools.virtual import Client, World, hook, run_scenario

from swapchart.runtime import Exit, HttpCall, Liveness, Timings
from swapchart.runtime.testing import CommandScript, HttpAnswer, ServerScript, service

URL = "http://127.0.0.1:5800/health"
EVERY_TEN = Liveness(every_s=10.0, url=URL, failures=3)
FAILS = CommandScript(exit=Exit(code=1))


# ---- liveness
@row("A27")
def test_liveness_fails_after_three_bad_probes_in_a_row() -> None:
    """Fewer failures are tolerated; three in a row stop the service and count as one failure."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        [process] = world.launcher.of("a")
        await anyio.sleep(5.0)
        for _ in range(4):
            for is_sick in (True, True, False):
                process.is_sick = is_sick
                await anyio.sleep(10.0)
        assert world["a"].state == "ready"
        process.is_sick = True
        assert await world.until("a", "backoff") == pytest.approx(25.0)
        assert world["a"].cause == "3 liveness probes failed in a row; the last: status 503"
        assert world["a"].failures == 1
        await world.until("a", "ready")

    launcher = run_scenario(
        scenario, service("a", liveness=EVERY_TEN, restart="permanent",
                       hooks={"beforeStop": (hook("save"),)}),
    )  # fmt: skip

    assert launcher.programs() == ["save", "save"]  # the second one by the end of the scenario


@pytest.mark.parametrize(("url", "state"), [(URL, "ready"), (URL + "/live", "backoff")])
def test_liveness_probe_may_take_as_long_as_the_health_check(url: str, state: str) -> None:
    """A check that passed after 3 s may take 6 s; a probe of another URL has its own limit."""
    liveness = Liveness(every_s=10.0, url=url, timeout_s=2.0)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.at(60.0)
        assert world["a"].state == state

    timings = Timings(backoff=1000.0, backoff_max=1000.0)
    spec = service("a", check_url=URL, liveness=liveness, restart="permanent", timings=timings)
    run_scenario(scenario, spec, servers={"a": ServerScript(probe_s=3.0)})


@row("A27")
def test_probes_stop_while_it_drains() -> None:
    """A stopping service is not probed."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        [process] = world.launcher.of("a")
        await world.at(50.5)
        world.spawn(world.supervisor.unload, "a")
        before = process.probes
        await world.at(70.0)
        assert process.probes == before

    run_scenario(scenario, service("a", liveness=EVERY_TEN))


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (HttpAnswer(status=500), "status 500"),
        (HttpAnswer(error=ConnectionResetError("reset")), "reset"),
        (HttpAnswer(takes_s=99.0), "no response in 2 s"),
    ],
)
@row("A30")
def test_request_can_replace_the_probe(bad: HttpAnswer, detail: str) -> None:
    """An inference request detects a dead server that passes its health check."""
    call = HttpCall(method="POST", url="http://127.0.0.1:5800/v1/completions")
    liveness = Liveness(every_s=10.0, url=URL, failures=2, request=call)

    async def scenario(world: World) -> None:
        world.http.answers[call.url] = [HttpAnswer(), bad, HttpAnswer(), bad]
        await world.supervisor.load("a")
        await world.until("a", "backoff")
        assert len(world.http.calls) == 5
        assert world["a"].cause.endswith(detail)

    run_scenario(scenario, service("a", liveness=liveness))


def test_stalled_stream_is_unhealthy_at_once() -> None:
    """A reported stall makes the service unhealthy without a failed probe."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.at(3.0)
        world["a"].note_stall()
        await world.until("a", "backoff")
        assert world.now == pytest.approx(3.0)
        assert world["a"].cause == "a response has stalled"

    run_scenario(scenario, service("a", liveness=EVERY_TEN))


def test_response_that_does_not_begin_makes_the_service_unhealthy() -> None:
    """The reason is the caller's, and the time of the probes does not matter."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.moment()
        world["a"].note_stall("a response had not begun after 5 s")
        await world.until("a", "backoff")
        assert world["a"].cause == "a response had not begun after 5 s"
        assert world["a"].failures == 1

    liveness = Liveness(every_s=1e9, url=URL, first_byte_s=5.0)
    run_scenario(scenario, service("a", liveness=liveness, restart="permanent"))


def test_stall_before_ready_is_ignored() -> None:
    """A stall of an earlier process, or without liveness, does not count."""

    async def scenario(world: World) -> None:
        for name in ("a", "b"):
            world[name].note_stall()
            await world.supervisor.load(name)
            await anyio.sleep(1.0)
            assert world[name].state == "ready"
        world["b"].note_stall()
        await anyio.sleep(1.0)
        assert world["b"].state == "ready"

    run_scenario(
        scenario, service("a", liveness=EVERY_TEN), service("b"), policy=lambda t, r: frozenset()
    )


# ---- sleep
ASLEEP = {"suspend": (hook("suspend", on_error="fail"),), "wake": (hook("wake", on_error="fail"),)}


def test_idle_service_is_put_to_sleep_and_woken_by_the_next_request() -> None:
    """The process stays, and is probed before it serves."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "asleep")
        assert world.now == pytest.approx(34.0, abs=0.1)
        await world.at(100.0)
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"
        assert client.served_at == pytest.approx(client.requested_at + 3.0)
        assert world["a"].incarnation == 1

    takes = CommandScript(takes_s=2.0)
    launcher = run_scenario(
        scenario, service("a", hooks=ASLEEP, timings=Timings(doze_limit=30.0)),
        servers={"a": ServerScript(probe_s=1.0)}, commands={"suspend": takes,
                                                            "wake": takes},
    )  # fmt: skip

    assert launcher.programs() == ["suspend", "wake"]
    assert launcher.count("spawn") == 1


def test_request_while_the_service_falls_asleep_wakes_it_afterwards() -> None:
    """No request is lost between suspend and wake."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].post("sleep")
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"

    launcher = run_scenario(
        scenario, service("a", hooks=ASLEEP), commands={"suspend": CommandScript(takes_s=2.0)}
    )

    assert launcher.programs() == ["suspend", "wake"]


def test_sleeping_service_is_stopped_after_its_limit() -> None:
    """At the asleep limit the process is stopped in order."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(130.0)

    run_scenario(
        scenario,
        service("a", hooks=ASLEEP, timings=Timings(doze_limit=30.0, asleep_limit=100.0)),
    )


@pytest.mark.parametrize("broken", ["suspend", "wake", "probe"])
@pytest.mark.parametrize(
    "timings", [Timings(start_limit=20.0), Timings(start_limit=None, stall_limit=20.0)]
)
def test_service_that_cannot_sleep_or_wake_is_stopped_and_started_afresh(
    broken: str, timings: Timings
) -> None:
    """Waiting requests get a new process, with all hooks."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].post("sleep")
        if broken == "suspend":
            await world.until("a", "stopped")
        else:
            await world.until("a", "asleep")
        if broken == "probe":
            world.launcher.of("a")[0].is_sick = True
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"
        assert world["a"].incarnation == 2
        if broken == "wake":  # at once, not by the limit
            assert "the wake hooks failed" in [record.cause for record in world.trace]
            assert world.now < 20.0

    launcher = run_scenario(
        scenario, service("a", hooks=ASLEEP, timings=timings),
        commands={} if broken == "probe" else {broken: [FAILS, CommandScript()]},
    )  # fmt: skip

    assert launcher.count("spawn") == 2


def test_busy_service_is_not_put_to_sleep() -> None:
    """With a request in flight, neither the limit nor a command has an effect."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        await world.moment()
        world["a"].post("sleep")
        await world.at(99.0)
        assert world["a"].state == "ready"

    run_scenario(scenario, service("a", hooks=ASLEEP, timings=Timings(doze_limit=30.0)))


def test_sleeping_service_needs_no_eviction() -> None:
    """Another service may start beside it; to wake it evicts that one."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].post("sleep")
        await world.until("a", "asleep")
        await world.supervisor.load("b")
        assert world["a"].state == "asleep"
        await world.supervisor.load("a")
        assert world["b"].state == "stopped"
        assert world["a"].incarnation == 1

    run_scenario(scenario, service("a", hooks=ASLEEP), service("b"))


# ---- who is let in
def test_hot_path_needs_no_task_and_no_queue() -> None:
    """A ready service with capacity is held at once; any other is not."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        assert not supervisor.acquire_nowait("a")
        await supervisor.load("a")
        assert supervisor.acquire_nowait("a")
        assert supervisor.acquire_nowait("a")
        assert not supervisor.acquire_nowait("a")
        supervisor.release("a")
        assert supervisor.acquire_nowait("a")
        assert world["a"].in_flight == 2
        supervisor.release("a")
        supervisor.release("a")
        supervisor.close()
        assert not supervisor.acquire_nowait("a")

    run_scenario(scenario, service("a", concurrency_limit=2))


def test_lease_describes_its_service() -> None:
    """The lease has name, address, process id and incarnation."""

    async def scenario(world: World) -> None:
        async with world.supervisor.lease("a") as lease:
            assert lease.service == "a"
            assert lease.endpoint == "http://127.0.0.1:5800"
            assert lease.pid == world.launcher.of("a")[0].pid
            assert lease.incarnation == 1
            assert world["a"].in_flight == 1
        assert world["a"].in_flight == 0

    run_scenario(scenario, service("a"))


def test_ready_service_beyond_its_limit_refuses_with_429() -> None:
    """Requests beyond the concurrency limit are refused at once."""

    async def scenario(world: World) -> None:
        clients = [world.client("a", hold_s=5.0) for _ in range(3)]
        await world.until("a", "ready")
        await world.moment()
        late = world.client("a")
        await world.moment()
        assert late.error is not None
        assert late.error.status_hint == 429
        assert [client.outcome for client in clients] == ["served", "served", "waiting"]
        await world.at(11.0)
        assert clients[2].outcome == "finished"

    run_scenario(scenario, service("a", concurrency_limit=2))


@row("D15")
def test_counters_after_a_storm_of_disconnects_are_zero() -> None:
    """Clients that come and go at any moment leave no hold behind."""

    async def scenario(world: World) -> None:
        for number in range(300):
            client = world.client("a", hold_s=0.3)
            if number % 3:
                world.spawn(leave_after, client, (number % 7) * 0.05)
            await anyio.sleep(0.02)
        await anyio.sleep(60.0)
        assert world["a"].in_flight == world["a"].waiting == 0
        assert world.supervisor.scheduler.services["a"].granted == 0
        assert world.supervisor.scheduler.queue == []
        assert "waiting" not in world.outcomes()

    async def leave_after(client: Client, seconds: float) -> None:
        await anyio.sleep(seconds)
        client.leave()

    run_scenario(
        scenario, service("a", concurrency_limit=3), servers={"a": ServerScript(healthy_s=1.0)}
    )
