"""Supervisor: its block, its listeners, and the ways to end it."""

from __future__ import annotations

import itertools
import logging

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.machine import EventError
from swapchart.runtime import ConfigError, RequestError, Supervisor, Timings, Transition
from swapchart.runtime.testing import (
    CommandScript,
    ScriptedLauncher,
    ServerScript,
    run_virtual,
    service,
)
from swapchart.runtime.waiter import PendingRequest


# ---- the block
def test_supervisor_exit_stops_services_in_order() -> None:
    """No process is left, hooks ran, and processes got SIGTERM before SIGKILL."""
    launcher = ScriptedLauncher({"a": ServerScript(terminate_s=3.0)})
    hooks = {"beforeStop": (hook("save"),)}

    async def main() -> None:
        async with Supervisor(launcher, [service("a", hooks=hooks)]) as supervisor:
            await supervisor.load("a")
        launcher.assert_ended()

    run_virtual(main)

    assert launcher.programs() == ["save"]
    assert launcher.count("kill") == 0


def test_supervisor_block_that_raises_stops_services_and_reraises() -> None:
    """The exception is not wrapped in a group; the processes have ended by then."""
    launcher = ScriptedLauncher()

    async def main() -> None:
        try:
            async with Supervisor(launcher, [service("a")]) as supervisor:
                await supervisor.load("a")
                raise KeyError("mine")
        finally:
            launcher.assert_ended()

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main)


def test_supervisor_block_that_is_cancelled_stops_services() -> None:
    """A cancellation from outside waits for the orderly end."""
    launcher = ScriptedLauncher({"a": ServerScript(terminate_s=3.0)})

    async def main() -> float:
        with anyio.move_on_after(10.0):
            async with Supervisor(launcher, [service("a")]) as supervisor:
                await supervisor.load("a")
                await anyio.sleep_forever()
        launcher.assert_ended()
        return anyio.current_time()

    assert run_virtual(main) == pytest.approx(1013.0)


def test_services_of_the_same_name_are_refused_before_the_start() -> None:
    """At the start and later; no process is left after the error."""

    async def main() -> None:
        with pytest.raises(ConfigError, match="twice"):
            async with Supervisor(ScriptedLauncher(), [service("a"), service("a")]):
                pass
        async with Supervisor(ScriptedLauncher(), [service("a")]) as supervisor:
            with pytest.raises(ConfigError, match="found one that exists"):
                supervisor.add(service("a"))
            assert [lifecycle.spec.name for lifecycle in supervisor.lifecycles()] == ["a"]

    run_virtual(main)


def test_supervisor_unknown_service_raises_key_error() -> None:
    """In every method that takes a name."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        for use in (supervisor.acquire, supervisor.load, supervisor.unload, supervisor.remove):
            with pytest.raises(KeyError, match="unknown"):
                await use("unknown")
        with pytest.raises(KeyError):
            supervisor.acquire_nowait("unknown")
        with pytest.raises(KeyError):
            async with supervisor.lease("unknown"):
                pass
        assert "unknown" not in supervisor
        supervisor.release("unknown")  # removed in the meantime: nothing to release

    run_scenario(scenario, service("a"))


def test_supervisor_task_raises_block_and_services_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A defect in one task is logged and ends no process."""
    launcher = ScriptedLauncher()

    async def broken() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with Supervisor(launcher, [service("a")]) as supervisor:
            await supervisor.load("a")
            supervisor.spawn(broken)
            await anyio.sleep(1.0)
            assert launcher.count("kill") == 0
            await supervisor.acquire("a")
            supervisor.release("a")

    run_virtual(main)
    assert any("broken failed" in record.getMessage() for record in caplog.records)


# ---- closing
def test_close_refuses_new_and_waiting_requests() -> None:
    """In-flight requests go on; queued and new ones get shutting_down."""

    async def scenario(world: World) -> None:
        held = world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        waiting = [world.client("b") for _ in range(5)]
        await world.moment()
        world.supervisor.close()
        late = world.client("a")
        await world.moment()
        assert {client.outcome for client in [*waiting, late]} == {"shutting_down"}
        with pytest.raises(RequestError, match="shutting down"):
            await world.supervisor.load("a")
        with pytest.raises(RequestError, match="shutting down"):
            world.supervisor.add(service("c"))
        await world.at(6.0)
        assert held.outcome == "finished"
        assert world.supervisor.scheduler.services["b"].granted == 0

    run_scenario(scenario, service("a"), service("b"))


@row("D09")
def test_shutdown_finishes_requests_in_flight() -> None:
    """Every admitted request completes if it needs no longer than the drain limit."""

    async def scenario(world: World) -> None:
        for hold_s in (1.0, 10.0, 29.0):
            world.client("a", hold_s=hold_s)
        await world.until("a", "ready")
        await world.moment()
        await world.supervisor.shutdown()
        assert world.outcomes() == {"finished": 3}
        assert world.now == pytest.approx(29.0, abs=1e-3)

    run_scenario(scenario, service("a"))


