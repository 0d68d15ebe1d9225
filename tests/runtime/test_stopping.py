"""Stops: by command, by the idle limit, by a kill, and processes that cannot be killed."""

from __future__ import annotations

import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Exit, Hook, RunAction, Timings
from swapchart.runtime.testing import CommandScript, ServerScript, service

HANGS = CommandScript(takes_s=None)
STUBBORN = ServerScript(terminate_s=None)
IMMORTAL = ServerScript(terminate_s=None, kill_s=None)


@row("A08")
def test_process_that_ignores_the_signal_is_killed_after_the_grace_period() -> None:
    """SIGTERM, ten seconds, SIGKILL; other services are not delayed."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        world.spawn(world.supervisor.unload, "a")
        await world.at(5.0)
        assert world.supervisor.acquire_nowait("b")
        world.supervisor.release("b")
        assert await world.until("a", "stopped") == pytest.approx(5.0)

    launcher = run_scenario(
        scenario, service("a"), service("b"), servers={"a": STUBBORN},
        policy=lambda target, running: frozenset(),
    )  # fmt: skip

    assert [r.what for r in launcher.records if r.what in ("terminate", "kill")][:2] == [
        "terminate", "kill",
    ]  # fmt: skip


@row("A09")
def test_processes_left_by_the_leader_get_the_rest_of_the_grace_period() -> None:
    """Workers that ignore SIGTERM are killed exactly at the end of the grace period."""
    script = ServerScript(terminate_s=4.0, leaves=2)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        assert world.now == pytest.approx(10.0)
        assert b"killed 2 processes that outlived the leader" in world["a"].log.history()

    launcher = run_scenario(scenario, service("a"), servers={"a": script})

    assert [record.detail for record in launcher.find("swept")] == ["2"]


def test_kill_does_not_wait_for_processes_left_behind() -> None:
    """A kill during the grace period of the remaining tree kills it at once."""
    script = ServerScript(terminate_s=0.0, leaves=2, leaves_s=None)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "sweeping")
        await world.at(3.0)
        world["a"].post("kill")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(3.0)

    run_scenario(scenario, service("a"), servers={"a": script})


@row("A44")
def test_process_that_cannot_be_killed_is_reported_as_stuck() -> None:
    """After SIGKILL and its limit, requests are refused until the process ends."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "killing")
        waiter = world.client("a")
        await world.until("a", "stuck")
        assert world.now == pytest.approx(20.0)
        late = world.client("a")
        await world.moment()
        assert (waiter.outcome, late.outcome) == ("stuck", "stuck")
        assert late.error is not None
        assert late.error.status_hint == 503
        await world.at(35.0)
        world.launcher.crash("a")
        await world.moment()
        assert world["a"].state == "stopped"

    launcher = run_scenario(scenario, service("a"), servers={"a": IMMORTAL})

    assert launcher.count("kill") == 3


def test_shutdown_does_not_wait_for_a_process_that_cannot_be_killed() -> None:
    """A stuck process is reported and left to the launcher; the block ends in bounded time."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.shutdown(20.0)
        assert world.now == pytest.approx(35.0)
        assert world["a"].state == "stuck"

    launcher = run_scenario(
        scenario, service("a"), servers={"a": IMMORTAL}, expects_end=False, stop_limit_s=5.0
    )

    assert len(launcher.live) == 1


@pytest.mark.parametrize(
    "state",
    ["stopped", "before_start", "launching", "after_start", "health_checking", "after_healthy",
     "ready", "suspending", "asleep", "waking", "backoff", "tripped", "draining", "before_stop",
     "terminating", "killing", "stuck", "sweeping", "on_failure", "after_stop", "settling"],
)  # fmt: skip
@pytest.mark.parametrize("event", ["kill", "stop", "shutdown"])
def test_each_state_can_be_left_by_stop_kill_and_removal(state: str, event: str) -> None:
    """From each state, a stop, a kill or a shutdown reaches a state of rest, and requests end."""
    points = ("beforeStart", "afterStart", "afterHealthy", "suspend", "wake", "beforeStop",
              "onFailure", "afterStop")  # fmt: skip
    hooks = {point: (hook(point, timeout_s=2.0),) for point in points}
    settle = Hook(action=RunAction(argv=("settle",)))
    script = ServerScript(spawn_s=1.0, healthy_s=3.0, terminate_s=None, kill_s=3.0, leaves=1)
    spec = service("a", hooks=hooks, settle=settle, timings=Timings(kill_limit=1.0), intensity=2)

    async def scenario(world: World) -> None:
        client = world.client("a")
        if state in ("suspending", "asleep", "waking"):
            client.finish()
            await world.until("a", "ready")
            await world.moment()
            world["a"].post("sleep")
            if state == "waking":
                await world.until("a", "asleep")
                world.client("a")
        elif state in ("backoff", "on_failure", "tripped"):
            await world.until("a", "ready")
            world.launcher.crash("a")
            if state == "tripped":
                await world.until("a", "backoff")
                world.client("a")
                await world.until("a", "ready")
                world.launcher.crash("a")
        elif state not in ("before_start", "launching", "after_start", "health_checking",
                           "after_healthy", "ready"):  # fmt: skip
            await world.until("a", "ready")
            await world.moment()
            if state != "draining":
                client.finish()
            world.spawn(world.supervisor.unload, "a")
            await world.moment()
        await world.until("a", state)
        began = world.now
        world["a"].post(event)
        await world.until("a", "stopped", "shut_down")

        assert world.now - began <= 30.0 + 1.0 + 10.0 + 3.0 + 1.0 + 10.0 + 1.0
        await world.moment()
        assert "waiting" not in world.outcomes()
        assert world["a"].is_final == (event == "shutdown")

    takes = {point: CommandScript(takes_s=1.0) for point in points}
    run_scenario(scenario, spec, servers={"a": script}, commands={**takes, "settle": HANGS})


# ---- requests in flight
@row("D06")
def test_stop_lets_requests_in_flight_finish() -> None:
    """The drain ends with the last request; before that there is no hook and no signal."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=12.0)
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        await world.moment()
        await world.supervisor.unload("a")
        assert world.now == pytest.approx(12.0, abs=1e-3)
        assert world.outcomes() == {"finished": 2}

    run_scenario(scenario, service("a"))


