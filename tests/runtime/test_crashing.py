"""Crashes: restarts, backoff, the circuit breaker, and the requests meanwhile."""

from __future__ import annotations

import itertools

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import EngineError, Exit, LaunchError, SpecError, Timings
from swapchart.runtime.testing import CommandScript, ScriptedProcess, ServerScript, service

EXITS = ServerScript(healthy_s=None, exit_s=0.5, exit=Exit(code=1))
HANGS = CommandScript(takes_s=None)


@pytest.mark.parametrize("error", [SpecError("no such file"), LaunchError("no room")])
@row("A01")
def test_command_that_cannot_be_started_is_not_tried_again(error: SpecError) -> None:
    """All 20 requests are refused, and no spawn follows before the cooldown or a command."""
    script = ServerScript(error=error)
    is_permanent = isinstance(error, SpecError)

    async def scenario(world: World) -> None:
        clients = [world.client("a") for _ in range(20)]
        await world.moment()
        assert {client.outcome for client in clients} == {"spawn_failed"}
        assert world["a"].state == ("tripped" if is_permanent else "backoff")
        if not is_permanent:
            return
        for at in (1.0, 30.0, 59.0):
            await world.at(at)
            late = world.client("a")
            await world.moment()
            assert late.outcome == "failed"
            assert late.error is not None
            assert late.error.retry_after_s == pytest.approx(60.0 - at, abs=1e-3)
            assert "no such file" in str(late.error)
        assert world.launcher.count("spawn") == 1
        await world.at(61.0)
        trial = world.client("a")
        await world.moment()
        assert trial.outcome == "spawn_failed"
        assert world.launcher.count("spawn") == 2

    run_scenario(scenario, service("a"), servers={"a": script})


def test_last_failure_is_of_a_failure_and_not_of_a_stop() -> None:
    """A stop refuses the requests that wait, and is no reason for the next refusal."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "health_checking")
        await world["a"].stop()
        assert client.outcome == "stopped"
        assert world["a"].refusal is None
        world.launcher.servers["a"] = ServerScript(exit_s=0.5, exit=Exit(code=7))
        world.client("a")
        await world.until("a", "backoff")
        failure = world["a"].refusal
        assert "exit code 7" in str(failure)
        await world["a"].stop()
        assert world["a"].refusal is failure

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=5.0)})


def test_transition_has_the_exit_status_of_the_process_that_ended_by_it() -> None:
    """Later transitions, and the next start, do not repeat it."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.until("a", "backoff")
        await world.until("a", "ready")
        exits = [(record.event, record.exit) for record in world.trace if record.exit is not None]
        assert exits == [("proc_exited", Exit(code=7))]

    run_scenario(
        scenario, service("a", restart="permanent"),
        servers={"a": [ServerScript(exit_s=5.0, exit=Exit(code=7)), ServerScript()]},
    )  # fmt: skip


@row("A01")
def test_explicit_start_does_not_wait_for_the_cooldown() -> None:
    """load() starts the repaired service at once and resets the failure count."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "tripped")
        world.launcher.servers["a"] = ServerScript()
        await world.supervisor.load("a")

        assert world["a"].state == "ready"
        assert world["a"].failures == 0

    run_scenario(
        scenario, service("a"), servers={"a": ServerScript(error=SpecError("no such file"))}
    )


@pytest.mark.parametrize("exit_s", [0.0, 0.05, 0.5, 100.0])
@pytest.mark.parametrize("ended", [Exit(code=0), Exit(code=1), Exit(signal=11)])
@row("A02")
def test_process_that_dies_while_it_starts_fails_requests_at_once(
    exit_s: float, ended: Exit
) -> None:
    """Waiting requests get the exit code when it dies; the tree is swept first."""
    script = ServerScript(healthy_s=None, exit_s=exit_s, exit=ended, leaves=1)

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "exited"
        assert client.ended_at == pytest.approx(client.requested_at + exit_s)
        assert str(ended) in str(client.error)

    launcher = run_scenario(
        scenario, service("a", hooks={"afterStop": (hook("after"),)}), servers={"a": script}
    )

    assert [r.what for r in launcher.records][-4:] == ["sweep", "swept", "run", "ran"]


@row("A03")
def test_crash_while_idle_is_seen_and_the_next_request_starts_one_new_process() -> None:
    """The rest of the tree is killed, and the next request gets a new process."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.crash("a")
        await world.moment()
        assert world["a"].state == "backoff"
        await world.until("a", "stopped")
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"

    launcher = run_scenario(scenario, service("a"), servers={"a": ServerScript(leaves=3)})

    assert launcher.count("spawn") == 2
    assert [record.detail for record in launcher.find("swept")] == ["3", "3"]