def test_shutdown_refuses_requests_that_wait_for_a_start() -> None:
    """They are refused at once, and the start is aborted."""

    async def scenario(world: World) -> None:
        clients = [world.client("a") for _ in range(3)]
        await world.until("a", "health_checking")
        await world.supervisor.shutdown()
        await world.moment()
        assert {client.outcome for client in clients} == {"shutting_down"}
        assert world["a"].is_final
        assert world.now == pytest.approx(0.0, abs=1e-3)

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=None)})


def test_expedited_shutdown_kills_the_remaining_processes() -> None:
    """After its limit there are no hooks but SIGKILL; faster services ended in order."""

    async def scenario(world: World) -> None:
        for name in "ab":
            await world.supervisor.load(name)
        await world.supervisor.shutdown(5.0)
        assert world.now == pytest.approx(5.0)
        assert all(lifecycle.is_final for lifecycle in world.supervisor.lifecycles())

    launcher = run_scenario(
        scenario, service("a"), service("b"), servers={"a": ServerScript(terminate_s=None)},
        policy=lambda target, running: frozenset(),
    )  # fmt: skip

    assert [record.name for record in launcher.find("kill")] == ["a"]


def test_lifecycle_after_shutdown_ignores_orders() -> None:
    """Requests are refused; stop, finish and kill have no effect."""

    async def scenario(world: World) -> None:
        await world.supervisor.shutdown()
        with pytest.raises(RequestError) as caught:
            await world["a"].acquire()
        assert caught.value.code == "shutting_down"
        world["a"].finish()
        assert await world["a"].stop()
        world.supervisor.kill()
        assert world["a"].unhandled == []

    run_scenario(scenario, service("a"))


# ---- lifecycles without the scheduler
def test_lifecycle_can_be_leased_without_the_scheduler() -> None:
    """Embedding programs with their own scheduler can acquire, finish and cancel."""

    async def scenario(world: World) -> None:
        lifecycle = world["a"]
        with anyio.move_on_after(1.0):
            await lifecycle.acquire()
        assert lifecycle.waiting == 0
        await lifecycle.acquire()
        assert lifecycle.in_flight == 1
        lifecycle.finish()
        assert lifecycle.in_flight == 0
        lifecycle.start()
        await lifecycle.stop()
        lifecycle.start()
        await lifecycle.wait_for("ready")

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=3.0)})


@pytest.mark.parametrize(
    ("event", "sender"),
    [("drain_expired", "timer 'drain_limit'"), ("healthy", "activity 'health'"),
     ("proc_exited", "process"), ("request", "a request"), ("finish", "a request"),
     ("abandon", "a request")],
)  # fmt: skip
def test_event_that_only_the_runtime_sends_is_refused(event: str, sender: str) -> None:
    """The error names the sender, and the service is as before."""

    async def main() -> None:
        async with Supervisor(ScriptedLauncher(), [service("a")]) as supervisor:
            lifecycle = supervisor["a"]
            before = lifecycle.configuration, lifecycle.in_flight, lifecycle.failures
            with pytest.raises(EventError, match=f"'{event}': only .*{sender}.* sends it"):
                lifecycle.post(event)
            with pytest.raises(EventError, match="has no field 'boldly'"):
                lifecycle.post("start", {"boldly": True})
            assert before == (lifecycle.configuration, lifecycle.in_flight, lifecycle.failures)
            assert not lifecycle.unhandled

    run_virtual(main)


def test_event_that_the_chart_does_not_know_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged with its state, and its request gets a 500."""
    waiter = PendingRequest()

    async def main() -> None:
        async with Supervisor(ScriptedLauncher(), [service("a")]) as supervisor:
            lifecycle = supervisor["a"]
            lifecycle.replay("healthy", waiter=waiter)
            assert lifecycle.unhandled == [(("alive", "stopped"), "healthy")]
            assert lifecycle.state == "stopped"

    run_virtual(main)

    assert waiter.error is not None
    assert waiter.error.status_hint == 500
    assert "healthy" in caplog.text


# ---- listeners
def test_transitions_are_published_once_and_in_order() -> None:
    """Listeners and event readers get the same records, with cause, times and exit."""
    received: list[Transition] = []
    read: list[Transition] = []

    async def reader(world: World) -> None:
        async for record in world.supervisor.events():
            read.append(record)
            if record.target == "stopped":
                break

    async def scenario(world: World) -> None:
        end = world.supervisor.listen(received.append)
        world.spawn(reader, world)
        await world.moment()
        await world.supervisor.load("a")
        world.launcher.crash("a")
        await world.until("a", "stopped")
        await world.moment()
        end()
        end()
        await world.supervisor.load("a")

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=2.0)})

    assert received == read
    assert [record.target for record in received][-2:] == ["backoff", "stopped"]
    for earlier, later in itertools.pairwise(received):
        assert earlier.target == later.source
        assert earlier.at + later.seconds == pytest.approx(later.at)
    [crash] = [record for record in received if record.event == "proc_exited"]
    assert str(crash.exit) == "killed by signal 11"
    assert crash.pid is not None


def test_slow_event_reader_loses_the_oldest() -> None:
    """Each reader has a bounded buffer."""
    read: list[str] = []

    async def scenario(world: World) -> None:
        events = world.supervisor.events(limit=2)
        first = anyio.Event()

        async def reader() -> None:
            async for record in events:
                read.append(record.target)
                if len(read) == 1:
                    await first.wait()
                if record.target == "stopped":
                    break
            await events.aclose()  # type: ignore[attr-defined]

        world.spawn(reader)
        await world.moment()
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        first.set()
        await world.moment()

    run_scenario(scenario, service("a"))

    assert read == ["before_start", "after_stop", "stopped"] or read[1:] == ["settling", "stopped"]


def test_listener_that_raises_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the transition, its effects and the other listeners go on."""
    received: list[str] = []

    def broken(record: Transition) -> None:
        raise ValueError(record.target)

    async def scenario(world: World) -> None:
        world.supervisor.listen(broken)
        world.supervisor.listen(lambda record: received.append(record.target))
        await world.supervisor.load("a")
        assert world["a"].state == "ready"

    with caplog.at_level(logging.ERROR):
        run_scenario(scenario, service("a"))

    assert "ready" in received
    assert "a listener failed on" in caplog.text


