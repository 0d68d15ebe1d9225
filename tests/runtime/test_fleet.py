"""Fleets: policies, names, counts that hold services, and starts at the beginning."""

from __future__ import annotations

import inspect
import pydoc
import random
from typing import Any

import anyio
import pytest
from tools.compiled import IS_COMPILED
from tools.virtual import World, run_scenario

from swapchart.runtime import (
    ConfigError,
    Group,
    Policy,
    RequestError,
    Supervisor,
    Timings,
    Transition,
    UnknownServiceError,
)
from swapchart.runtime.testing import ServerScript, service

NAMES = ("a", "b", "c")
FLEET = [service(name) for name in NAMES]


# ---- policies
def test_policy_all_runs_services_side_by_side() -> None:
    """No service is evicted for another one."""

    async def scenario(world: World) -> None:
        for name in NAMES:
            await world.supervisor.load(name)

        assert {world[name].state for name in NAMES} == {"ready"}

    run_scenario(scenario, *FLEET, policy=Policy.all())


def test_policy_groups_evicts_within_the_group_only() -> None:
    """A group that swaps and is not exclusive leaves the services of other groups alone."""
    pair = Group(members=frozenset({"a", "b"}), exclusive=False)
    rest = Group(members=frozenset({"c"}), exclusive=False)

    async def scenario(world: World) -> None:
        for name in ("c", "a", "b"):
            await world.supervisor.load(name)

        assert [world[name].state for name in NAMES] == ["stopped", "ready", "ready"]

    run_scenario(scenario, *FLEET, policy=Policy.groups(pair, rest))


def test_policy_groups_with_a_service_in_two_is_refused() -> None:
    """The error names the service."""
    with pytest.raises(ConfigError, match="b: expected in one group"):
        Policy.groups(Group(members=frozenset({"a", "b"})), Group(members=frozenset({"b"})))


def test_policy_one_at_a_time_is_the_default() -> None:
    """It evicts each other service."""

    async def scenario(world: World) -> None:
        for name in NAMES:
            await world.supervisor.load(name)

        assert [world[name].state for name in NAMES] == ["stopped", "stopped", "ready"]

    run_scenario(scenario, *FLEET, policy=Policy.one_at_a_time)
    run_scenario(scenario, *FLEET)


# ---- names
def test_supervisor_unknown_service_raises_request_error_with_status() -> None:
    """An embedding server can answer 404 by the hint; the error is a `KeyError` too."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        for use in (supervisor.acquire, supervisor.load, supervisor.unload, supervisor.remove):
            with pytest.raises(RequestError, match=r"^there is no service 'nope'$") as refused:
                await use("nope")
            assert (refused.value.status_hint, refused.value.code) == (404, "unknown_service")
            assert isinstance(refused.value, KeyError)
        with pytest.raises(UnknownServiceError):
            async with supervisor.lease("nope"):
                pass
        with pytest.raises(UnknownServiceError):
            supervisor.update(service("nope"))
        with pytest.raises(UnknownServiceError):
            supervisor["nope"]

    run_scenario(scenario, *FLEET)


def test_supervisor_item_and_get_return_the_lifecycle() -> None:
    """`get` returns None for a name that is unknown."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor

        assert supervisor.get("a") is supervisor["a"]
        assert supervisor["a"].spec.name == "a"
        assert supervisor.get("nope") is None

    run_scenario(scenario, *FLEET)


def test_supervisor_help_shows_how_to_look_up_a_service() -> None:
    """Item access, `get` and `in` are part of what `help` prints."""
    if not inspect.isfunction(Supervisor.get):
        pytest.skip("compiled classes have no docstrings")
    text = pydoc.plain(pydoc.render_doc(Supervisor))

    assert 'supervisor["web"]' in text
    for method in ("__getitem__", "__contains__", "get(self, name"):
        assert method in text, method


# ---- holds
def test_hold_keeps_a_service_from_idle_stop_and_eviction() -> None:
    """Until the count is 0; then the idle limit and waiting requests take effect."""
    a = service("a", timings=Timings(idle_limit=10.0))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        assert supervisor.hold("a", 3) == 3
        assert world["a"].in_flight == 3
        other = world.client("b")
        await world.at(100.0)
        assert (world["a"].state, other.outcome) == ("ready", "waiting")
        assert supervisor.hold("a", 0) == 0
        await world.until("b", "ready")
        assert world["a"].state == "stopped"
        other.finish()
        await supervisor.load("a")
        supervisor.hold("a", 2)
        await world.at(300.0)
        supervisor.hold("a", 0)
        assert await world.until("a", "stopped") >= 10.0

    run_scenario(scenario, a, service("b"))