@row("A04")
def test_crash_with_requests_in_flight_keeps_their_count() -> None:
    """Requests of a dead process end later, and each is counted once."""

    async def scenario(world: World) -> None:
        old = [world.client("a") for _ in range(50)]
        await world.until("a", "ready")
        await world.moment()
        world.launcher.crash("a")
        await world.moment()
        assert world["a"].in_flight == 50
        new = world.client("a")
        await world.until("a", "ready")
        await world.moment()
        for client in old:
            client.finish()
        await world.moment()
        assert world["a"].in_flight == 1
        new.finish()
        await world.moment()
        assert world["a"].in_flight == 0
        assert world.supervisor.scheduler.services["a"].granted == 0

    run_scenario(scenario, service("a"))


@row("A05")
def test_process_that_dies_while_it_is_stopped_has_not_failed() -> None:
    """An exit during drain, beforeStop or grace period completes the requested stop."""
    hooks = {"beforeStop": (hook("save"),), "afterStop": (hook("after"),)}
    for state in ("draining", "before_stop", "terminating"):

        async def scenario(world: World, state: str = state) -> None:
            client = world.client("a")
            await world.until("a", "ready")
            await world.moment()
            if state != "draining":
                client.finish()
            world.spawn(world.supervisor.unload, "a")
            await world.until("a", state)
            world.launcher.crash("a")
            await world.moment()

            assert world["a"].state == "stopped"
            assert world["a"].failures == 0

        launcher = run_scenario(
            scenario, service("a", hooks=hooks), servers={"a": ServerScript(terminate_s=None)},
            commands={"save": CommandScript(takes_s=5.0)},
        )  # fmt: skip
        assert launcher.programs("a").count("after") == 1


@row("A06")
def test_late_exit_of_an_earlier_process_is_ignored() -> None:
    """Events of an earlier incarnation are dropped and do not affect the present one."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        [old] = world.launcher.of("a")
        activities = world["a"]._driver.activities
        await world.supervisor.unload("a")
        await world.supervisor.load("a")
        before = world["a"].configuration, world["a"].failures, len(world.trace)
        world.spawn(activities._reap, old)
        await world.moment()

        assert (world["a"].configuration, world["a"].failures, len(world.trace)) == before
        assert world["a"].last_exit is None

    run_scenario(scenario, service("a"))


@pytest.mark.parametrize("duration_s", [0.0, 0.5, 3.0])
@row("A07")
def test_crash_loop_backs_off_trips_and_refuses_at_once(duration_s: float) -> None:
    """Under constant load: pauses of 1, 2, 4, 8 s, five starts, then 503 with Retry-After."""
    script = ServerScript(healthy_s=None, exit_s=duration_s, exit=Exit(code=1))
    starts: list[float] = []

    async def ask_all_the_time(world: World) -> None:
        while world.now < 300.0:
            world.client("a")
            await anyio.sleep(0.25)

    async def scenario(world: World) -> None:
        world.spawn(ask_all_the_time, world)
        await world.until("a", "tripped")
        tripped_at = world.now
        late = world.client("a")
        await world.moment()
        assert late.outcome == "failed"
        assert late.error is not None
        assert late.error.status_hint == 503
        assert late.error.retry_after_s == pytest.approx(60.0, abs=0.01)
        await world.at(tripped_at + 59.0)
        assert world.launcher.count("spawn") == 5
        await world.at(302.0)
        starts.extend(record.at for record in world.launcher.find("spawn"))
        assert set(world.outcomes()) <= {"exited", "failed"}

    run_scenario(scenario, service("a"), servers={"a": script})

    gaps = [later - earlier - duration_s for earlier, later in itertools.pairwise(starts[:4])]
    assert gaps == pytest.approx([1.0, 2.0, 4.0], rel=0.11, abs=0.3)
    for first in starts:
        assert sum(1 for at in starts if first <= at < first + 60.0) <= 5


@row("A07")
def test_after_the_cooldown_one_trial_decides() -> None:
    """Half open allows one start: a failure opens the breaker again, success closes it."""
    good, bad = ServerScript(healthy_s=1.0), EXITS

    async def scenario(world: World) -> None:
        while world["a"].state != "tripped":
            world.client("a")
            await anyio.sleep(0.25)
        first = world["a"].since - 1000.0
        world.client("a")
        await world.until("a", "half_open")
        assert world.now - first == pytest.approx(60.0, abs=1e-3)
        assert world.launcher.count("spawn") == 5
        trial = world.client("a")
        await world.until("a", "tripped")
        await world.moment()
        assert trial.outcome == "exited"
        assert world.launcher.count("spawn") == 6
        await world.until("a", "half_open")
        good_trial = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert good_trial.outcome == "served"
        assert world["a"].failures == 5
        await anyio.sleep(60.0)
        assert world["a"].failures == 0

    run_scenario(scenario, service("a"), servers={"a": [bad] * 6 + [good]})


def test_service_that_recovers_starts_again_from_the_shortest_pause() -> None:
    """The failure count is reset after the stable time in `ready`, not before."""

    async def pause(world: World) -> float:
        world.launcher.crash("a")
        await world.moment()
        assert world["a"].state == "backoff"
        return await world.until("a", "starting")

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert await pause(world) == pytest.approx(1.0, rel=0.11)
        await world.until("a", "ready")
        assert await pause(world) == pytest.approx(2.0, rel=0.11)
        await world.until("a", "ready")
        await anyio.sleep(61.0)
        assert await pause(world) == pytest.approx(1.0, rel=0.11)

    run_scenario(scenario, service("a", restart="permanent"))


@pytest.mark.parametrize(
    ("restart", "ended", "comes_back"),
    [
        ("temporary", Exit(signal=11), False),
        ("temporary", Exit(code=0), False),
        ("transient", Exit(signal=11), True),
        ("transient", Exit(code=1), True),
        ("transient", Exit(code=0), False),
        ("permanent", Exit(code=0), True),
        ("permanent", Exit(signal=11), True),
    ],
)
def test_restart_policy_decides_on_a_restart(restart: str, ended: Exit, comes_back: bool) -> None:
    """`temporary` never, transient after a failure, permanent always: without a request."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.crash("a", ended)
        await world.moment()
        state = "ready" if comes_back else "stopped"
        assert await world.until("a", state) == pytest.approx(1.0, rel=0.11)

    launcher = run_scenario(scenario, service("a", restart=restart))

    assert launcher.count("spawn") == 1 + comes_back