@pytest.mark.parametrize(("drain", "gone_at"), [("cut", 30.0), ("wait", 100.0)])
@row("D06")
def test_drain_limit_aborts_or_waits_as_declared(drain: str, gone_at: float) -> None:
    """`cut` ends the process under its requests; `wait` waits for them."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        await world.moment()
        assert await world.supervisor.unload("a")
        assert world.now == pytest.approx(gone_at, abs=1e-3)

    run_scenario(scenario, service("a", drain=drain))


@row("D06")
def test_service_may_refuse_to_stop_while_it_is_busy() -> None:
    """With refuse the service is ready again at the drain limit, and stop() returns False."""

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        await world.moment()
        assert not await world.supervisor.unload("a")
        assert world.now == pytest.approx(30.0, abs=1e-3)
        assert world["a"].state == "ready"
        assert client.outcome == "served"
        await world.at(101.0)
        assert await world.supervisor.unload("a")

    launcher = run_scenario(scenario, service("a", drain="refuse"))

    assert launcher.count("spawn") == 1


@pytest.mark.parametrize("drain", ["cut", "wait", "refuse"])
def test_shutdown_never_waits_longer_than_the_drain_limit(drain: str) -> None:
    """Neither wait nor refuse delays the end of the supervisor."""

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=1000.0)
        await world.until("a", "ready")
        await world.moment()
        await world.supervisor.shutdown()
        assert world.now == pytest.approx(30.0, abs=1e-3)
        client.finish()

    run_scenario(scenario, service("a", drain=drain))


def test_request_that_comes_while_it_stops_starts_it_again_after_that() -> None:
    """The stop is completed first; then the waiting request gets a new process."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "terminating")
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"
        assert world["a"].incarnation == 2

    run_scenario(scenario, service("a"), servers={"a": ServerScript(terminate_s=4.0)})


@row("D05")
def test_request_that_left_while_the_service_stops_starts_nothing() -> None:
    """If the waiting request leaves, the service stays stopped."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "terminating")
        client = world.client("a")
        await world.at(1.0)
        client.leave()
        await world.until("a", "stopped")

    launcher = run_scenario(scenario, service("a"), servers={"a": ServerScript(terminate_s=4.0)})

    assert launcher.count("spawn") == 1


# ---- leaving while it starts
@pytest.mark.parametrize("abandon", ["finish", "abort"])
@pytest.mark.parametrize(
    "state", ["before_start", "launching", "after_start", "health_checking", "after_healthy"]
)
@row("D05")
def test_start_without_requests_left_is_finished_or_aborted(abandon: str, state: str) -> None:
    """`finish` completes the start; `abort` ends it when the last request leaves."""
    points = {"before_start": "beforeStart", "after_start": "afterStart",
              "after_healthy": "afterHealthy"}  # fmt: skip
    hooks = {point: (hook(point),) for point in points.values()}

    async def scenario(world: World) -> None:
        first, last = world.client("a"), world.client("a")
        await world.until("a", state)
        first.leave()
        await world.moment()
        assert world["a"].state == state
        last.leave()
        await world.moment()
        await world.until("a", "ready" if abandon == "finish" else "stopped")

        assert world.outcomes() == {"left": 2}
        assert world["a"].waiting == world["a"].in_flight == 0
        assert world.supervisor.scheduler.services["a"].granted == 0

    takes = CommandScript(takes_s=1.0)
    run_scenario(
        scenario, service("a", hooks=hooks, abandon=abandon),
        servers={"a": ServerScript(spawn_s=1.0, healthy_s=3.0)},
        commands=dict.fromkeys(points.values(), takes),
    )  # fmt: skip


@row("D17")
def test_client_that_leaves_does_not_affect_the_others() -> None:
    """A cancelled request does not cancel the start for the others."""

    async def scenario(world: World) -> None:
        clients = [world.client("a", hold_s=1.0) for _ in range(10)]
        await world.until("a", "health_checking")
        for client in clients[::2]:
            client.leave()
        await world.until("a", "ready")
        await world.moment()
        assert [client.outcome for client in clients] == ["left", "served"] * 5

    launcher = run_scenario(
        scenario, service("a", abandon="abort"), servers={"a": ServerScript(healthy_s=3.0)}
    )

    assert launcher.count("spawn") == 1


def test_client_that_leaves_while_it_is_admitted_holds_no_lease() -> None:
    """Admitted and cancelled at the same instant: the count is zero again."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        world.supervisor.listen(lambda record: client.leave() if record.target == "ready" else None)
        await world.until("a", "ready")
        await world.moment()

        assert client.outcome == "left"
        assert world["a"].in_flight == 0

    run_scenario(scenario, service("a"))