def test_hold_replaces_the_count_and_adds_to_leases() -> None:
    """Three players, then one; a lease beside them is counted for itself."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        async with supervisor.lease("a"):
            for count in (3, 1, 1, 4):
                assert supervisor.hold("a", count) == count
                assert world["a"].in_flight == count + 1
                assert supervisor.scheduler.services["a"].granted == count + 1
        assert world["a"].in_flight == 4
        supervisor.hold("a", 0)
        assert world["a"].in_flight == 0

    run_scenario(scenario, *FLEET)


def test_hold_drains_a_stop_until_the_last_use_has_ended() -> None:
    """A count that rises during a drain holds nothing further; one that falls releases."""
    a = service("a", drain="wait")

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        supervisor.hold("a", 2)
        world.spawn(supervisor.unload, "a")
        await world.at(500.0)
        assert world["a"].state == "draining"
        assert supervisor.hold("a", 3) == 2
        assert supervisor.hold("a", 1) == 1
        await world.at(600.0)
        assert world["a"].state == "draining"
        supervisor.hold("a", 0)
        assert await world.until("a", "stopped") < 1.0

    run_scenario(scenario, a)


def test_hold_is_dropped_with_the_process() -> None:
    """The players of a crashed server are gone: its next run is idle."""
    a = service("a", restart="permanent", timings=Timings(backoff=1.0))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        supervisor.hold("a", 5)
        world.launcher.crash("a")
        await world.until("a", "backoff")
        assert world["a"].in_flight == supervisor.scheduler.services["a"].granted == 0
        await world.until("a", "ready")
        assert world["a"].in_flight == 0
        assert supervisor.hold("a", 1) == 1
        world["a"].stop_nowait()  # drains for 30 s, and starts anew at once for the next request
        await world.until("a", "terminating")
        waiting = world.client("a")
        await world.until("a", "ready")
        await world.moment()
        assert waiting.outcome == "served"
        assert world["a"].in_flight == supervisor.scheduler.services["a"].granted == 1
        waiting.finish()

    run_scenario(scenario, a, servers={"a": ServerScript(terminate_s=1.0)})


def test_hold_of_a_service_that_is_not_ready_takes_nothing() -> None:
    """It does not start the service, and no count is left for the next start."""
    a = service("a", timings=Timings(idle_limit=5.0))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        assert supervisor.hold("a", 2) == 0
        world.spawn(supervisor.load, "a")
        await world.until("a", "health_checking")
        assert supervisor.hold("a", 2) == 0
        await world.until("a", "ready")
        await world.moment()
        assert world["a"].in_flight == 0
        await world.until("a", "stopped")

    run_scenario(scenario, a, servers={"a": ServerScript(healthy_s=3.0)})


def test_hold_by_a_listener_takes_effect_after_the_transition() -> None:
    """It holds a service that has just become ready, and can be released later."""
    a = service("a", timings=Timings(idle_limit=5.0))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor

        def hold(record: Transition) -> None:
            if record.target == "ready":
                supervisor.hold(record.service, 2)

        supervisor.listen(hold)
        await supervisor.load("a")
        await world.at(100.0)
        assert world["a"].in_flight == 2
        supervisor.hold("a", 0)
        await world.until("a", "stopped")

    run_scenario(scenario, a)


def test_hold_counts_toward_the_concurrency_limit_and_is_not_limited_by_it() -> None:
    """Players that are there cannot be refused; a further lease can."""
    a = service("a", concurrency_limit=2)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert world.supervisor.hold("a", 5) == 5
        with pytest.raises(RequestError) as refused:
            await world.supervisor.acquire("a")
        assert refused.value.status_hint == 429
        world.supervisor.hold("a", 1)
        await world.supervisor.acquire("a")
        world.supervisor.release("a")

    run_scenario(scenario, a)


def test_hold_of_a_billion_costs_no_more_than_one() -> None:
    """A step for each unit would take hours; there is room again when the count falls."""
    a = service("a", concurrency_limit=10, timings=Timings(idle_limit=10.0))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        assert supervisor.hold("a", 10**9) == 10**9
        assert world["a"].in_flight == 10**9
        refused = world.client("a")
        await world.at(100.0)
        assert (refused.outcome, world["a"].state) == ("concurrency_limit", "ready")
        assert supervisor.hold("a", 9) == 9
        served = world.client("a")
        await world.moment()
        assert (served.outcome, world["a"].in_flight) == ("served", 10)
        served.finish()
        world["a"].stop_nowait()
        await world.moment()
        assert supervisor.hold("a", 11) == 9
        assert supervisor.hold("a", 1) == 1
        assert world["a"].state == "draining"
        assert supervisor.hold("a", 0) == 0
        await world.until("a", "stopped")
        assert (world["a"].in_flight, supervisor.scheduler.services["a"].granted) == (0, 0)

    run_scenario(scenario, a)


WRONG_TYPE = pytest.mark.skipif(IS_COMPILED, reason="compiled modules check types by themselves")


@pytest.mark.parametrize(
    "count", [-1, *(pytest.param(count, marks=WRONG_TYPE) for count in (1.5, "3", None, True))]
)
def test_hold_with_something_else_than_a_count_is_refused(count: Any) -> None:
    """The error says which service and what was expected."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        with pytest.raises(ConfigError, match="count of a: expected >= 0, a whole number, got"):
            world.supervisor.hold("a", count)
        assert world["a"].in_flight == 0

    run_scenario(scenario, service("a"))