def test_listener_can_remove_itself_while_it_is_called() -> None:
    """The listener behind it is not skipped."""
    received: list[str] = []

    async def scenario(world: World) -> None:
        def once(record: Transition) -> None:
            received.append("once")
            end()

        end = world.supervisor.listen(once)
        world.supervisor.listen(lambda record: received.append(record.target))
        await world.supervisor.load("a")

    run_scenario(scenario, service("a"))

    assert received[:2] == ["once", "before_start"]
    assert received.count("once") == 1


POINTS = ("beforeStart", "afterStart", "afterHealthy", "beforeStop", "afterStop")


@pytest.mark.parametrize("with_hooks", [True, False])
@pytest.mark.parametrize("event", ["stop", "kill", "start", "sleep", "shutdown"])
@pytest.mark.parametrize(
    "state",
    ["before_start", "launching", "after_start", "health_checking", "after_healthy", "ready",
     "before_stop", "terminating", "sweeping", "after_stop", "settling", "stopped"],
)  # fmt: skip
def test_listener_can_post_an_order_during_a_step(state: str, event: str, with_hooks: bool) -> None:
    """Its event is processed right after, and refusals meanwhile belong to their own state."""
    hooks = {point: (hook(point),) for point in POINTS} if with_hooks else {}

    async def scenario(world: World) -> None:
        def order(record: Transition) -> None:
            if record.target == state and record.service == "a":
                end()
                world["a"].post(event, cause="by the listener")

        end = world.supervisor.listen(order)
        client = world.client("a", hold_s=1.0)
        await world.at(30.0)
        await world.supervisor.unload("a")
        await world.at(60.0)
        assert client.outcome != "waiting"
        assert world["a"].state in ("stopped", "ready", "asleep", "shut_down")

    run_scenario(
        scenario, service("a", hooks=hooks), servers={"a": ServerScript(healthy_s=1.0)},
        commands=dict.fromkeys(POINTS, CommandScript(takes_s=1.0)),
    )  # fmt: skip


def test_listener_can_acquire_a_service_without_waiting() -> None:
    """acquire_nowait during a step returns False and keeps the count."""
    results: list[bool] = []

    async def scenario(world: World) -> None:
        def ask(record: Transition) -> None:
            for name in "ab":
                results.append(world.supervisor.acquire_nowait(name))
                if results[-1]:
                    world.supervisor.release(name)

        world.supervisor.listen(ask)
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        await world.supervisor.unload("a")
        assert world["a"].in_flight == world["b"].in_flight == 0

    run_scenario(scenario, service("a"), service("b"), policy=lambda target, running: frozenset())

    assert True in results
    assert False in results


def test_supervisor_log_holds_the_logs_of_all_services() -> None:
    """Each service has its own log, and all are in the supervisor's."""
    script = ServerScript(output=((0.0, b"hello\n"),))

    async def scenario(world: World) -> None:
        for name in "ab":
            await world.supervisor.load(name)
        await world.moment()
        assert world["a"].log.history() == b"hello\n"
        assert world.supervisor.log.history() == b"hello\nhello\n"

    run_scenario(
        scenario, service("a"), service("b"), servers={"a": script, "b": script},
        policy=lambda target, running: frozenset(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: service(""),
        lambda: service("a", intensity=0),
        lambda: service("a", concurrency_limit=0),
        lambda: Timings(grace=-1.0),
        lambda: Timings(idle_limit=float("nan")),
        lambda: Timings(kill_limit=0.0),
        lambda: Timings(cooldown=0.0),
        lambda: hook("h", timeout_s=0.0),
        lambda: hook("h", retries=-1),
        lambda: hook("h", delay_s=-1.0),
        lambda: hook("h", delay_s=float("nan")),
    ],
)
def test_spec_value_out_of_range_is_refused(make: object) -> None:
    """The error names the field."""
    assert callable(make)
    with pytest.raises(ConfigError, match="expected"):
        make()