# ---- idle
def test_idle_limit_stops_an_unused_service() -> None:
    """It counts from the end of the last request."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(150.0, abs=1e-3)
        assert world["a"].cause == "idle for too long"

    run_scenario(scenario, service("a", timings=Timings(idle_limit=50.0)))


def test_idle_limit_never_ends_a_request() -> None:
    """Short requests without a gap, and a long one, keep the service running."""

    async def scenario(world: World) -> None:
        for at in range(0, 500, 9):
            await world.at(float(at))
            world.client("a", hold_s=5.0)
        world.client("a", hold_s=500.0)
        await world.at(990.0)
        assert world["a"].state == "ready"
        assert world.states("a").count("ready") == 1

    run_scenario(scenario, service("a", timings=Timings(idle_limit=10.0)))


@row("D08")
def test_request_at_the_moment_of_the_idle_limit_is_served() -> None:
    """In 200 orders of timer and request, every request is served."""
    for seed in range(200):

        async def scenario(world: World) -> None:
            world.client("a", hold_s=0.0)
            await world.until("a", "ready")
            for at in (10.0, 20.0, 30.0):
                await world.at(at)
                world.client("a", hold_s=0.0)
            await world.at(35.0)
            assert world.outcomes() == {"finished": 4}

        run_scenario(scenario, service("a", timings=Timings(idle_limit=10.0)), seed=seed)


def test_pinned_service_is_not_stopped_for_being_idle() -> None:
    """Pinning overrides the idle limit only: the service can still be unloaded."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.at(10_000.0)
        assert world["a"].state == "ready"
        await world.supervisor.unload("a")
        assert world["a"].state == "stopped"

    run_scenario(scenario, service("a", pinned=True, timings=Timings(idle_limit=10.0)))


# ---- settling
def test_stop_frees_resources_before_another_service_starts() -> None:
    """The settle hook is repeated until it succeeds; then the next service starts."""
    settle = Hook(action=RunAction(argv=("free",)))
    tries = [CommandScript(exit=Exit(code=1))] * 30

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.client("b", hold_s=0.0)
        await world.until("b", "ready")
        assert world.now == pytest.approx(3.0, abs=0.01)

    run_scenario(
        scenario, service("a", settle=settle), service("b"),
        commands={"free": [*tries, CommandScript()]},
    )  # fmt: skip


@row("B20")
def test_settle_time_is_bounded() -> None:
    """Resources that never come free delay the next start by the limit, which is logged."""
    settle = Hook(action=RunAction(argv=("free",)), timeout_s=3.0)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        assert world.now == pytest.approx(10.0)
        assert b"resources not free after 10 s" in world["a"].log.history()

    run_scenario(scenario, service("a", settle=settle), commands={"free": HANGS})


@pytest.mark.parametrize("state", ["ready", "after_stop", "settling"])
def test_kill_does_not_wait_for_resources(state: str) -> None:
    """A kill before or during the settling ends it."""
    settle = Hook(action=RunAction(argv=("free",)), timeout_s=3.0)
    hooks = {"afterStop": (Hook(action=RunAction(argv=("tidy",))),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        if state != "ready":
            world["a"].stop_nowait()
            await world.until("a", state)
            await world.moment()
        looks = world.launcher.programs("a").count("free")
        began = world.now
        world["a"].post("kill")
        await world.until("a", "stopped")
        assert world.now - began <= 0.5
        assert world.launcher.programs("a").count("free") == looks

    run_scenario(
        scenario, service("a", settle=settle, hooks=hooks),
        commands={"free": HANGS, "tidy": CommandScript(takes_s=0.5)},
    )  # fmt: skip