def test_hold_with_a_negative_count_or_an_unknown_name_is_refused() -> None:
    """Nothing changes by it."""

    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError, match="count of a: expected >= 0, a whole number, got -1"):
            world.supervisor.hold("a", -1)
        with pytest.raises(UnknownServiceError):
            world.supervisor.hold("nope", 1)

    run_scenario(scenario, *FLEET)


@pytest.mark.parametrize("seed", range(40))
def test_hold_with_any_story_agrees_with_the_chart(seed: int) -> None:
    """After each of 60 random acts, the scheduler and the chart count what is held."""
    rng = random.Random(seed)
    specs = [
        service(name, restart="transient", drain=rng.choice(["cut", "wait", "refuse"]),
                timings=Timings(idle_limit=20.0, drain_limit=5.0, backoff=1.0))
        for name in NAMES
    ]  # fmt: skip

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        for _ in range(60):
            name = rng.choice(NAMES)
            match rng.randrange(7):
                case 0 | 1 | 2:
                    held = supervisor.hold(name, rng.choice([0, 1, 2, 7]))
                    assert held <= world[name].in_flight
                case 3:
                    world.client(name, hold_s=rng.expovariate(0.2))
                case 4:
                    world[name].stop_nowait()
                case 5:
                    world.launcher.crash(name)
                case _:
                    await anyio.sleep(rng.expovariate(0.2))
            await world.moment()
            world.assert_consistent()
        for name in NAMES:
            supervisor.hold(name, 0)
        for client in world.clients:
            client.leave()
        await world.moment()
        for name in NAMES:
            assert supervisor.scheduler.services[name].granted == 0
            assert world[name].in_flight == 0

    run_scenario(scenario, *specs, seed=seed)


# ---- start at the beginning
def test_autostart_starts_services_at_the_beginning_and_when_added() -> None:
    """A service without it waits for its first request, whatever its restart policy is."""
    specs = [service("a", autostart=True), service("b", restart="permanent")]

    async def scenario(world: World) -> None:
        await world.until("a", "ready")
        world.supervisor.add(service("c", autostart=True))
        await world.until("c", "ready")
        assert world["b"].state == "stopped"

    run_scenario(scenario, *specs, policy=Policy.all())


def test_autostart_evicts_no_service(caplog: pytest.LogCaptureFixture) -> None:
    """Of two that exclude each other the first one starts, and the log says why."""
    specs = [service(name, autostart=True) for name in NAMES]

    async def scenario(world: World) -> None:
        await world.until("a", "ready")
        assert [world[name].state for name in NAMES] == ["ready", "stopped", "stopped"]

    run_scenario(scenario, *specs)

    assert "b does not start at the beginning: the policy would evict a for it" in caplog.text


def test_autostart_that_fails_is_logged_and_restarts_by_its_policy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first launch fails; a permanent service comes up after its backoff."""
    a = service("a", autostart=True, restart="permanent", timings=Timings(backoff=2.0))

    async def scenario(world: World) -> None:
        await world.until("a", "ready")

    servers = {"a": [ServerScript(healthy_s=9.0, exit_s=0.5), ServerScript()]}
    run_scenario(scenario, a, servers=servers)

    assert "a failed to start at the beginning" in caplog.text