@pytest.mark.parametrize("restart", ["transient", "permanent"])
def test_failed_start_is_retried(restart: str) -> None:
    """A service that restarts by itself retries a failed start, also after the breaker."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "tripped")
        assert world.launcher.count("spawn") == 5
        await world.until("a", "starting")
        assert world.launcher.count("spawn") == 5
        await world.until("a", "tripped")
        assert world.launcher.count("spawn") == 6

    run_scenario(scenario, service("a", restart=restart), servers={"a": EXITS})


@pytest.mark.parametrize(
    "state",
    ["before_start", "launching", "after_start", "health_checking", "after_healthy", "ready",
     "suspending", "asleep", "waking", "draining", "before_stop", "terminating"],
)  # fmt: skip
@row("B05")
def test_crash_in_any_state_ends_in_order(state: str) -> None:
    """After an exit in any state the tree is swept, afterStop runs once, and every request ends."""
    points = {"before_start": "beforeStart", "after_start": "afterStart",
              "after_healthy": "afterHealthy", "suspending": "suspend", "waking": "wake",
              "before_stop": "beforeStop"}  # fmt: skip
    hooks = {point: (hook(point),) for point in [*points.values(), "afterStop"]}
    script = ServerScript(
        spawn_s=1.0, healthy_s=3.0, terminate_s=None, exit=Exit(code=3),
        exit_s=0.0 if state in ("before_start", "launching") else None,
    )  # fmt: skip

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
        if state in ("draining", "before_stop", "terminating"):
            await world.until("a", "ready")
            await world.moment()
            if state != "draining":
                client.finish()
            world.spawn(world.supervisor.unload, "a")
        await world.until("a", state)
        for process in world.launcher.of("a"):
            process.exit_now(Exit(signal=11))
        await world.until("a", "backoff", "stopped")
        await world.moment()
        assert all(c.outcome != "waiting" for c in world.clients)

    takes = CommandScript(takes_s=2.0)
    launcher = run_scenario(
        scenario, service("a", hooks=hooks), servers={"a": script},
        commands={point: takes for point in hooks if point != "afterStop"},
    )  # fmt: skip

    assert launcher.programs("a").count("afterStop") == launcher.count("spawned")


def test_start_limit_ends_a_start_with_the_last_probe_result() -> None:
    """It counts from the first probe; the process is stopped, and requests get the reason."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "terminating")
        assert world.now == pytest.approx(90.0)
        await world.until("a", "backoff")
        await world.moment()
        assert client.outcome == "start_timeout"
        assert "not healthy after 60.0 s; last probe: status 503" in str(client.error)

    launcher = run_scenario(
        scenario, service("a", hooks={"beforeStart": (hook("fetch"),)},
                       timings=Timings(start_limit=60.0)),
        servers={"a": ServerScript(healthy_s=None)},
        commands={"fetch": CommandScript(takes_s=30.0)},
    )  # fmt: skip

    assert launcher.programs() == ["fetch"]


