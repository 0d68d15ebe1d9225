"""Charts of single services, and phases, below one supervisor on virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.machine import ChartError, add_phase, lifecycle, merge
from swapchart.runtime import Exit, Lifecycle, Policy, RequestError, ServiceSpec, Supervisor
from swapchart.runtime.testing import (
    CommandScript,
    ScriptedLauncher,
    run_virtual,
    service,
)

WARMING = add_phase(lifecycle(), "warming", after="after_healthy", point="warmUp")
#: A stop while it warms skips the hooks that belong to ``afterHealthy``.
BROKEN = merge(
    WARMING,
    {"states": {"warming": {"remove_transitions": [{"event": "stop"}]}}},
)
HOOKS = {"warmUp": (hook("warm", on_error="fail"),), "beforeStop": (hook("save"),)}


def game(name: str, **fields: object) -> ServiceSpec:
    return service(name, chart=WARMING, hooks=HOOKS, **fields)


# ---- charts of services
def test_service_chart_runs_beside_the_shipped_one_and_shares_eviction() -> None:
    """One of two services warms; each of them is evicted for the other."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert "warming" in world.states("a")
        await world.supervisor.load("b")
        assert (world["a"].state, world["b"].state) == ("stopped", "ready")
        await world.supervisor.load("a")
        assert (world["a"].state, world["b"].state) == ("ready", "stopped")
        assert "warming" not in world.states("b")

    launcher = run_scenario(scenario, game("a"), service("b"))

    assert launcher.programs() == ["warm", "save", "warm", "save"]


def test_service_chart_shares_the_hook_limit() -> None:
    """Hooks of both lifecycles take turns at the one place that there is."""
    hooks = {"afterHealthy": (hook("other"),)}

    async def scenario(world: World) -> None:
        for name in "ab":
            world.spawn(world.supervisor.load, name)
        assert await world.until("a", "ready") + await world.until("b", "ready") == pytest.approx(
            8.0, abs=0.5
        )

    commands = {name: CommandScript(takes_s=4.0) for name in ("warm", "other")}
    run_scenario(
        scenario, game("a"), service("b", hooks=hooks), policy=Policy.all(), hook_limit=1,
        commands=commands,
    )  # fmt: skip


def test_service_chart_that_breaks_a_promise_is_refused_before_anything_changes() -> None:
    """At the start, by `add`, by `update` and by `apply`."""
    broken = service("a", chart=BROKEN)

    async def main() -> None:
        with pytest.raises(ChartError):
            async with Supervisor(ScriptedLauncher(), [service("b"), broken]):
                pass

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        with pytest.raises(ChartError):
            supervisor.add(service("c", chart=BROKEN))
        with pytest.raises(ChartError):
            supervisor.update(broken)
        with pytest.raises(ChartError):
            supervisor.apply([service("d"), broken])
        assert [each.spec.name for each in supervisor.lifecycles()] == ["a"]
        assert supervisor["a"].spec.chart is None

    run_virtual(main)
    run_scenario(scenario, service("a"))


def test_service_chart_that_changes_replaces_the_service() -> None:
    """Its requests are finished by the old chart; a start at the beginning happens anew."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        assert world.supervisor.update(game("a", autostart=True)) == "restart"
        with pytest.raises(RequestError, match="a was removed") as refused:
            await world.supervisor.acquire("a")
        assert refused.value.retry_after_s == 1.0
        assert world["a"].document.name == lifecycle().name
        assert "warming" not in world.states("a")
        client.finish()
        await world.until("a", "shut_down")
        await world.moment()
        await world.until("a", "ready")
        assert "warming" in world.states("a")
        assert world.supervisor.apply([game("a", autostart=True)]) == {}
        assert world.supervisor.apply([service("a")]) == {"a": "restart"}

    run_scenario(scenario, service("a"))


# ---- a phase
END: dict[str, Callable[[Lifecycle], None]] = {
    "stop": Lifecycle.stop_nowait,
    "shutdown": lambda lifecycle: lifecycle.post("shutdown"),
    "kill": lambda lifecycle: lifecycle.post("kill"),
}


@pytest.mark.parametrize("event", END)
def test_phase_that_is_ended_runs_the_hooks_of_the_stop(event: str) -> None:
    """Its own hook is cancelled; a kill skips the others, and no process is left."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "warming")
        await world.moment()
        END[event](world["a"])
        await world.until("a", "stopped", "shut_down")
        await world.moment()
        assert client.outcome in ("stopped", "shutting_down")

    launcher = run_scenario(scenario, game("a"), commands={"warm": CommandScript(takes_s=100.0)})

    assert launcher.programs() == (["warm"] if event == "kill" else ["warm", "save"])


def test_phase_whose_last_request_leaves_is_abandoned() -> None:
    """As any other part of a start that is configured so."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "warming")
        client.leave()
        assert await world.until("a", "stopped") < 10.0

    launcher = run_scenario(
        scenario, game("a", abandon="abort"), commands={"warm": CommandScript(takes_s=100.0)}
    )

    assert launcher.programs() == ["warm", "save"]


def test_phase_whose_hook_fails_refuses_the_request_with_its_cause() -> None:
    """The lease does not hang, and the process is stopped with its hooks."""

    async def scenario(world: World) -> None:
        with pytest.raises(RequestError) as refused:
            await world.supervisor.acquire("a")
        assert (refused.value.code, refused.value.status_hint) == ("hook_failed", 502)

    commands = {"warm": CommandScript(exit=Exit(code=3))}
    launcher = run_scenario(scenario, game("a"), commands=commands)

    assert launcher.programs() == ["warm", "save"]
