"""Swaps: which services run, which are evicted, and which requests wait."""

from __future__ import annotations

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Exit, QueueLimits, RequestError, Timings
from swapchart.runtime.testing import CommandScript, ServerScript, service

SLOW = ServerScript(healthy_s=5.0, terminate_s=2.0)


def never_both(world: World, *names: str) -> None:
    """Fail as soon as two of *names* have a process at a time."""
    alive: set[str] = set()
    for record in world.launcher.records:
        if record.what == "spawned":
            alive.add(record.name)
        elif record.what == "swept":
            alive.discard(record.name)
        assert len(alive & set(names)) <= 1, f"{alive} at {record.at}"


def test_swap_stops_one_service_before_it_starts_the_other() -> None:
    """Exclusive services never overlap, and hooks get the name of the target."""
    hooks = {"beforeStop": (hook("save"),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        assert world["a"].state == "stopped"
        assert world["b"].state == "ready"
        assert world.now == pytest.approx(5.0 + 2.0 + 5.0, abs=0.5)
        never_both(world, "a", "b")

    launcher = run_scenario(
        scenario, service("a", hooks=hooks), service("b"), servers={"a": SLOW, "b": SLOW}
    )

    assert launcher.environments("save")[0]["SWAPCHART_REASON"] == "evicted for b"


def test_requests_are_collated_so_that_each_service_starts_once() -> None:
    """ABCABC causes three starts, not six."""

    async def scenario(world: World) -> None:
        for name in "abcabc":
            world.client(name, hold_s=1.0)
        await world.at(100.0)
        assert world.outcomes() == {"finished": 6}
        assert world.launcher.count("spawn") == 3
        never_both(world, "a", "b", "c")

    run_scenario(scenario, service("a"), service("b"), service("c"))


def test_request_blocked_by_a_pinned_service_is_refused_with_the_reason() -> None:
    """The request is refused at once, not at its timeout."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        client = world.client("b")
        await world.moment()
        assert client.outcome == "pinned"
        assert client.error is not None
        assert client.error.status_hint == 503
        assert world["a"].state == "ready"

    run_scenario(scenario, service("a", pinned=True), service("b"))


@row("D11")
def test_slow_stop_does_not_delay_other_services() -> None:
    """While one takes a minute to stop, requests for another are served at once."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        world.spawn(world.supervisor.unload, "a")
        for at in range(1, 50):
            await world.at(float(at))
            assert world.supervisor.acquire_nowait("b")
            world.supervisor.release("b")
        assert world["a"].state == "terminating"

    run_scenario(
        scenario, service("a", timings=Timings(grace=60.0)), service("b"),
        servers={"a": ServerScript(terminate_s=None)}, policy=lambda target, running: frozenset(),
    )  # fmt: skip


def test_unload_ends_a_swap_that_still_evicts() -> None:
    """After the unload of the target, nothing starts it."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        client = world.client("b")
        await world.until("a", "terminating")
        await world.supervisor.unload("b")
        await world.moment()
        assert client.outcome == "model_unloaded"
        await world.until("a", "stopped")
        await world.at(100.0)
        assert world.launcher.count("spawn", "b") == 0
        assert world.supervisor.scheduler.swaps == {}

    run_scenario(scenario, service("a"), service("b"), servers={"a": SLOW})


def test_request_after_an_unload_gets_its_own_swap() -> None:
    """An earlier swap of the same name does not affect the later request."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        first = world.client("b")
        await world.until("a", "terminating")
        await world.supervisor.unload("b")
        second = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        assert (first.outcome, second.outcome) == ("model_unloaded", "served")
        assert world.now == pytest.approx(12.0, abs=0.5)
        never_both(world, "a", "b")

    run_scenario(scenario, service("a"), service("b"), servers={"a": SLOW, "b": SLOW})


@pytest.mark.parametrize("phase", ["draining", "terminating", "starting", "ready"])
def test_swap_cancelled_at_any_phase_is_removed(phase: str) -> None:
    """After the cancellation, the next request for either service is served."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        if phase == "draining":
            world.client("a", hold_s=3.0)
            await world.moment()
        client = world.client("b")
        if phase == "draining":
            await world.at(1.0 + world.now)
        elif phase == "terminating":
            await world.until("a", "terminating")
        else:
            await world.until("b", phase)
        client.leave()
        await world.moment()
        world.assert_consistent()
        later = [world.client(name, hold_s=1.0) for name in "ab"]
        await world.at(200.0)
        assert [each.outcome for each in later] == ["finished", "finished"]
        never_both(world, "a", "b")

    run_scenario(scenario, service("a"), service("b"), servers={"a": SLOW, "b": SLOW})


@pytest.mark.parametrize("restart", ["transient", "permanent"])
@row("D12")
def test_service_that_comes_back_by_itself_never_joins_an_exclusive_one(
    restart: str,
) -> None:
    """In backoff it keeps its resources; a request for another cancels its restart."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.crash("a", Exit(code=1))
        await world.until("a", "backoff")
        client = world.client("b", hold_s=20.0)
        await world.until("b", "ready")
        await world.at(20.0)
        assert client.outcome == "served"
        assert world["a"].state == "stopped"
        assert world["a"].failures == 1
        never_both(world, "a", "b")

    run_scenario(scenario, service("a", restart=restart), service("b"))


@row("D12")
def test_tripped_service_that_revives_itself_never_joins_an_exclusive_one() -> None:
    """It rejects requests, keeps its resources, and is evicted for another service."""
    broken = ServerScript(healthy_s=None, exit_s=0.1, exit=Exit(code=1))

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "tripped")
        assert world.supervisor.scheduler.running() == {"a"}
        refused = world.client("a")
        await world.moment()
        assert refused.outcome == "failed"
        client = world.client("b", hold_s=100.0)
        await world.until("b", "ready")
        await world.at(world.now + 90.0)
        assert client.outcome == "served"
        never_both(world, "a", "b")

    run_scenario(scenario, service("a", restart="permanent"), service("b"), servers={"a": broken})


def test_eviction_does_not_reset_the_failure_count() -> None:
    """Evictions do not make a broken service start more often."""
    broken = ServerScript(healthy_s=None, exit_s=0.1, exit=Exit(code=1))

    async def scenario(world: World) -> None:
        for _ in range(100):
            world.client("a")
            world.client("b", hold_s=0.1)
            await anyio.sleep(0.5)
        starts = [record.at for record in world.launcher.find("spawn", "a")]
        assert 5 <= len(starts) <= 6
        assert world.outcomes()["finished"] == 100

    run_scenario(scenario, service("a", restart="permanent"), service("b"), servers={"a": broken})


def test_unhealthy_service_on_its_way_to_a_restart_yields_to_a_swap() -> None:
    """The eviction cancels the restart."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].replay("unhealthy", cause="by the test")
        await world.until("a", "terminating")
        client = world.client("b", hold_s=30.0)
        await world.at(30.0)
        assert client.outcome == "served"
        assert world["a"].state == "stopped"
        never_both(world, "a", "b")

    run_scenario(scenario, service("a", restart="permanent"), service("b"), servers={"a": SLOW})


@row("D03")
def test_busy_service_does_not_starve_others() -> None:
    """With overlapping requests the other waits for max_wait, the longest request and a start."""

    async def keep_busy(world: World) -> None:
        while world.now < 200.0:
            world.client("a", hold_s=7.0)
            await anyio.sleep(1.0)

    async def scenario(world: World) -> None:
        world.spawn(keep_busy, world)
        await world.until("a", "ready")
        await world.at(10.0)
        client = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        assert client.served_at is not None
        assert client.served_at - client.requested_at <= 30.0 + 7.0 + 2.0 + 5.5
        await world.at(300.0)
        assert set(world.outcomes()) == {"finished"}

    run_scenario(scenario, service("a"), service("b"), servers={"a": SLOW, "b": SLOW})


@row("D03")
def test_low_priority_request_is_never_starved() -> None:
    """Beside two alternating services of high priority, the third is served in time."""

    async def keep_busy(world: World) -> None:
        names = "ac"
        while world.now < 200.0:
            world.client(names[int(world.now) % 2], hold_s=3.0, priority=9)
            await anyio.sleep(1.0)

    async def scenario(world: World) -> None:
        world.spawn(keep_busy, world)
        await world.at(10.0)
        client = world.client("b", hold_s=1.0)
        await world.until("b", "ready")
        await world.moment()
        assert client.served_at is not None
        assert client.served_at - client.requested_at <= 30.0 + 3.0 + 2 * (2.0 + 5.5)

    run_scenario(
        scenario, service("a"), service("b"), service("c"),
        servers={"a": SLOW, "b": SLOW, "c": SLOW},
    )  # fmt: skip


def chat(min_residency_s: float) -> tuple[list[float], int]:
    """Let a chat application talk to a model, and ask another one for titles and tags.

    A person reads each response for five seconds. The application asks the second model twice at
    the end of each response. Eight turns.

    Returns:
        How long the person waited in each turn, in seconds, and how often a model was started.
    """
    waits: list[float] = []
    starts: list[str] = []

    async def scenario(world: World) -> None:
        for _ in range(8):
            asked_at = anyio.current_time()
            async with world.supervisor.lease("large"):
                waits.append(anyio.current_time() - asked_at)
                await anyio.sleep(3.0)
            for _ in range(2):
                world.client("small", hold_s=0.5)
            await anyio.sleep(5.0)
        await anyio.sleep(100.0)
        starts.extend(record.service for record in world.trace if record.target == "ready")
        assert world.outcomes() == {"finished": 16}

    servers = {
        "large": ServerScript(healthy_s=7.0, terminate_s=0.5),
        "small": ServerScript(healthy_s=3.0, terminate_s=0.5),
    }
    limits = QueueLimits(min_residency_s=min_residency_s, max_wait_s=30.0)
    run_scenario(scenario, service("large"), service("small"), queue=limits, servers=servers)
    return waits, len(starts)


@row("D04")
def test_residency_of_a_chat_with_titles_saves_swaps_and_waiting() -> None:
    """With a residency the person is served at once but after a swap for an overdue title.

    Without one, each of the eight turns swaps twice, and the person waits for a load each time.
    """
    waits, starts = chat(0.0)
    assert starts == 16
    assert min(waits) > 7.0

    waits, starts = chat(10.0)
    assert starts <= 6
    assert sorted(waits)[5] == 0.0
    assert max(waits) < 7.0 + 3.0 + 2.0


@row("D10")
def test_request_that_waits_too_long_is_refused_with_a_reason() -> None:
    """The error gives its timeout and why it waited."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=500.0)
        await world.until("a", "ready")
        client = world.client("b")
        await world.at(301.0)
        assert client.outcome == "queue_timeout"
        assert client.ended_at == pytest.approx(client.requested_at + 300.0)
        assert "a has 1 requests in flight" in str(client.error)

    run_scenario(scenario, service("a"), service("b"))


@row("D07")
def test_service_that_is_removed_while_it_starts_is_cancelled() -> None:
    """Its requests get model_removed, other starts go on, and the name can be used again."""

    async def scenario(world: World) -> None:
        kept = world.client("b", hold_s=1.0)
        gone = [world.client("a") for _ in range(3)]
        await world.until("a", "health_checking")
        world.spawn(world.supervisor.remove, "a")
        await world.moment()
        late = world.client("a")
        await world.moment()
        assert {client.outcome for client in [*gone, late]} == {"model_removed"}
        await world.until("b", "ready")
        await world.moment()
        assert kept.outcome == "served"
        assert "a" not in world.supervisor
        assert "a" not in world.supervisor.scheduler.services
        world.supervisor.add(service("a"))
        await world.supervisor.load("a")

    run_scenario(
        scenario, service("a"), service("b"), servers={"a": SLOW, "b": SLOW},
        policy=lambda target, running: frozenset(),
    )  # fmt: skip


@row("D07")
def test_requests_in_the_queue_of_a_removed_service_are_refused() -> None:
    """So are requests that wait for its start; requests behind them go on."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=5.0)
        await world.until("a", "ready")
        gone = world.client("b")
        kept = world.client("c", hold_s=1.0)
        await world.moment()
        await world.supervisor.remove("b")
        await world.moment()
        assert gone.outcome == "model_removed"
        await world.at(10.0)
        assert kept.outcome == "finished"

    run_scenario(scenario, service("a"), service("b"), service("c"))


def test_name_of_a_removed_service_is_free_after_its_last_lease() -> None:
    """A late release does not count for a new service of the same name."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        await world.moment()
        removals = []

        async def remove() -> None:
            await world.supervisor.remove("a")
            removals.append(world.now)

        world.spawn(remove)
        world.spawn(remove)
        await world.until("a", "shut_down")
        await world.at(50.0)
        assert removals == []
        client.finish()
        await world.moment()
        assert removals == pytest.approx([50.0, 50.0])
        world.supervisor.add(service("a"))
        async with world.supervisor.lease("a"):
            assert world["a"].in_flight == 1

    run_scenario(scenario, service("a"))


def test_unload_all_refuses_waiting_requests_and_starts_nothing() -> None:
    """All stop concurrently, and no earlier request starts a service afterwards."""

    async def scenario(world: World) -> None:
        clients = [world.client(name, hold_s=3.0) for name in "abc"]
        await world.until("a", "ready")
        await world.moment()
        await world.supervisor.unload_all()
        await world.moment()
        assert [c.outcome for c in clients] == ["finished", "model_unloaded", "model_unloaded"]
        await world.at(100.0)
        assert world.launcher.count("spawn") == 1

    run_scenario(scenario, service("a"), service("b"), service("c"))


def test_hooks_of_an_evicted_service_delay_only_its_swap() -> None:
    """The beforeStop of A delays B; a third, independent service is not affected."""

    def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        return running & {"a", "b"} - {target} if target in "ab" else frozenset()

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        client = world.client("b", hold_s=1.0)
        await world.at(1.0)
        other = world.client("c", hold_s=1.0)
        await world.moment()
        assert other.outcome == "served"
        await world.until("b", "ready")
        assert world.now == pytest.approx(20.0)
        await world.moment()
        assert client.outcome == "served"

    run_scenario(
        scenario, service("a", hooks={"beforeStop": (hook("save"),)}), service("b"), service("c"),
        commands={"save": CommandScript(takes_s=20.0)}, policy=policy,
    )  # fmt: skip


def test_acquire_that_may_not_start_starts_nothing_and_keeps_what_runs() -> None:
    """It is refused at once for a cold service, served by a ready one, and evicts no service."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        with pytest.raises(RequestError, match=r"b is not loaded \(stopped\)") as refused:
            await supervisor.acquire("b", may_start=False)
        assert (refused.value.code, refused.value.status_hint) == ("model_not_loaded", 503)
        await supervisor.acquire("a", may_start=False)
        supervisor.release("a")
        loading = world.client("b")
        await world.until("a", "terminating")
        with pytest.raises(RequestError, match=r"a is not loaded \(stopping\)"):
            await supervisor.acquire("a", may_start=False)
        await world.until("b", "starting")
        with pytest.raises(RequestError, match=r"b is not loaded \(starting\)"):
            await supervisor.acquire("b", may_start=False)
        await world.until("b", "ready")
        await world.moment()
        assert loading.outcome in ("", "served")
        assert (world.launcher.count("spawn", "a"), world.launcher.count("spawn", "b")) == (1, 1)

    run_scenario(scenario, service("a"), service("b"), servers={"a": SLOW, "b": SLOW})
