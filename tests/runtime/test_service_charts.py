"""Charts of single services, and phases, below one supervisor on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.machine import (
    Bounds,
    ChartError,
    add_phase,
    check,
    lifecycle,
    merge,
    parameter_sets,
)
from swapchart.machine.digest import proof_digest_of
from swapchart.runtime import (
    ConfigError,
    Exit,
    Lifecycle,
    Policy,
    RequestError,
    ServiceSpec,
    Supervisor,
    chart_check,
)
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


# ---- reports and parameters
def test_service_chart_with_its_report_is_not_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the start, by `add` and by `update`; the report of another chart is refused."""
    import swapchart.machine as machine

    monkeypatch.setattr(chart_check, "_passed", set())
    first = [next(iter(parameter_sets(WARMING, Bounds())))]
    report = check(WARMING, parameters=first, stop_at_first=True)
    other = check(lifecycle(), parameters=first, stop_at_first=True)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(machine, "check", never)

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        with pytest.raises(ChartError, match="got another chart's"):
            supervisor.add(game("b", checked=other))
        with pytest.raises(ChartError, match="got another chart's"):
            supervisor.update(game("a", checked=other))
        supervisor.add(game("b", checked=report))
        assert supervisor.update(game("a", checked=report)) == "same"
        await supervisor.load("b")

    run_scenario(scenario, game("a", checked=report))


def test_service_chart_with_a_broken_report_is_refused() -> None:
    """The report has findings, or there is no chart."""
    first = [next(iter(parameter_sets(BROKEN, Bounds())))]
    report = check(BROKEN, parameters=first, stop_at_first=True)

    async def scenario(world: World) -> None:
        with pytest.raises(ChartError):
            world.supervisor.add(service("b", chart=BROKEN, checked=report))

    run_scenario(scenario, service("a"))
    with pytest.raises(ConfigError, match=r"b\.checked: expected None without a chart"):
        service("b", checked=report)
    with pytest.raises(ConfigError, match=r"b\.checked: expected a Report or None, got 3"):
        service("b", chart=BROKEN, checked=3)


SPEED = merge(
    lifecycle(),
    {
        "parameters": {"speed": {"values": ["slow", "fast"]}, "retries": {"initial": 3},
                       "drain": {"values": ["cut", "wait"]}},
        "guards": {"is_fast": 'speed == "fast" and retries > 0'},
        "states": {"ready": {"transitions": [{"event": "kill", "cond": "is_fast"}]}},
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"speed": "fats"}, "parameters.speed: expected one of 'slow', 'fast', got 'fats'"),
        ({"speed": True}, "parameters.speed: expected one of 'slow', 'fast', got True"),
        ({"retries": True}, "parameters.retries: expected a value of type int, got True"),
        ({"retries": "3"}, "parameters.retries: expected a value of type int, got '3'"),
        ({"sped": "x"}, "parameters.sped: the chart has no such parameter; did you mean 'speed'?"),
        ({"stable_s": "x"}, "parameters.stable_s: expected >= 0 seconds, got 'x'"),
        ({}, "b.drain: expected one of 'cut', 'wait', got 'refuse'"),
    ],
)
@pytest.mark.parametrize("way", ["begin", "add", "update", "apply"])
def test_parameter_outside_its_domain_is_refused(
    parameters: dict[str, Any], message: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything changes; before, guards read a value that no proof covers."""
    monkeypatch.setattr(chart_check, "_passed", {proof_digest_of(SPEED)})
    drain = "cut" if parameters else "refuse"
    wrong = service("b", chart=SPEED, parameters=parameters, drain=drain)

    async def begin() -> None:
        async with Supervisor(ScriptedLauncher(), [wrong]):
            pass

    async def change(supervisor: Supervisor) -> None:
        if way == "begin":
            await begin()
        elif way == "apply":
            supervisor.apply([service("c"), wrong])
        else:
            getattr(supervisor, way)(wrong)

    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError) as refused:
            await change(world.supervisor)
        assert message in str(refused.value)
        assert [each.spec.name for each in world.supervisor.lifecycles()] == names
        assert all(each.spec is not wrong for each in world.supervisor.lifecycles())

    names = ["a", "b"] if way == "update" else ["a"]
    run_scenario(scenario, *map(service, names))


def test_parameter_of_its_domain_and_limit_of_a_timer_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The guard reads the value."""
    monkeypatch.setattr(chart_check, "_passed", {proof_digest_of(SPEED)})
    fast = {"speed": "fast", "retries": 1, "stable_s": 3}

    async def scenario(world: World) -> None:
        assert world["a"].variable("speed") == "fast"

    run_scenario(scenario, service("a", chart=SPEED, parameters=fast))
