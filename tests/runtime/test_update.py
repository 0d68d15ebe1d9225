"""Updates: specifications that change while services run."""

from __future__ import annotations

import logging
from dataclasses import replace

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import (
    Command,
    ConfigError,
    Exit,
    QueueLimits,
    RequestError,
    ServiceSpec,
    Timings,
    compare,
    one_at_a_time,
)
from swapchart.runtime.spec_diff import address
from swapchart.runtime.testing import CommandScript, ServerScript, service

A = service("a")
OTHER = replace(A, command=Command(argv=("a", "--other"), label="a"))
SLOW = {"a": ServerScript(healthy_s=5.0, terminate_s=2.0)}


def argv(world: World, name: str = "a") -> list[tuple[str, ...]]:
    """Return the commands that *name* was started with, in order."""
    return [record.command.argv for record in world.launcher.find("spawn", name) if record.command]


def together(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return no service: there are no evictions."""
    return frozenset()


# ---- what a difference is
@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (service("a"), "same"),
        (replace(A, timings=Timings(idle_limit=5.0)), "live"),
        (replace(A, pinned=True, concurrency_limit=3, log_limit_bytes=9), "live"),
        (replace(A, hooks={"beforeStop": (hook("save"),)}), "next_start"),
        (replace(A, stop_argv=("stop",), timings=Timings(grace=1.0)), "next_start"),
        (replace(A, restart="permanent"), "next_start"),
        (replace(A, check_url=None), "next_start"),
        (replace(A, endpoint="http://127.0.0.1:5801"), "restart"),
        (OTHER, "restart"),
        (replace(A, command=replace(A.command, env={"X": "1"})), "restart"),
    ],
)
def test_spec_difference_requires_the_least_change(new: ServiceSpec, expected: str) -> None:
    """Only changes of the command or the address need a restart."""
    assert compare(A, new) == expected


@pytest.mark.parametrize("endpoint", ["http://[::1]:80", "http://127.9.9.9", "http://localhost/x"])
def test_loopback_addresses_count_as_equal(endpoint: str) -> None:
    """Two names of the loopback interface are one address; another machine is not."""
    assert address(endpoint) == "localhost:80"
    assert address("https://gpu.lan/v1") == "gpu.lan:443"


# ---- a service that rests
def test_stopped_service_changes_at_once() -> None:
    """Without a process the change takes effect at once."""

    async def scenario(world: World) -> None:
        world.supervisor.update(OTHER)
        assert world["a"].spec is OTHER
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        assert argv(world) == [OTHER.command.argv]

    run_scenario(scenario, A)


def test_changed_spec_resets_the_failure_count() -> None:
    """A repaired service starts without waiting for its breaker."""
    broken = replace(A, intensity=1)
    repaired = replace(broken, command=OTHER.command)

    def script(command: Command, number: int) -> ServerScript:
        is_fine = "--other" in command.argv
        return ServerScript() if is_fine else ServerScript(exit_s=0.0, exit=Exit(code=1))

    async def scenario(world: World) -> None:
        first = world.client("a")
        await world.until("a", "tripped")
        assert world.supervisor.update(repaired) == "restart"
        assert world["a"].state == "stopped"
        second = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.moment()
        assert (first.outcome, second.outcome) == ("exited", "served")

    run_scenario(scenario, broken, servers={"a": script})


def test_unchanged_spec_keeps_the_failure_count() -> None:
    """A reload without changes of a failed service does not reset its breaker."""
    broken = replace(A, intensity=1)

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "tripped")
        assert world.supervisor.update(service("a", intensity=1)) == "same"
        assert world["a"].state == "tripped"

    run_scenario(scenario, broken, servers={"a": ServerScript(exit_s=0.0, exit=Exit(code=1))})


def test_request_that_waits_for_a_restart_is_served_by_the_new_version() -> None:
    """A change during a backoff starts the service at once for waiting requests."""
    backoff = Timings(backoff=60.0)
    broken = replace(A, timings=backoff)

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "backoff")
        waiting = world.client("a", hold_s=1.0)
        await world.moment()
        assert world["a"].waiting == 1
        world.supervisor.update(replace(OTHER, timings=backoff))
        assert await world.until("a", "ready") < 1.0
        await world.moment()
        assert waiting.outcome == "served"
        assert world["a"].failures == 0

    scripts = [ServerScript(exit_s=0.0, exit=Exit(code=1)), ServerScript()]
    run_scenario(scenario, broken, servers={"a": scripts})


def test_permanent_service_restarts_with_the_new_spec() -> None:
    """It keeps its resources during the restart and needs no request."""
    first = replace(A, restart="permanent", timings=Timings(backoff=60.0))

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "backoff")
        world.supervisor.update(replace(first, command=OTHER.command))
        assert await world.until("a", "ready") < 1.0
        assert argv(world)[-1] == OTHER.command.argv

    run_scenario(scenario, first, servers={"a": [ServerScript(exit_s=5.0), ServerScript()]})


def test_start_without_a_request_goes_on_with_the_new_spec() -> None:
    """A start by command or restart policy is repeated."""

    async def scenario(world: World) -> None:
        world["a"].post("start")
        await world.until("a", "health_checking")
        assert world.supervisor.update(OTHER, "the file changed") == "restart"
        await world.until("a", "ready")
        assert argv(world) == [A.command.argv, OTHER.command.argv]
        assert world["a"].spec == OTHER

    run_scenario(scenario, A, servers=SLOW)


def test_request_whose_start_is_aborted_for_an_update_may_be_refused_later() -> None:
    """It waits in the queue again, and is not counted as in flight when its service is retired."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "health_checking")
        assert world.supervisor.update(OTHER, "the file changed") == "restart"
        await world.moment()
        assert [request.service for request in world.supervisor.scheduler.queue] == ["a"]
        world.supervisor.retire("a")
        await world.moment()
        assert client.outcome == "model_removed"
        await world.at(60.0)
        assert "a" not in world.supervisor

    run_scenario(scenario, A, servers=SLOW)


def test_update_of_a_service_that_is_being_removed_takes_over_its_name() -> None:
    """The new service is made once the old one has stopped."""

    async def scenario(world: World) -> None:
        held = world.client("a", hold_s=8.0)
        await world.until("a", "ready")
        world.supervisor.retire("a")
        assert world.supervisor.update(OTHER) == "restart"
        assert world["a"].spec == A
        await world.at(60.0)
        assert held.outcome == "finished"
        assert world["a"].spec == OTHER
        assert world["a"].state == "stopped"

    run_scenario(scenario, A, servers=SLOW)


# ---- a service that runs
def test_running_service_drains_and_requests_wait_for_the_new_version() -> None:
    """In-flight requests finish with the old process; new ones get the new process."""

    async def scenario(world: World) -> None:
        held = world.client("a", hold_s=8.0)
        await world.until("a", "ready")
        assert world.supervisor.update(OTHER, "the file changed") == "restart"
        assert world["a"].state == "draining"
        later = [world.client("a", hold_s=1.0) for _ in range(3)]
        await world.moment()
        explained = world.supervisor.scheduler.queue[0].why
        assert explained == "a stops first, since the file changed"
        assert world["a"].spec == A
        await world.until("a", "stopping")
        await world.until("a", "ready")
        await world.moment()
        assert held.outcome == "finished"
        assert [client.outcome for client in later] == ["served"] * 3
        assert world["a"].spec == OTHER
        assert argv(world) == [A.command.argv, OTHER.command.argv]
        assert world["a"].incarnation == 2

    run_scenario(scenario, A, servers=SLOW)


def test_idle_service_stops_and_starts_on_demand_only() -> None:
    """Without requests it is not started."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.at(10.0)
        world.supervisor.update(OTHER)
        await world.until("a", "stopped")
        await world.at(100.0)
        assert argv(world) == [A.command.argv]
        assert world["a"].spec == OTHER

    run_scenario(scenario, A, servers=SLOW)


def test_request_that_waits_for_a_start_is_served_by_the_new_version() -> None:
    """The old start is aborted, and waiting requests get the new one."""

    async def scenario(world: World) -> None:
        clients = [world.client("a", hold_s=1.0) for _ in range(3)]
        await world.at(1.0)
        world.supervisor.update(OTHER)
        assert "stopping" in world["a"].configuration
        assert world["a"].waiting == 0
        assert len(world.supervisor.scheduler.queue) == 3
        await world.until("a", "ready")
        await world.moment()
        assert [client.outcome for client in clients] == ["served"] * 3
        assert argv(world) == [A.command.argv, OTHER.command.argv]

    run_scenario(scenario, replace(A, abandon="abort"), servers=SLOW)


def test_requests_keep_their_order_and_deadlines() -> None:
    """Requests go back into their old places; cancelled ones leave."""

    async def scenario(world: World) -> None:
        mine = world.client("a", hold_s=1.0)
        await world.moment()
        world.client("b", hold_s=1.0)
        leaving = world.client("a")
        await world.at(1.0)
        world.supervisor.update(OTHER)
        queue = [request.service for request in world.supervisor.scheduler.queue]
        assert queue == ["a", "b", "a"]
        leaving.leave()
        await world.until("b", "ready")
        assert (mine.outcome, leaving.outcome) == ("finished", "left")

    run_scenario(scenario, A, service("b"), servers=SLOW)


@pytest.mark.parametrize(
    "state", ["before_start", "launching", "health_checking", "after_healthy", "ready",
              "before_stop", "terminating", "after_stop"],
)  # fmt: skip
def test_change_at_any_moment_ends_with_the_new_version(state: str) -> None:
    """In any state, the old process ends with its own hooks and the new one serves."""
    points = ("beforeStart", "afterHealthy", "beforeStop", "afterStop")
    old = replace(A, hooks={point: (hook(f"old-{point}"),) for point in points})
    new = replace(OTHER, hooks={point: (hook(f"new-{point}"),) for point in points})
    commands = {f"{v}-{p}": CommandScript(takes_s=1.0) for v in ("old", "new") for p in points}

    async def scenario(world: World) -> None:
        first = world.client("a")
        if state in ("before_stop", "terminating", "after_stop"):
            await world.until("a", "ready")
            first.finish()
            await world.moment()
            world["a"].stop_nowait()
        await world.until("a", state)
        await world.moment()  # a hook that is to run has begun
        world.supervisor.update(new)
        first.finish()
        second = world.client("a", hold_s=1.0)
        await world.moment()
        await world.until("a", "ready", limit_s=60.0)
        while second.outcome != "served":
            await world.moment()
        assert argv(world)[-1] == OTHER.command.argv

    servers = ServerScript(spawn_s=1.0, healthy_s=1.0, terminate_s=1.0)
    launcher = run_scenario(scenario, old, servers={"a": servers}, commands=commands)
    programs = launcher.programs()
    first_new = programs.index("new-beforeStart")

    assert not [program for program in programs[first_new:] if program.startswith("old")]
    assert programs.count("old-afterHealthy") == programs.count("old-beforeStop")
    assert programs.count("old-beforeStart") == programs.count("old-afterStop") == 1


@row("B19")
def test_running_service_keeps_the_hooks_of_its_own_version() -> None:
    """New hooks apply from the next start on, and the service is not stopped."""
    old = replace(A, hooks={"beforeStop": (hook("old"),)}, stop_argv=("old-stop",))
    new = replace(A, hooks={"beforeStop": (hook("new"),)}, stop_argv=("new-stop",))
    commands = {name: CommandScript(signals="a") for name in ("old-stop", "new-stop")}

    async def scenario(world: World) -> None:
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        assert world.supervisor.update(new) == "next_start"
        assert world["a"].state == "ready"
        await world.at(10.0)
        await world["a"].stop()
        assert world.launcher.programs() == ["old", "old-stop"]
        await world.supervisor.load("a")
        await world["a"].stop()

    assert run_scenario(scenario, old, commands=commands).programs() == [
        "old",
        "old-stop",
        "new",
        "new-stop",
    ]


@row("B19")
def test_hook_that_runs_is_not_disturbed() -> None:
    """A reload during afterHealthy does not affect that start."""
    old = replace(A, hooks={"afterHealthy": (hook("old"),)})
    new = replace(A, hooks={"afterHealthy": (hook("new"),)})

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=1.0)
        await world.until("a", "after_healthy")
        assert world.supervisor.update(new) == "next_start"
        await world.until("a", "ready")
        await world.moment()
        assert client.outcome == "served"

    launcher = run_scenario(scenario, old, commands={"old": CommandScript(takes_s=9.0)})
    assert launcher.programs() == ["old"]


def test_change_reverted_while_it_drains_keeps_the_old_version() -> None:
    """The service restarts unchanged, and no request is refused."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        world.supervisor.update(OTHER)
        waiting = world.client("a", hold_s=1.0)
        await world.moment()
        assert world.supervisor.update(service("a")) == "same"
        await world.moment()
        await world.until("a", "stopped", "starting")
        await world.until("a", "ready")
        await world.moment()
        assert waiting.outcome == "served"
        assert argv(world) == [A.command.argv] * 2

    run_scenario(scenario, A, servers=SLOW)


def test_service_that_refuses_to_stop_serves_on() -> None:
    """With `drain: refuse` the old process serves; the change comes with the next stop."""
    old = replace(A, drain="refuse", timings=Timings(drain_limit=10.0))
    new = replace(old, command=OTHER.command)

    async def scenario(world: World) -> None:
        busy = world.client("a")
        await world.until("a", "ready")
        world.supervisor.update(new)
        waiting = world.client("a", hold_s=1.0)
        await world.at(20.0)
        assert world["a"].state == "ready"
        assert waiting.outcome == "finished"
        busy.finish()
        await world.moment()
        await world["a"].stop()
        assert world["a"].spec == new

    run_scenario(scenario, old)


def test_process_that_cannot_be_killed_blocks_no_request() -> None:
    """The new process cannot start, so requests are refused at once."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        await world.at(2.0)
        world.supervisor.update(OTHER)
        waiting = world.client("a")
        await world.until("a", "stuck")
        await world.moment()
        assert waiting.outcome == "stuck"
        world.supervisor.update(replace(OTHER, pinned=True))
        late = world.client("a")
        await world.moment()
        assert late.outcome == "stuck"

    stubborn = ServerScript(terminate_s=None, kill_s=100.0)
    run_scenario(scenario, A, servers={"a": stubborn}, stop_limit_s=300.0)


def test_crash_of_the_old_version_does_not_count_for_the_new_one() -> None:
    """The new version has no backoff and no open breaker."""
    new = replace(A, hooks={"beforeStop": (hook("new"),)})

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "ready")
        world.supervisor.update(new)
        world.launcher.crash("a")
        await world.until("a", "stopped")
        assert (world["a"].spec, world["a"].failures) == (new, 0)

    run_scenario(scenario, A)


# ---- what applies at once
def test_idle_limit_moves_with_its_declaration() -> None:
    """Longer, shorter, removed or added: it counts from the beginning of the idle time."""

    def ttl(seconds: float | None) -> ServiceSpec:
        return replace(A, timings=Timings(idle_limit=seconds))

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        await world.moment()
        lifecycle, began = world["a"], world.now
        for limit, expected in ((20.0, 20.0), (None, None), (30.0, 30.0), (12.0, 12.0)):
            assert world.supervisor.update(ttl(limit)) == "live"
            deadline = lifecycle.deadline("idle_limit")
            left = None if deadline is None else deadline - anyio.current_time()
            assert left == (None if expected is None else pytest.approx(expected, abs=1e-3))
        await world.at(began + 5.0)
        world.supervisor.update(ttl(6.0))
        await world.until("a", "stopped")
        assert world.now == pytest.approx(began + 6.0, abs=0.1)

    run_scenario(scenario, ttl(10.0))


def test_busy_service_gets_its_idle_limit_later() -> None:
    """A new limit does not run during requests; a pinned service has none."""
    limited = replace(A, timings=Timings(idle_limit=5.0))

    async def scenario(world: World) -> None:
        world.client("a", hold_s=3.0)
        await world.until("a", "ready")
        world.supervisor.update(limited)
        assert world["a"].deadline("idle_limit") is None
        await world.at(4.0)
        assert world["a"].deadline("idle_limit") is not None
        world.supervisor.update(replace(limited, pinned=True))
        assert world["a"].deadline("idle_limit") is None

    run_scenario(scenario, A)


def test_concurrency_limit_applies_at_once() -> None:
    """A higher limit admits waiting requests; a lower one refuses new ones."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "ready")
        assert world.supervisor.update(replace(A, concurrency_limit=1)) == "live"
        refused = world.client("a")
        await world.moment()
        world.supervisor.update(replace(A, concurrency_limit=2))
        served = world.client("a")
        await world.moment()
        assert (refused.outcome, served.outcome) == ("concurrency_limit", "served")

    run_scenario(scenario, A)


def test_log_and_the_history_stay() -> None:
    """The log of the service is kept."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        lifecycle = world["a"]
        world.supervisor.update(replace(OTHER, log_limit_bytes=8))
        await world.until("a", "stopped")
        await world.supervisor.load("a")
        assert world["a"] is lifecycle
        assert lifecycle.log.history() == b"o\nhello\n"
        assert lifecycle.incarnation == 2

    run_scenario(scenario, A, servers={"a": ServerScript(output=((0.0, b"hello\n"),))})


# ---- all at once
def test_apply_touches_only_what_changed() -> None:
    """Unchanged services and their starts go on."""
    old = [service(name, endpoint=f"http://h:{i}") for i, name in enumerate("abcd")]
    a, b, c, _ = old
    hooked = replace(c, hooks={"afterStop": (hook("x"),)})
    new = [a, replace(b, pinned=True), hooked, replace(A, name="e")]

    async def scenario(world: World) -> None:
        running = world.client("a")
        starting = world.client("c", hold_s=1.0)
        await world.until("a", "ready")
        pid = world["a"].process
        changes = world.supervisor.apply(new, policy=together)
        assert changes == {"b": "live", "c": "next_start", "d": "removed", "e": "added"}
        assert world["a"].process is pid
        assert world["c"].state == "health_checking"
        await world.until("c", "ready")
        await world.moment()
        assert (running.outcome, starting.outcome) == ("served", "served")
        assert [lifecycle.spec.name for lifecycle in world.supervisor.lifecycles()] == [
            "a",
            "b",
            "c",
            "e",
        ]

    run_scenario(scenario, *old, servers={"c": ServerScript(healthy_s=3.0)}, policy=together)


@row("D07")
def test_removal_refuses_waiting_requests_and_finishes_those_in_flight() -> None:
    """Waiting, queued and later requests get 503 model_removed; a stream finishes."""

    async def scenario(world: World) -> None:
        stream = world.client("a", hold_s=9.0)
        await world.until("a", "ready")
        waiting = world.client("b")
        await world.moment()
        world.supervisor.apply([])
        late = world.client("a")
        await world.moment()
        assert (waiting.outcome, late.outcome) == ("model_removed", "model_removed")
        assert late.error is not None
        assert late.error.status_hint == 503
        assert stream.outcome == "served"
        await world.at(20.0)
        assert stream.outcome == "finished"
        assert world.supervisor.lifecycles() == []
        assert world.launcher.count("spawn", "b") == 0

    run_scenario(scenario, A, service("b"))


@row("D07")
def test_removal_ends_a_start() -> None:
    """The start of a removed service is aborted; that of an unchanged one goes on."""

    async def scenario(world: World) -> None:
        removed, kept = world.client("a"), world.client("b", hold_s=1.0)
        await world.at(1.0)
        world.supervisor.apply([service("b", endpoint="http://h:1")])
        await world.moment()
        assert removed.outcome == "model_removed"
        assert world["b"].state == "health_checking"
        await world.until("b", "ready")
        await world.moment()
        assert kept.outcome == "served"

    servers = {name: ServerScript(healthy_s=5.0) for name in "ab"}
    run_scenario(scenario, A, service("b", endpoint="http://h:1"), servers=servers, policy=together)


def test_removed_service_may_come_back_while_it_still_stops() -> None:
    """It is added after the removal; until then requests get Retry-After."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        world.supervisor.apply([])
        assert world.supervisor.apply([OTHER]) == {"a": "added"}
        early = world.client("a")
        await world.moment()
        assert early.error is not None
        assert (early.error.code, early.error.retry_after_s) == ("model_removed", 1.0)
        await world.at(10.0)
        assert world["a"].spec == OTHER
        late = world.client("a", hold_s=1.0)
        await world.moment()
        assert late.outcome == "served"

    run_scenario(scenario, A)


def test_request_for_a_removed_service_is_refused_with_the_reason() -> None:
    """It gets 503, not an internal error; an unknown name raises KeyError."""

    async def scenario(world: World) -> None:
        await world.supervisor.remove("a")
        with pytest.raises(RequestError, match="a was removed"):
            world.supervisor.acquire_nowait("a")
        with pytest.raises(RequestError, match="a was removed"):
            async with world.supervisor.lease("a"):
                pass
        with pytest.raises(KeyError):
            await world.supervisor.acquire("b")

    run_scenario(scenario, A)


def test_removal_outlasts_a_return_that_was_taken_back() -> None:
    """Removed, added and removed again during the stop: it is removed."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        world.supervisor.apply([])
        world.supervisor.apply([OTHER])
        assert world.supervisor.apply([]) == {}
        await world.at(10.0)
        assert "a" not in world.supervisor

    run_scenario(scenario, A)


def test_service_does_not_start_before_its_address_is_free() -> None:
    """It waits for the service that leaves the address, whatever the policy."""
    successor = service("b")

    async def scenario(world: World) -> None:
        world.client("a", hold_s=6.0)
        await world.until("a", "ready")
        world.supervisor.apply([successor], policy=together)
        client = world.client("b", hold_s=1.0)
        await world.at(5.0)
        assert world["b"].state == "stopped"
        await world.until("b", "ready")
        ended = world.launcher.find("exit", "a")[0].at
        assert world.launcher.find("spawn", "b")[0].at >= ended
        await world.moment()
        assert client.outcome == "served"

    run_scenario(scenario, A, policy=together)


def test_services_can_exchange_addresses() -> None:
    """Each waits for the end of the other, and both serve."""
    here, there = "http://127.0.0.1:1", "http://localhost:2"
    old = [service("a", endpoint=here), service("b", endpoint=there)]
    new = [service("a", endpoint=there), service("b", endpoint=here)]

    async def scenario(world: World) -> None:
        for name in "ab":
            world.client(name, hold_s=3.0)
        await world.until("b", "ready")
        await world.until("a", "ready")
        world.supervisor.apply(new)
        clients = [world.client(name, hold_s=1.0) for name in "abab"]
        await world.at(60.0)
        assert [client.outcome for client in clients] == ["finished"] * 4
        first = min(record.at for record in world.launcher.find("spawned")[2:])
        assert first >= max(record.at for record in world.launcher.find("exit")[:2])

    servers = {name: ServerScript(terminate_s=t) for name, t in (("a", 1.0), ("b", 4.0))}
    run_scenario(scenario, *old, servers=servers, policy=together)


def test_policy_and_limits_change_together() -> None:
    """A request is served at once if the new policy needs no eviction for it."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "ready")
        waiting = world.client("b", hold_s=1.0)
        await world.at(1.0)
        assert waiting.outcome == "waiting"
        specs = [A, service("b", endpoint="http://h:1")]
        world.supervisor.apply(specs, policy=together, queue=QueueLimits(length=1))
        await world.moment()
        assert waiting.outcome == "served"
        assert world.supervisor.apply(specs) == {}
        assert world.supervisor.scheduler.policy("b", frozenset({"a"})) == frozenset()
        assert world.supervisor.scheduler.limits.length == 1

    run_scenario(scenario, A, service("b", endpoint="http://h:1"), policy=one_at_a_time)


def test_invalid_declaration_changes_no_service() -> None:
    """Two services of one name are refused before any change."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        with pytest.raises(ConfigError, match="got this one twice"):
            world.supervisor.apply([service("b"), service("b")])
        assert world["a"].state == "ready"

    run_scenario(scenario, A)


def test_update_during_shutdown_is_ignored() -> None:
    """A reload during the shutdown is refused."""

    async def scenario(world: World) -> None:
        world.supervisor.close()
        with pytest.raises(RequestError, match="shutting down"):
            world.supervisor.apply([])

    run_scenario(scenario, A)


# ---- onIdle
def test_idle_loader_returns_to_its_service() -> None:
    """Some time after the last request the default service runs again and others are evicted."""

    async def scenario(world: World) -> None:
        world.supervisor.idle_loader.configure("a", 60.0)
        world.client("b", hold_s=10.0)
        await world.until("a", "ready")
        assert world.now == pytest.approx(70.0, abs=1.0)
        assert world["b"].state == "stopped"
        await world["a"].stop()
        await world.until("a", "ready", limit_s=61.0)
        world.supervisor.idle_loader.configure(None, 60.0)
        await world["a"].stop()
        await world.at(500.0)
        assert world["a"].state == "stopped"

    run_scenario(scenario, A, service("b"))


def test_idle_loader_waits_while_requests_wait() -> None:
    """A long stream is not idle time."""

    async def scenario(world: World) -> None:
        world.supervisor.idle_loader.configure("a", 10.0)
        world.client("b", hold_s=95.0)
        await world.at(94.0)
        assert world["a"].incarnation == 0
        await world.until("a", "ready")
        assert world.now >= 105.0

    run_scenario(scenario, A, service("b"), policy=together)


def test_idle_loader_respects_the_circuit_breaker_and_logs_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A default service that cannot start is tried as its breaker allows, an unknown one never.

    One line is logged for each reason, not for each attempt.
    """
    broken = replace(A, intensity=1, timings=Timings(cooldown=1000.0))

    async def scenario(world: World) -> None:
        world.supervisor.idle_loader.configure("a", 10.0)
        await world.at(900.0)
        assert world["a"].incarnation == 1
        world.supervisor.idle_loader.configure("unknown", 10.0)
        await world.at(950.0)

    with caplog.at_level(logging.WARNING):
        run_scenario(scenario, broken, servers={"a": ServerScript(exit_s=0.0, exit=Exit(code=1))})
    complaints = [r.message for r in caplog.records if "could not be loaded" in r.message]

    # The start that failed, and the 88 attempts that the circuit breaker refused.
    assert len(complaints) == 2
    assert "is not restarted for now" in complaints[1]
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


def test_limit_that_is_new_holds_for_a_start_under_way() -> None:
    """A start without a limit gets one by an update, and fails when it is reached."""
    endless = Timings(start_limit=None)
    spec = service("a", timings=endless)

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "health_checking")
        world.supervisor.update(replace(spec, timings=replace(endless, start_limit=30.0)))
        await world.until("a", "terminating")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "start_timeout"

    run_scenario(scenario, spec, servers={"a": ServerScript(healthy_s=None)})