def test_start_without_limit_is_never_ended() -> None:
    """None means unlimited."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert world.now > 8_000.0

    run_scenario(
        scenario, service("a", timings=Timings(start_limit=None)),
        servers={"a": ServerScript(healthy_s=8_000.0)},
    )  # fmt: skip


def test_stall_limit_restarts_with_each_output() -> None:
    """A process that prints is slow, not stalled; it stalls ten seconds after its last output."""
    output = tuple((at, b".") for at in (6.0, 12.0, 18.0, 25.0))
    script = ServerScript(healthy_s=None, output=output)

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "terminating")
        assert world.now == pytest.approx(35.0)
        await world.until("a", "backoff")
        await world.moment()
        assert client.outcome == "start_stalled"
        assert not world["a"].log.is_watched

    run_scenario(scenario, service("a", timings=Timings(stall_limit=10.0)), servers={"a": script})


def test_probe_never_outlasts_its_own_limit() -> None:
    """A health endpoint that accepts but never responds does not extend the start limit."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "terminating")
        assert world.now == pytest.approx(60.0)
        await world.until("a", "backoff")
        await world.moment()
        assert "last probe: timeout" in str(client.error)

    run_scenario(
        scenario, service("a", timings=Timings(start_limit=60.0, probe=2.0)),
        servers={"a": ServerScript(probe_s=1e6)},
    )  # fmt: skip


def test_service_without_health_check_is_ready_once_it_runs() -> None:
    """With check_url None there is no probe."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert world.now == 0.0
        assert world.launcher.of("a")[0].probes == 0

    run_scenario(
        scenario, service("a", check_url=None), servers={"a": ServerScript(healthy_s=None)}
    )


def test_launch_refused_by_the_system_is_retried() -> None:
    """EngineError is temporary: after the backoff the next request starts the service."""

    async def scenario(world: World) -> None:
        first = world.client("a")
        await world.until("a", "backoff")
        second = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert first.outcome == "spawn_failed"
        assert second.outcome == "served"

    run_scenario(
        scenario, service("a"),
        servers={"a": [ServerScript(error=EngineError("no memory")), ServerScript()]},
    )  # fmt: skip


def test_request_in_backoff_waits_for_the_next_start_unless_it_leaves() -> None:
    """Requests during a backoff get the next start; if all leave, there is none."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "backoff")
        leaver = world.client("a")
        await world.moment()
        assert world.supervisor.scheduler.running() == {"a"}
        leaver.leave()
        await world.moment()
        world.assert_consistent()
        assert world.supervisor.scheduler.running() == set()
        await world.until("a", "stopped")
        assert world.launcher.count("spawn") == 1

    run_scenario(scenario, service("a"), servers={"a": [EXITS, ServerScript()]})


@pytest.mark.parametrize("breaks", ["start", "probe", "sweep", "run"])
def test_launcher_that_raises_leaves_no_request_waiting(
    breaks: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that the port does not allow is logged, and the lifecycle goes on."""

    class BrokenError(Exception):
        pass

    async def broken(*_: object, **__: object) -> None:
        await anyio.sleep(1.0)
        raise BrokenError

    async def scenario(world: World) -> None:
        owner: object = world.launcher
        if breaks in ("probe", "sweep"):
            owner = ScriptedProcess
        patch = pytest.MonkeyPatch()
        with patch.context() as patched:
            patched.setattr(owner, breaks, broken)
            client = world.client("a", hold_s=1.0)
            await world.at(100.0)
            await world.supervisor.unload("a")
            assert client.outcome in ("spawn_failed", "start_timeout", "finished")
            assert world["a"].state == "stopped"

    run_scenario(scenario, service("a", stop_argv=("ctl",)), expects_end=False)

    assert "BrokenError" in caplog.text


def test_pause_is_never_longer_than_its_maximum() -> None:
    """Doubling ends at backoff_max, except for a jitter of 10 %."""
    timings = Timings(backoff=1.0, backoff_max=3.0)
    pauses: list[float] = []

    async def scenario(world: World) -> None:
        world["a"].start()
        await world.until("a", "tripped")
        pauses.extend(record.seconds for record in world.trace if record.event == "backoff_over")

    run_scenario(
        scenario, service("a", timings=timings, intensity=6, restart="transient"),
        servers={"a": ServerScript(exit_s=0.0, exit=Exit(code=1), healthy_s=None)},
    )  # fmt: skip

    assert pauses == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0], rel=0.1)
