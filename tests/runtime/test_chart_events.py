"""Charts of services that lack an event which the runtime posts: refused, or run without it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from tools.virtual import World, hook, run_scenario

from swapchart.machine import ChartError, Document, EventError, lifecycle, merge
from swapchart.machine.digest import proof_digest_of
from swapchart.machine.format.parse import from_mapping
from swapchart.runtime import Liveness, Policy, ServiceSpec, Supervisor, chart_check
from swapchart.runtime.chart_check import require_checked
from swapchart.runtime.errors import EngineError
from swapchart.runtime.testing import (
    ScriptedLauncher,
    ServerScript,
    ServerScripts,
    run_virtual,
    service,
)

#: Keys of a document that hold names of events.
_KEYS = ("event", "ignores", "unless", "down", "up", "patience", "ask", "give_up", "done", "raise",
         "found", "also")  # fmt: skip
EVENTS = lifecycle().events
TIMERS = {name for name, event in EVENTS.items() if event.origin == "timer"}
#: Events that a chart may lack, besides those of timers, which may have any name.
OPTIONAL = {"start", "sleep", "give_way", "kill", "adopted"}
SCRIPTS: dict[str, ServerScripts] = {
    "serves": ServerScript(),
    "crashes": [ServerScript(exit_s=20.0), ServerScript()],
    "gets sick": [ServerScript(sick_s=10.0), ServerScript()],
    "cannot be terminated": ServerScript(terminate_s=None),
}
NEEDED = [name for name in EVENTS if name not in OPTIONAL | TIMERS]


def renamed(value: Any, name: str, key: str = "") -> Any:
    """Return *value*, in which event *name* has another name."""
    if isinstance(value, Mapping):
        return {
            (f"other_{name}" if key == "events" and one == name else one): renamed(inner, name, one)
            for one, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [renamed(one, name, key) for one in value]
    return f"other_{name}" if key in _KEYS and value == name else value


@cache
def lacking(name: str) -> Document:
    """Return the shipped chart, which calls event *name* otherwise."""
    chart = from_mapping(renamed(lifecycle().source, name))
    assert name not in chart.events
    return chart


def without_field(event: str) -> Document:
    """Return the shipped chart, whose *event* has no fields."""
    source = dict(lifecycle().source)
    source["events"] = {**source["events"], event: {**source["events"][event], "data": {}}}
    field = next(iter(EVENTS[event].data))
    text = {"abnormal": "False", "permanent": "False"}[field]
    actions = source["actions"]
    source["actions"] = {
        name: {**action, "set": {k: v.replace(field, text) for k, v in action["set"].items()}}
        if "set" in action else action
        for name, action in actions.items()
    }  # fmt: skip
    source["promises"] = {**source["promises"], "always": []}
    return from_mapping(source)


def passed(chart: Document) -> Document:
    """Return *chart*, noted as one that the checker has explored."""
    chart_check._passed.add(proof_digest_of(chart))
    return chart


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_check, "_passed", set())


def spec(name: str, chart: Document | None, **fields: Any) -> ServiceSpec:
    hooks = {"afterStop": (hook("tidy"),)}
    liveness = Liveness(every_s=5.0, url="http://127.0.0.1:5800/health")
    return service(name, chart=chart, hooks=hooks, liveness=liveness, **fields)


@pytest.mark.parametrize("name", NEEDED)
def test_chart_without_a_needed_event_is_refused(name: str) -> None:
    """At the supervisor, before anything is explored; the error has the declaration to write."""
    declared = EVENTS[name]
    of = f", of: {declared.of}" if declared.of else ""
    with pytest.raises(ChartError) as refused:
        require_checked(passed(lacking(name)))

    assert f"`{name}: {{origin: {declared.origin}{of}}}`" in str(refused.value)


def test_supervisor_names_all_events_that_a_chart_lacks() -> None:
    """One error for a chart that was made for something else."""
    lamp = from_mapping({
        "format": "swapchart.chart/v1", "name": "Lamp", "events": {"press": {"origin": "user"}},
        "chart": {"states": {"dark": {"initial": True, "transitions": [{"event": "press"}]}}},
    })  # fmt: skip

    async def main() -> None:
        with pytest.raises(ChartError, match=r"request.*abandon.*finish.*stop.*shutdown"):
            Supervisor(ScriptedLauncher(), chart=lamp)
        with pytest.raises(ChartError, match="chart: the chart of a service needs"):
            async with Supervisor(ScriptedLauncher(), [service("a", chart=lamp)]):
                pass

    run_virtual(main)


@pytest.mark.parametrize(
    ("name", "script"),
    [(name, script) for name in sorted(OPTIONAL) for script in SCRIPTS]
    + [(name, "crashes") for name in sorted(TIMERS)],
)
def test_chart_without_an_optional_event_harms_no_service(name: str, script: str) -> None:
    """Start, crash, liveness, reload, eviction, removal and shutdown of it and of another one."""
    chart = passed(lacking(name))

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        await supervisor.load("a")
        await world.at(60.0)
        await supervisor.load("b")  # evicts the first one
        await supervisor.load("a")
        supervisor.apply([spec("a", chart, intensity=3), service("b"), spec("c", chart)])
        await supervisor.load("c")
        supervisor.update(spec("c", chart, check_url="http://127.0.0.1:5801/health"))
        await supervisor.load("c")
        await supervisor.remove("c")
        await supervisor.load("a")
        await supervisor.unload("a")
        await supervisor.load("a")

    own = spec("a", chart, restart="permanent")
    run_scenario(scenario, own, service("b"), servers={"a": SCRIPTS[script]})


@pytest.mark.parametrize("own", ["a", "b"])
def test_chart_without_kill_is_killed_all_the_same(own: str) -> None:
    """By `Supervisor.kill`, and at the limit of a shutdown; the other service too."""
    chart = passed(lacking("kill"))
    specs = [spec(name, chart if name == own else None) for name in "ab"]

    async def scenario(world: World) -> None:
        world.supervisor.apply(specs, policy=Policy.all())
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        await world.supervisor.shutdown(5.0)
        assert {world["a"].state, world["b"].state} == {"shut_down"}

    hangs = ServerScript(terminate_s=None)
    launcher = run_scenario(scenario, *specs, servers={"a": hangs, "b": hangs})

    assert launcher.count("kill", "a") >= 1
    assert launcher.count("kill", "b") >= 1


def test_start_without_a_declared_start_is_an_error_of_the_caller() -> None:
    """Not a line in the log: the program has asked for what its chart cannot do."""
    chart = passed(lacking("start"))

    async def scenario(world: World) -> None:
        with pytest.raises(EventError, match="start"):
            world["a"].start()

    run_scenario(scenario, spec("a", chart))


@pytest.mark.parametrize(
    ("event", "script"),
    [
        ("proc_exited", ServerScript(exit_s=10.0)),
        ("spawn_failed", None),
    ],
)
def test_chart_without_a_field_gets_the_event_without_it(
    event: str, script: ServerScript | None
) -> None:
    """The end of a process and of a failed launch arrive."""
    chart = passed(without_field(event))
    server = script or ServerScript(error=EngineError("no memory"))

    async def scenario(world: World) -> None:
        world["a"].start()
        await world.until("a", "backoff", limit_s=100.0)

    run_scenario(scenario, spec("a", chart), servers={"a": server})


@pytest.mark.parametrize(
    ("event", "wrong", "text"),
    [
        ("shutdown", {"origin": "process"}, "events.shutdown: expected `origin: user`"),
        ("kill", {"origin": "process"}, "events.kill: expected `origin: user`"),
        ("healthy", {"origin": "user"}, "events.healthy: expected `origin: activity, of: health`"),
        ("proc_exited", {"origin": "process", "data": {"abnormal": [True]}},
         "events.proc_exited.data.abnormal: expected true and false"),
    ],
)  # fmt: skip
def test_chart_with_another_sender_of_a_needed_event_is_refused(
    event: str, wrong: dict[str, Any], text: str
) -> None:
    """Its proof holds for another sender than the runtime."""
    source = dict(lifecycle().source)
    source["events"] = {**source["events"], event: wrong}
    with pytest.raises(ChartError) as refused:
        require_checked(passed(from_mapping(source)))

    assert text in str(refused.value)


def test_chart_that_starts_an_unknown_activity_is_refused() -> None:
    """The runtime could not run it; before, that was a line in the log and a start without end."""
    chart = merge(lifecycle(), {
        "actions": {"warm": {"do": {"effect": "activity.start", "activity": "warm_up"}}},
        "states": {"ready": {"enter": ["warm"]}},
    })  # fmt: skip
    with pytest.raises(ChartError, match=r"actions\.warm: .*'warm_up'.*known: .*health"):
        require_checked(passed(chart))


@pytest.mark.parametrize("state", ["starting", "ready", "stopping", "shut_down"])
def test_chart_without_a_needed_state_is_refused(state: str) -> None:
    """The scheduler knows the phase of a service by these names."""
    text = repr(lifecycle().source).replace(f"'{state}'", f"'other_{state}'")
    source = ast.literal_eval(text.replace(f"'other_{state}': 'other", f"'{state}': 'other"))
    chart = from_mapping(source)
    with pytest.raises(ChartError, match=f"chart: .*state `{state}`"):
        require_checked(passed(chart))
