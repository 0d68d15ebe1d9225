"""Hook limiter: hook commands that run at once over all services, and their queue."""

from __future__ import annotations

import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Command, ConfigError, Exit, LogSink, Supervisor, Timings
from swapchart.runtime.testing import CommandScript, ScriptedLauncher, service

HANGS = CommandScript(takes_s=None)


def at_once(launcher: ScriptedLauncher) -> int:
    """Return the maximum number of hooks that ran at once."""
    steps = {"run": 1, "ran": -1, "killed": -1}
    running, most = 0, 0
    for record in launcher.records:
        running += steps.get(record.what, 0)
        most = max(most, running)
    return most


@row("B16")
def test_hook_limiter_thousand_services_stop_with_eight_hooks_at_a_time() -> None:
    """1,000 beforeStop hooks of 0.1 s take 12.5 s, and all run."""
    names = [f"s{number}" for number in range(1000)]
    hooks = {"beforeStop": (hook("save", timeout_s=1.0),)}

    async def scenario(world: World) -> None:
        for name in names:
            world[name].start()
        for name in names:
            await world.until(name, "ready")
        await world.supervisor.unload_all()
        assert world.now == pytest.approx(12.5, abs=0.1)

    launcher = run_scenario(
        scenario, *(service(name, hooks=hooks) for name in names),
        commands={"save": CommandScript(takes_s=0.1)}, policy=lambda target, running: frozenset(),
    )  # fmt: skip

    assert at_once(launcher) == 8
    assert launcher.count("ran") == 1000


@row("B16")
def test_hook_limiter_shutdown_of_a_thousand_services_is_bounded() -> None:
    """Hooks that hang do not delay the end; queued ones are reported as never started."""
    names = [f"s{number}" for number in range(1000)]
    hooks = {"afterStop": (hook("clean", timeout_s=1000.0),)}
    details: list[str] = []

    async def scenario(world: World) -> None:
        for name in names:
            world[name].start()
        for name in names:
            await world.until(name, "ready")
        await world.supervisor.shutdown(20.0)
        assert world.now == pytest.approx(21.0)
        details.extend(r.detail for step in world.trace for r in step.hooks)

    launcher = run_scenario(
        scenario, *(service(name, hooks=hooks) for name in names),
        commands={"clean": HANGS}, policy=lambda target, running: frozenset(),
    )  # fmt: skip

    assert at_once(launcher) <= 8 + 20 // 10
    assert sum(detail.startswith("never started") for detail in details) == 1000 - launcher.count(
        "run"
    )


@pytest.mark.parametrize("limit", [1, 2, 8])
@row("B16")
def test_hook_that_waits_for_another_models_hook_cannot_wedge(limit: int) -> None:
    """Each slot is held by a hook that requests a model whose own hook needs a slot."""
    callers = [f"caller{number}" for number in range(limit)]
    worlds: list[World] = []

    async def ask(command: Command) -> Exit:
        """Request another service, as `curl` to our own API does."""
        await worlds[0].supervisor.load(command.label.replace("caller", "other"))
        return Exit(code=0)

    async def scenario(world: World) -> None:
        worlds.append(world)
        plain = world.launcher.run

        async def run(command: Command, log: LogSink) -> Exit:
            ended = await plain(command, log)
            return await ask(command) if command.argv == ("ask",) else ended

        world.launcher.run = run  # type: ignore[method-assign]
        for name in callers:
            world[name].start()
        for name in callers:
            await world.until(name, "ready")
        results = [r for step in world.trace for r in step.hooks]
        assert {r.outcome for r in results} == {"ok"}
        assert world.now == pytest.approx(10.0)

    run_scenario(
        scenario,
        *(service(name, hooks={"afterHealthy": (hook("ask", timeout_s=300.0),)})
          for name in callers),
        *(service(name.replace("caller", "other"), hooks={"beforeStart": (hook("prepare"),)})
          for name in callers),
        policy=lambda target, running: frozenset(), hook_limit=limit,
    )  # fmt: skip


def test_hook_timeout_begins_when_it_starts() -> None:
    """A hook that waits for a slot longer than its timeout still gets all of it."""
    hooks = {"afterHealthy": (hook("warm", timeout_s=3.0),)}

    async def scenario(world: World) -> None:
        for name in ("a", "b", "c"):
            world[name].start()
        await world.until("c", "ready")
        assert world.now == pytest.approx(6.0)
        assert {r.outcome for step in world.trace for r in step.hooks} == {"ok"}

    run_scenario(
        scenario, *(service(name, hooks=hooks) for name in ("a", "b", "c")),
        commands={"warm": CommandScript(takes_s=2.0)}, policy=lambda target, running: frozenset(),
        hook_limit=1,
    )  # fmt: skip


def test_settle_timeout_begins_with_its_first_probe() -> None:
    """The wait for a slot does not count toward the settle limit."""
    settle = hook("look")
    timings = Timings(settle=1.0)

    async def scenario(world: World) -> None:
        for name in ("a", "b"):
            await world.supervisor.load(name)
        world["a"].stop_nowait()
        await world.until("a", "before_stop")
        await world.supervisor.unload("b")
        assert world.now == pytest.approx(5.0)
        assert world.launcher.programs("b") == ["look"]
        assert b"not free after" not in world["b"].log.history()

    run_scenario(
        scenario, service("a", hooks={"beforeStop": (hook("save"),)}),
        service("b", settle=settle, timings=timings),
        commands={"save": CommandScript(takes_s=5.0)}, policy=lambda target, running: frozenset(),
        hook_limit=1,
    )  # fmt: skip


