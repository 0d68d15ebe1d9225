"""Callbacks that return, raise or are something else than what was asked for."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from tools.compiled import IS_COMPILED
from tools.virtual import World, run_scenario

from swapchart.machine import read
from swapchart.runtime import CallAction, ConfigError, Hook, Player, Supervisor
from swapchart.runtime.listeners import Listeners
from swapchart.runtime.testing import ScriptedLauncher, run_virtual, service

JOB = read("""
format: swapchart.chart/v1
name: Job
events:
  go: {}
  done: {origin: activity, of: work}
  broke: {origin: activity, of: work, on: error}
actions: {work: {do: {effect: activity.start, activity: work}}}
chart:
  states:
    idle: {initial: true, transitions: [{event: go, target: busy}]}
    busy:
      enter: work
      transitions: [{event: done, target: idle}, {event: broke, target: broken}]
    broken: {transitions: [{event: go, target: busy}]}
""")


async def break_down(point: str) -> str:
    raise OSError("no paper")


@pytest.mark.parametrize("answer", [["done"], {"done": 1}, 3, "nope", "go"])
def test_on_error_that_returns_no_event_leaves_the_choice_to_the_chart(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The instance is not stuck in `busy`, and the log says what was returned."""

    async def main() -> None:
        def on_error(activity: str, error: Exception) -> Any:
            return answer

        async with Player(JOB, activities={"work": break_down}, on_error=on_error) as player:
            player.post("go")
            with anyio.fail_after(10):
                await player.wait_for("broken")

    run_virtual(main)

    assert f"on_error returned {answer!r}" in caplog.text


@pytest.mark.parametrize("answer", [["done"], {"done": 1}, ("done",), ("done", 3), 3, b"done"])
def test_activity_that_returns_no_event_fails(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The event of its failure follows, and the log says what was returned."""

    async def work(point: str) -> Any:
        return answer

    async def main() -> None:
        async with Player(JOB, activities={"work": work}) as player:
            player.post("go")
            with anyio.fail_after(10):
                await player.wait_for("broken")

    run_virtual(main)

    assert f"activity 'work' returned {answer!r}; expected one of broke, done" in caplog.text


async def async_listener(record: object) -> None:
    """Never run."""


@pytest.mark.parametrize("listener", [None, "print", async_listener, ["x"]])
def test_listeners_that_cannot_be_called_are_refused_at_once(listener: Any) -> None:
    """An async function would never be awaited."""

    async def scenario(world: World) -> None:
        async with Player(JOB, activities={"work": break_down}) as player:
            for listen in (world.supervisor.listen, player.listen):
                with pytest.raises(ConfigError, match="listener: expected a function"):
                    listen(listener)

    run_scenario(scenario, service("a"))
    with pytest.raises(ConfigError, match="on_step: expected a function or None"):
        Player(JOB, activities={"work": break_down}, on_step=listener or cast("Any", 3))


@pytest.mark.parametrize(
    "policy",
    [lambda t, r: "b", lambda t, r: None, lambda t, r: 3, lambda t, r: 1 / 0, lambda t: set()],
    ids=["text", "None", "number", "raises", "parameters"],
)  # fmt: skip
def test_policy_with_a_wrong_result_counts_as_one_at_a_time(
    policy: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are served, by the policy that is safe for memory; the log says it once."""

    async def scenario(world: World) -> None:
        for name in ("a", "b", "a"):
            with anyio.fail_after(100):
                await world.supervisor.load(name)

        assert (world["a"].state, world["b"].state) == ("ready", "stopped")

    with caplog.at_level(logging.ERROR):
        run_scenario(scenario, service("a"), service("b"), policy=policy)

    assert caplog.text.count("it counts as one_at_a_time") == 1


@pytest.mark.parametrize("kind", [set, list, tuple, frozenset])
def test_policy_with_a_collection_of_names_is_taken_as_meant(kind: Callable[..., Any]) -> None:
    """A list is no set, but says as much."""

    async def scenario(world: World) -> None:
        for name in ("a", "b", "c"):
            await world.supervisor.load(name)

        assert [world[name].state for name in "abc"] == ["stopped", "ready", "ready"]

    specs = [service(name) for name in "abc"]
    run_scenario(
        scenario, *specs, policy=lambda target, running: kind("a" if target == "c" else "")
    )


def test_hook_function_that_is_not_async_fails_with_a_clear_text() -> None:
    """Not with a `TypeError` of the interpreter."""
    hook = Hook(action=CallAction(function=lambda context: None), on_error="fail")  # type: ignore[arg-type, return-value]

    async def scenario(world: World) -> None:
        with pytest.raises(Exception, match=r"expected an async function, call .* returned None"):
            await world.supervisor.load("a")

    run_scenario(scenario, service("a", hooks={"beforeStart": (hook,)}))


def test_supervisor_with_an_async_policy_is_refused() -> None:
    """Its result would be a coroutine."""

    async def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        return frozenset()

    async def main() -> None:
        with pytest.raises(ConfigError, match="policy: expected a function that is not async"):
            Supervisor(ScriptedLauncher(), policy=policy)  # type: ignore[arg-type]

    run_virtual(main)


# ---- streams
def test_events_begin_with_the_call() -> None:
    """Records from before the first read are part of the stream of a supervisor and a player."""

    async def scenario(world: World) -> None:
        transitions = world.supervisor.events()
        await world.supervisor.load("a")
        assert (await anext(transitions)).source == "stopped"
        async with Player(JOB, activities={"work": break_down}) as player:
            steps = player.events()
            player.post("go")
            await player.wait_for("broken")
            assert [(await anext(steps)).event for _ in range(2)] == ["go", "broke"]
        assert [step.event async for step in steps] == []

    run_scenario(scenario, service("a"))


def test_stream_that_is_dropped_or_closed_gets_no_more_records() -> None:
    """An unread stream does not hold records for good."""
    listeners: Listeners[Any] = Listeners()

    async def main() -> None:
        dropped, closed = listeners.events(10), listeners.events(10)
        assert len(listeners._listeners) == 2
        del dropped
        gc.collect()
        await closed.aclose()
        assert listeners._listeners == []
        assert [record async for record in closed] == []

    run_virtual(main)


WRONG_TYPE = pytest.mark.skipif(IS_COMPILED, reason="compiled modules check types by themselves")


@pytest.mark.parametrize(
    "limit", [0, -1, *(pytest.param(limit, marks=WRONG_TYPE) for limit in (None, "3", 1.5))]
)
def test_stream_with_a_wrong_limit_is_refused(limit: Any) -> None:
    """At the call, not at the first record."""

    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError, match="limit: expected >= 1, a whole number"):
            world.supervisor.events(limit=limit)

    run_scenario(scenario, service("a"))