def test_hook_limit_of_none_lets_all_hooks_run_at_once() -> None:
    """Without a limit no hook waits for a slot."""
    names = [f"s{number}" for number in range(50)]
    hooks = {"beforeStart": (hook("fetch", timeout_s=5.0),)}

    async def scenario(world: World) -> None:
        for name in names:
            world[name].start()
        for name in names:
            await world.until(name, "ready", limit_s=5.0)

    launcher = run_scenario(
        scenario, *(service(name, hooks=hooks) for name in names),
        commands={"fetch": CommandScript(takes_s=3.0)}, policy=lambda target, running: frozenset(),
        hook_limit=None,
    )  # fmt: skip

    assert at_once(launcher) == 50


def test_hook_limit_of_zero_is_refused() -> None:
    """The error says what was expected."""
    with pytest.raises(ConfigError, match=r"hook_limit: expected >= 1, .* or None, got 0"):
        Supervisor(ScriptedLauncher(), hook_limit=0)


def test_hook_cancelled_in_the_queue_says_that_it_never_started() -> None:
    """Its detail differs from that of a hook that was cut short while it ran."""
    hooks = {"afterHealthy": (hook("warm", timeout_s=60.0),)}
    details: dict[str, list[str]] = {"a": [], "b": []}

    async def scenario(world: World) -> None:
        for name in details:
            world[name].start()
            await world.until(name, "after_healthy")
            await world.moment()
        for name in ("b", "a"):
            world[name].stop_nowait()
            await world.until(name, "stopped")
        for step in world.trace:
            details[step.service] += [result.detail for result in step.hooks]

    run_scenario(
        scenario, *(service(name, hooks=hooks) for name in details), commands={"warm": HANGS},
        policy=lambda target, running: frozenset(), hook_limit=1,
    )  # fmt: skip

    assert details == {
        "a": ["the phase it belonged to ended"],
        "b": ["the phase it belonged to ended while it waited for a free hook slot"],
    }


@pytest.mark.parametrize("seed", range(20))
def test_hook_cancelled_in_the_queue_frees_its_slot(seed: int) -> None:
    """A stop of a queued or just admitted hook leaves no slot occupied."""
    hooks = {"afterHealthy": (hook("warm", timeout_s=60.0),)}
    names = ("a", "b", "c", "d")

    async def scenario(world: World) -> None:
        for name in names:
            world[name].start()
        await world.until("d", "after_healthy")
        await world.at(1.0)
        world["b"].stop_nowait()  # queued
        await world.at(2.0)  # a ends now, and c is admitted
        world["c"].stop_nowait()
        await world.until("a", "ready")
        await world.until("d", "ready")
        assert world.now <= 6.0
        assert world.supervisor.hook_limiter.running == 0

    run_scenario(
        scenario, *(service(name, hooks=hooks) for name in names),
        commands={"warm": CommandScript(takes_s=2.0)}, policy=lambda target, running: frozenset(),
        hook_limit=1, seed=seed,
    )  # fmt: skip


def test_hook_limit_can_change_while_hooks_wait() -> None:
    """A higher limit admits more at once; a lower one applies to later hooks."""
    hooks = {"afterHealthy": (hook("warm", timeout_s=60.0),)}
    names = ("a", "b", "c", "d")

    async def scenario(world: World) -> None:
        for name in names:
            world[name].start()
        await world.at(0.5)
        assert world.launcher.count("run") == 1
        world.supervisor.hook_limiter.limit = 3
        await world.moment()
        assert world.launcher.count("run") == 3
        world.supervisor.hook_limiter.limit = 1
        await world.at(2.1)
        assert world.launcher.count("run") == 3
        await world.until("d", "ready")
        assert world.now == pytest.approx(4.5)

    run_scenario(
        scenario, *(service(name, hooks=hooks) for name in names),
        commands={"warm": CommandScript(takes_s=2.0)}, policy=lambda target, running: frozenset(),
        hook_limit=1,
    )  # fmt: skip


def test_hook_that_ignores_its_deadline_frees_its_slot() -> None:
    """A watcher in afterReady does not block the hooks of other services forever."""
    watcher = {"afterReady": (hook("watch", timeout_s=100_000.0),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("watched")
        await world.at(61.0)
        assert world.supervisor.hook_limiter.running == 0
        for _ in range(3):
            await world.supervisor.load("other")
            await world.supervisor.unload("other")
        assert world.now == pytest.approx(61.0)
        await world.supervisor.unload("watched")
        assert world.supervisor.hook_limiter.running == 0

    run_scenario(
        scenario, service("watched", hooks=watcher),
        service("other", hooks={"beforeStart": (hook("quick"),)}),
        commands={"watch": HANGS}, policy=lambda target, running: frozenset(), hook_limit=1,
    )  # fmt: skip
