"""Hooks: when they run, when they do not, and the effects of their failures."""

from __future__ import annotations

import anyio
import pytest
from tools.rows import row
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import (
    CallAction,
    Command,
    EngineError,
    Exit,
    Hook,
    HookContext,
    HookResult,
    HttpAction,
    HttpCall,
    RunAction,
    Supervisor,
    Timings,
)
from swapchart.runtime.testing import (
    CommandScript,
    HttpAnswer,
    ScriptedLauncher,
    ServerScript,
    run_virtual,
    service,
)

POINTS = ("beforeStart", "afterStart", "afterHealthy", "beforeStop", "afterStop")
EVERY = {point: (hook(point),) for point in POINTS}
HANGS = CommandScript(takes_s=None)
FAILS = CommandScript(exit=Exit(code=1))


@row("B11")
def test_hooks_of_one_instance_run_in_order_and_once() -> None:
    """Without failures each point runs once, beforeStop before the signal, afterStop last."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        await world.moment()
        client.finish()
        await world.supervisor.unload("a")

    launcher = run_scenario(
        scenario, service("a", hooks=EVERY | {"afterReady": (hook("afterReady"),)})
    )

    assert [record.what + record.detail for record in launcher.records] == [
        "runbeforeStart", "ranbeforeStart", "spawn", "spawned", "runafterStart", "ranafterStart",
        "runafterHealthy", "ranafterHealthy", "runafterReady", "ranafterReady",
        "runbeforeStop", "ranbeforeStop", "terminate", "exitkilled by signal 15",
        "sweep", "swept0", "runafterStop", "ranafterStop",
    ]  # fmt: skip


def test_several_actions_of_one_point_run_one_after_the_other() -> None:
    """They run in the order of the configuration, never concurrently."""
    hooks = {"beforeStart": (hook("one"), hook("two"), hook("three"))}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")

    takes = CommandScript(takes_s=2.0)
    launcher = run_scenario(
        scenario, service("a", hooks=hooks), commands={"one": takes, "two": takes, "three": takes}
    )

    assert [(r.what, r.detail) for r in launcher.records[:6]] == [
        ("run", "one"), ("ran", "one"), ("run", "two"), ("ran", "two"),
        ("run", "three"), ("ran", "three"),
    ]  # fmt: skip


def test_requests_wait_for_after_healthy_but_not_for_after_ready() -> None:
    """Hooks before ready delay the request; hooks after it do not."""
    hooks = {"afterHealthy": (hook("warm"),), "afterReady": (hook("tell"),)}

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=100.0)
        await world.until("a", "ready")
        await world.moment()

        assert client.served_at == pytest.approx(client.requested_at + 7.0)

    run_scenario(
        scenario, service("a", hooks=hooks),
        commands={"warm": CommandScript(takes_s=7.0), "tell": CommandScript(takes_s=20.0)},
    )  # fmt: skip


def test_hook_environment_has_service_address_and_cause() -> None:
    """A hook gets the variables of the service and those that describe the event."""
    command = Command(argv=("a",), env={"SLOTS": "4"}, label="a", cwd="/models")

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a", "made room")

    launcher = run_scenario(scenario, service("a", command=command, hooks=EVERY))
    [start] = launcher.environments("beforeStart")
    [healthy] = launcher.environments("afterHealthy")
    [stop] = launcher.environments("beforeStop")
    [after] = launcher.environments("afterStop")

    assert start["SLOTS"] == "4"
    assert start["SWAPCHART_PID"] == ""
    assert start["SWAPCHART_HOOK"] == "beforeStart"
    assert healthy["SWAPCHART_PID"] == stop["SWAPCHART_PID"] != ""
    assert healthy["SWAPCHART_PORT"] == "5800"
    assert stop["SWAPCHART_REASON"] == after["SWAPCHART_REASON"] == "made room"
    assert stop["SWAPCHART_EXIT"] == ""
    assert after["SWAPCHART_EXIT"] == "killed by signal 15"
    assert after["SWAPCHART_PID"] == ""
    assert stop["SWAPCHART_AFTER_HEALTHY"] == "completed"
    assert {run.command.cwd for run in launcher.find("run") if run.command} == {"/models"}


def test_hook_pid_in_any_text_becomes_the_process_id() -> None:
    """``${PID}`` in arguments, URL, headers and body becomes the process id."""
    hooks = {
        "afterHealthy": (
            Hook(action=RunAction(argv=("gdb", "--pid=${PID}"))),
            Hook(
                action=HttpAction(
                    call=HttpCall(
                        method="POST", url="http://h/${PID}", headers={"x-pid": "is ${PID}"},
                        body=b'{"pid": ${PID}}',
                    )
                )
            ),
        )
    }  # fmt: skip
    seen: list[HttpCall] = []

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        seen.append(world.http.calls[0])

    launcher = run_scenario(scenario, service("a", hooks=hooks))
    [run], [spawned] = launcher.find("run"), launcher.find("spawned")

    assert run.command is not None
    assert run.command.argv == ("gdb", f"--pid={spawned.pid}")
    assert seen == [
        HttpCall(
            method="POST", url=f"http://h/{spawned.pid}",
            headers={"x-pid": f"is {spawned.pid}"}, body=b'{"pid": %d}' % spawned.pid,
        )
    ]  # fmt: skip


# ---- stopping while hooks run
@pytest.mark.parametrize("point", ["beforeStart", "afterStart", "afterHealthy"])
@row("B10")
def test_stop_kills_the_hook_that_runs_at_once(point: str) -> None:
    """A stop kills a hanging hook of a start at once, and the start never becomes ready."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", {"beforeStart": "before_start", "afterStart": "after_start",
                                "afterHealthy": "after_healthy"}[point])  # fmt: skip
        await world.at(5.0)
        await world.supervisor.unload("a")

        assert world.now == pytest.approx(5.0)
        assert "ready" not in world.states("a")
        await world.moment()
        assert client.outcome == "stopped"

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={point: HANGS})

    assert [record.detail for record in launcher.find("killed")] == [point]
    later = launcher.programs("a")[launcher.programs("a").index(point) + 1 :]
    assert later == (["beforeStop"] if point == "afterHealthy" else []) + ["afterStop"]


def test_stop_during_after_healthy_is_paired_with_one_before_stop() -> None:
    """An afterHealthy that began is follrecovery by one beforeStop, which gets its outcome."""

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "after_healthy")
        await world.at(5.0)
        await world.supervisor.unload("a")

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={"afterHealthy": HANGS})
    [stop] = launcher.environments("beforeStop")

    assert stop["SWAPCHART_AFTER_HEALTHY"] == "interrupted"


def test_hook_that_takes_long_to_die_delays_what_comes_after_it() -> None:
    """No hook runs and no process is spawned until a killed hook has ended."""
    slow_to_die = CommandScript(takes_s=None, kill_s=3.0)

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "before_start")
        await world.at(1.0)
        await world.supervisor.unload("a")
        assert world.now == pytest.approx(4.0)

    launcher = run_scenario(
        scenario, service("a", hooks={"beforeStart": (hook("fetch"),)}),
        commands={"fetch": slow_to_die},
    )  # fmt: skip

    assert launcher.count("killed") == 1


def test_hooks_that_follow_two_cancelled_ones_wait_for_both() -> None:
    """A hook whose predecessor was cancelled before its start waits for the one before."""
    commands = {
        "afterHealthy": CommandScript(takes_s=None, kill_s=3.0),
        "beforeStop": CommandScript(takes_s=5.0),
    }

    async def scenario(world: World) -> None:
        world.client("a")
        await world.until("a", "after_healthy")
        await world.at(1.0)
        world["a"].stop_nowait()  # beforeStop waits for the end of afterHealthy
        await world.at(2.0)
        world["a"].post("kill")  # and is cancelled before its start
        await world.until("a", "stopped")

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands=commands)

    assert "beforeStop" not in launcher.programs("a")
    [killed], [after] = launcher.find("killed"), [
        r for r in launcher.find("run") if r.detail == "afterStop"
    ]  # fmt: skip
    assert after.at >= killed.at


def test_process_that_dies_during_after_healthy_kills_the_hook() -> None:
    """The exit ends the hook, and no beforeStop runs without a process."""

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "after_healthy")
        await world.at(5.0)
        world.launcher.crash("a")
        await world.moment()

        assert client.outcome == "exited"
        assert client.error is not None
        assert "killed by signal 11" in str(client.error)

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={"afterHealthy": HANGS})

    assert [record.detail for record in launcher.find("killed")] == ["afterHealthy"]
    assert launcher.programs("a") == ["beforeStart", "afterStart", "afterHealthy", "afterStop"]


def test_process_that_dies_during_before_stop_ends_the_stop() -> None:
    """The hook is killed, and no signal is sent."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.at(1.0)
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "before_stop")
        await world.at(5.0)
        world.launcher.crash("a")
        await world.moment()

        assert world["a"].state == "stopped"
        assert world["a"].failures == 0

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={"beforeStop": HANGS})

    assert launcher.count("terminate") == 0
    assert launcher.programs("a")[-2:] == ["beforeStop", "afterStop"]


def test_second_stop_does_not_run_before_stop_again() -> None:
    """A second stop changes nothing; both callers return at the end."""
    returned_at: list[float] = []

    async def stop(world: World) -> None:
        await world.supervisor.unload("a")
        returned_at.append(world.now)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        for at in (1.0, 2.0, 3.0):
            await world.at(at)
            world.spawn(stop, world)
        await world.until("a", "stopped")
        await world.moment()

    launcher = run_scenario(
        scenario, service("a", hooks=EVERY), commands={"beforeStop": CommandScript(takes_s=9.0)}
    )

    assert launcher.programs("a").count("beforeStop") == 1
    assert returned_at == pytest.approx([10.0, 10.0, 10.0])


def test_grace_period_begins_after_before_stop() -> None:
    """A slow hook does not shorten the grace period of the process."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")

    launcher = run_scenario(
        scenario, service("a", hooks=EVERY, timings=Timings(grace=10.0)),
        servers={"a": ServerScript(terminate_s=None)},
        commands={"beforeStop": CommandScript(takes_s=25.0)},
    )  # fmt: skip
    [terminate], [kill] = launcher.find("terminate"), launcher.find("kill")
    [hooked] = [r for r in launcher.find("ran") if r.detail == "beforeStop"]

    assert terminate.at == hooked.at
    assert kill.at == terminate.at + 10.0


@pytest.mark.parametrize("script", [HANGS, FAILS, CommandScript(error=EngineError("no memory"))])
@pytest.mark.parametrize("on_error", ["warn", "ignore", "fail"])
@row("B04")
def test_before_stop_that_hangs_or_fails_does_not_prevent_the_signal(
    script: CommandScript, on_error: str
) -> None:
    """The stop continues after any outcome, and its length is bounded."""
    bad = hook("beforeStop", timeout_s=30.0, on_error=on_error)

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")

        assert world.now <= 30.0

    launcher = run_scenario(
        scenario, service("a", hooks={"beforeStop": (bad,)}), commands={"beforeStop": script}
    )

    assert launcher.count("terminate") == 1


@row("B05")
def test_after_stop_runs_once_for_each_process_with_its_exit_status() -> None:
    """A crash runs onFailure and afterStop once each after the sweep, and no beforeStop."""
    hooks = EVERY | {"onFailure": (hook("onFailure"),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.crash("a")
        await world.until("a", "backoff")

    launcher = run_scenario(
        scenario, service("a", hooks=hooks), servers={"a": ServerScript(leaves=2)}
    )
    [after] = launcher.environments("afterStop")
    order = [r.what + r.detail for r in launcher.records][-6:]

    assert launcher.programs("a")[-2:] == ["onFailure", "afterStop"]
    assert "beforeStop" not in launcher.programs("a")
    assert order == ["sweep", "swept2", "runonFailure", "ranonFailure", "runafterStop",
                     "ranafterStop"]  # fmt: skip
    assert after["SWAPCHART_EXIT"] == "killed by signal 11"


@pytest.mark.parametrize("script", [FAILS, HANGS, CommandScript(error=EngineError("no memory"))])
@row("B02")
def test_required_before_start_that_fails_launches_no_process(script: CommandScript) -> None:
    """The start ends: no process, requests get the name of the hook, afterStop runs."""
    hooks = EVERY | {"beforeStart": (hook("beforeStart", on_error="fail", timeout_s=3.0),)}

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "hook_failed"
        assert client.error is not None
        assert "beforeStart" in str(client.error)
        assert client.error.status_hint == 502

    launcher = run_scenario(scenario, service("a", hooks=hooks), commands={"beforeStart": script})

    assert launcher.count("spawn") == 0
    assert launcher.programs("a") == ["beforeStart", "afterStop"]


@pytest.mark.parametrize("point", ["afterStart", "afterHealthy"])
@row("B03")
def test_required_hook_that_fails_undoes_the_start(point: str) -> None:
    """A failed hook after the launch stops the process; no request is admitted."""
    hooks = EVERY | {point: (hook(point, on_error="fail"),)}

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "hook_failed"
        assert "ready" not in world.states("a")

    launcher = run_scenario(scenario, service("a", hooks=hooks), commands={point: FAILS})

    assert launcher.count("terminate") == 1
    assert ("beforeStop" in launcher.programs("a")) == (point == "afterHealthy")


@pytest.mark.parametrize("on_error", ["warn", "ignore"])
def test_optional_hook_that_fails_does_not_stop_the_start(on_error: str) -> None:
    """With warn or ignore the start goes on; only warn writes to the log."""
    hooks = {"afterHealthy": (hook("warm", on_error=on_error), hook("next"))}
    shown: list[bytes] = []

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        shown.append(world["a"].log.history())
        assert world["a"].after_healthy == "failed"

    launcher = run_scenario(scenario, service("a", hooks=hooks), commands={"warm": FAILS})

    assert launcher.programs("a") == ["warm", "next"]
    assert (b"afterHealthy hook failed: run warm: exit code 1" in shown[0]) == (on_error == "warn")


@pytest.mark.parametrize(
    ("output", "shown", "logged"),
    [
        (b"", "", b""),
        (b"no luck", "no luck", b"no luck\n"),
        (b"one\ntwo\n", "one\ntwo", b"one\ntwo\n"),
        (b"x" * 9000 + b"end", "x" * 1997 + "end", b"x" * 9000 + b"end\n"),
    ],
    ids=["nothing", "partial line", "lines", "long"],
)
@pytest.mark.parametrize("code", [0, 1])
def test_hook_output_is_part_of_its_result_and_ends_its_line(
    output: bytes, shown: str, logged: bytes, code: int
) -> None:
    """The end of the output is in the transition; the next line in the log begins a line."""
    script = CommandScript(exit=Exit(code=code), output=output)
    found: list[HookResult] = []

    async def scenario(world: World) -> None:
        world.supervisor.listen(lambda record: found.extend(record.hooks))
        await world.supervisor.load("a")
        log = world["a"].log.history()
        assert log.startswith(logged + (b"[swapchart]" if code else b""))

    hooks = {"afterHealthy": (hook("warm"),)}
    run_scenario(scenario, service("a", hooks=hooks), commands={"warm": script})

    assert [result.output for result in found] == [shown]


def test_failed_hook_is_tried_again_after_its_pause() -> None:
    """Retries come after their pause, and the last outcome counts."""
    hooks = {"afterHealthy": (hook("warm", retries=2, delay_s=3.0, on_error="fail"),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        [result] = next(r.hooks for r in world.trace if r.source == "after_healthy")

        assert result.outcome == "ok"
        assert result.attempts == 3
        assert result.seconds == pytest.approx(6.0)

    launcher = run_scenario(
        scenario, service("a", hooks=hooks), commands={"warm": [FAILS, FAILS, CommandScript()]}
    )
    times = [record.at for record in launcher.find("run")]

    assert times == pytest.approx([times[0], times[0] + 3.0, times[0] + 6.0])


@row("B01")
def test_hook_that_hangs_is_killed_at_its_timeout() -> None:
    """The hook has its own timeout, which does not count toward the start limit."""
    hooks = {"afterHealthy": (hook("warm", timeout_s=30.0),)}
    spec = service("a", hooks=hooks, timings=Timings(start_limit=10.0))

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=1.0)
        await world.until("a", "ready")
        [result] = next(r.hooks for r in world.trace if r.source == "after_healthy")

        assert 38.9 <= world.now <= 39.4
        assert result.outcome == "timeout"
        await world.moment()
        assert client.outcome == "served"

    launcher = run_scenario(scenario, spec, servers={"a": ServerScript(healthy_s=8.9)},
                    commands={"warm": HANGS})  # fmt: skip

    assert launcher.count("killed") == 1


@pytest.mark.parametrize("leaver", ["one", "all"])
def test_client_that_leaves_during_after_healthy_does_not_end_it(leaver: str) -> None:
    """The start goes on without clients, and the idle limit counts from ready."""
    spec = service("a", hooks=EVERY, timings=Timings(idle_limit=50.0))

    async def scenario(world: World) -> None:
        clients = [world.client("a", hold_s=0.0) for _ in range(3)]
        await world.until("a", "after_healthy")
        await world.at(5.0)
        for client in clients[: 1 if leaver == "one" else 3]:
            client.leave()
        await world.until("a", "ready")
        assert world.now == pytest.approx(20.0)
        await world.until("a", "stopped")
        assert world.now == pytest.approx(70.0)

    launcher = run_scenario(scenario, spec, commands={"afterHealthy": CommandScript(takes_s=20.0)})

    assert launcher.programs("a") == list(POINTS)


# ---- the stop command
def test_stop_command_replaces_the_signal_and_comes_after_before_stop() -> None:
    """The order is beforeStop, then cmdStop, and no SIGTERM if it succeeds."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        assert world["a"].state == "stopped"

    launcher = run_scenario(
        scenario, service("a", hooks=EVERY, stop_argv=("ctl", "stop", "${PID}")),
        servers={"a": ServerScript(terminate_s=2.0)},
        commands={"ctl": CommandScript(signals="a")},
    )  # fmt: skip
    [ctl] = [record.command for record in launcher.find("run") if record.detail == "ctl"]
    [spawned] = launcher.find("spawned")

    assert ctl is not None
    assert ctl.argv == ("ctl", "stop", str(spawned.pid))
    assert launcher.programs("a") == [*POINTS[:4], "ctl", "afterStop"]
    assert launcher.count("terminate") == 1  # by the command itself
    assert launcher.count("kill") == 0


@pytest.mark.parametrize("script", [FAILS, CommandScript(error=EngineError("no memory"))])
def test_stop_command_that_fails_is_replaced_by_the_signal(script: CommandScript) -> None:
    """A failed cmdStop is logged, and SIGTERM is sent."""
    shown: list[bytes] = []

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        shown.append(world["a"].log.history())

    launcher = run_scenario(scenario, service("a", stop_argv=("ctl",)), commands={"ctl": script})

    assert launcher.count("terminate") == 1
    assert launcher.count("kill") == 0
    assert b"cmdStop failed" in shown[0]


@pytest.mark.parametrize(
    ("stop", "script", "ends", "said"),
    [
        (("ctl",), CommandScript(), "terminate", b""),
        (("ctl",), FAILS, "terminate", b"cmdStop failed (exit code 1): the server may still run"),
        ((), CommandScript(), "kill", b""),
    ],
)
def test_stop_of_an_external_server_waits_for_its_end_after_a_stop_command(
    stop: tuple[str, ...], script: CommandScript, ends: str, said: bytes
) -> None:
    """Its launcher signals nothing: terminate waits until the server is gone, kill does not."""
    shown: list[bytes] = []

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        assert world["a"].state == "stopped"
        shown.append(world["a"].log.history())

    command = Command(argv=("a",), label="a", is_external=True)
    launcher = run_scenario(
        scenario, service("a", command=command, stop_argv=stop), commands={"ctl": script}
    )

    assert launcher.programs("a") == [*stop]
    assert [r.what for r in launcher.records if r.what in ("terminate", "kill")] == [ends]
    assert said in shown[0]
    assert (b"cmdStop" in shown[0]) == bool(said)


def test_stop_command_that_hangs_does_not_save_the_process() -> None:
    """The grace period counts from cmdStop; at its end process and command are killed."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.unload("a")
        assert world.now == pytest.approx(10.0)

    launcher = run_scenario(scenario, service("a", stop_argv=("ctl",)), commands={"ctl": HANGS})

    assert launcher.count("kill") == 1
    assert [record.detail for record in launcher.find("killed")] == ["ctl"]


# ---- other kinds of actions
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpAnswer(status=204), "ok"),
        (HttpAnswer(status=500, body=b"no slot"), "failed"),
        (HttpAnswer(status=200), "ok"),
        (HttpAnswer(status=299), "ok"),
        (HttpAnswer(status=199), "failed"),
        (HttpAnswer(status=300), "failed"),
        (HttpAnswer(error=ConnectionRefusedError("refused")), "failed"),
        (HttpAnswer(takes_s=99.0), "timeout"),
    ],
)
@row("B15")
def test_http_hook_succeeds_with_2xx_only(answer: HttpAnswer, outcome: str) -> None:
    """Any other status, an error and a timeout are failures; the request is not repeated."""
    call = HttpCall(method="POST", url="http://127.0.0.1:5800/slots/0?action=restore")
    hooks = {"afterHealthy": (Hook(action=HttpAction(call=call), timeout_s=5.0),)}

    async def scenario(world: World) -> None:
        world.http.answers[call.url] = [answer]
        await world.supervisor.load("a")
        [result] = next(r.hooks for r in world.trace if r.source == "after_healthy")

        assert result.outcome == outcome
        assert result.action == "POST http://127.0.0.1:5800/slots/0"
        assert len(world.http.calls) == 1

    run_scenario(scenario, service("a", hooks=hooks))


def test_http_hook_may_expect_another_status() -> None:
    """Expected statuses replace 2xx."""
    call = HttpCall(method="GET", url="http://h/", expect=frozenset({404}))
    hooks = {"afterHealthy": (Hook(action=HttpAction(call=call)),)}

    async def scenario(world: World) -> None:
        world.http.answers[call.url] = [HttpAnswer(status=404), HttpAnswer(status=200)]
        for expected in ("ok", "failed"):
            await world.supervisor.load("a")
            [result] = [r.hooks for r in world.trace if r.source == "after_healthy"][-1]
            await world.supervisor.unload("a")
            assert result.outcome == expected

    run_scenario(scenario, service("a", hooks=hooks))


@pytest.mark.parametrize("error", [ValueError("mine"), TimeoutError("mine"), OSError("mine")])
@row("B18")
def test_function_hook_that_raises_has_failed(error: Exception) -> None:
    """An exception of a function is a failure with its name and text."""

    async def broken(_: HookContext) -> None:
        raise error

    hooks = {"afterHealthy": (Hook(action=CallAction(function=broken)),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        [result] = next(r.hooks for r in world.trace if r.source == "after_healthy")

        assert result.outcome == "failed"
        assert result.detail == f"{type(error).__name__}: mine"
        assert "broken" in result.action

    run_scenario(scenario, service("a", hooks=hooks))


@row("B18")
def test_function_hook_gets_the_context_and_is_cancelled_at_its_timeout() -> None:
    """The function gets the facts that a command finds in its environment."""
    seen: list[HookContext] = []

    async def slow(context: HookContext) -> None:
        seen.append(context)
        await anyio.sleep_forever()

    hooks = {"afterHealthy": (Hook(action=CallAction(function=slow), timeout_s=4.0),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        assert world.now == pytest.approx(4.0)

    run_scenario(scenario, service("a", hooks=hooks))

    assert seen[0].service == "a"
    assert seen[0].pid is not None
    assert seen[0].incarnation == 1


def test_http_hook_without_client_fails_with_a_clear_message() -> None:
    """The log of the service says that the supervisor has no HTTP client."""
    call = HttpCall(method="GET", url="http://h/")
    spec = service("a", hooks={"beforeStart": (Hook(action=HttpAction(call=call)),)})

    async def main() -> bytes:
        async with Supervisor(ScriptedLauncher(), [spec]) as supervisor:
            await supervisor.load("a")
            return supervisor["a"].log.history()

    assert b"need an HTTP client" in run_virtual(main)


# ---- exactly once
@row("B12")
def test_hook_ids_differ_for_each_start() -> None:
    """Hooks of one start share a number, which differs for each start, failed ones too."""
    hooks = EVERY | {"beforeStart": (hook("beforeStart", on_error="fail"),)}

    async def scenario(world: World) -> None:
        for _ in range(4):
            client = world.client("a", hold_s=0.0)
            await world.moment()
            await world["a"].stop()
            await world.moment()
            assert client.outcome != "waiting"

    launcher = run_scenario(
        scenario, service("a", hooks=hooks),
        commands={"beforeStart": [CommandScript(), FAILS, FAILS, CommandScript()]},
    )  # fmt: skip
    ids = [
        record.command.env["SWAPCHART_HOOK_ID"] for record in launcher.find("run") if record.command
    ]

    assert len(ids) == len(set(ids))
    assert ids[0] == "a:1:beforeStart"
    assert [i for i in ids if "afterStop" in i] == [f"a:{n}:afterStop" for n in (1, 2, 3, 4)]


def test_before_start_does_not_see_how_an_earlier_process_ended() -> None:
    """A new start has no exit and no hook outcomes of the last one."""

    async def scenario(world: World) -> None:
        for _ in range(2):
            await world.supervisor.load("a")
            await world.supervisor.unload("a")

    launcher = run_scenario(scenario, service("a", hooks=EVERY))
    _, second = launcher.environments("beforeStart")

    assert second["SWAPCHART_EXIT"] == ""
    assert second["SWAPCHART_AFTER_HEALTHY"] == "none"
    assert second["SWAPCHART_INCARNATION"] == "2"


# ---- kill and shutdown
@row("B13")
def test_kill_skips_before_stop_and_shortens_other_hooks() -> None:
    """After a kill no beforeStop runs, and afterStop has at most a second."""
    hooks = EVERY | {"afterStop": (hook("afterStop", retries=5),)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].post("kill")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(1.0)

    launcher = run_scenario(scenario, service("a", hooks=hooks), commands={"afterStop": HANGS})

    assert "beforeStop" not in launcher.programs("a")
    assert launcher.programs("a").count("afterStop") == 1


@row("B13")
def test_kill_shortens_an_after_stop_that_runs() -> None:
    """A kill during afterStop leaves it one more second, and it runs once."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.spawn(world.supervisor.unload, "a")
        await world.until("a", "after_stop")
        await world.at(5.0)
        world["a"].post("kill")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(6.0)

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={"afterStop": HANGS})

    assert launcher.programs("a").count("afterStop") == 1


@pytest.mark.parametrize("point", ["beforeStart", "beforeStop", "onFailure"])
def test_kill_ends_the_other_hooks_at_once(point: str) -> None:
    """A kill does not wait for a running hook of any other point."""
    hooks = {point: (hook(point, on_error="fail"),)}
    state = {"beforeStart": "before_start", "beforeStop": "before_stop", "onFailure": "on_failure"}

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        if point != "beforeStart":
            await world.until("a", "ready")
            await world.moment()
        if point == "beforeStop":
            world.spawn(world.supervisor.unload, "a")
        if point == "onFailure":
            world.launcher.crash("a")
        await world.until("a", state[point])
        await world.at(5.0)
        world["a"].post("kill")
        await world.until("a", "stopped")
        assert world.now == pytest.approx(5.0)

    launcher = run_scenario(scenario, service("a", hooks=hooks), commands={point: HANGS})

    assert launcher.count("killed") == 1


def test_hooks_fit_into_the_time_that_a_shutdown_has() -> None:
    """A beforeStop that would exceed the shutdown is killed, and the process still ends."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world.supervisor.shutdown(20.0)
        assert world.now == pytest.approx(20.0)

    launcher = run_scenario(
        scenario, service("a", hooks={"beforeStop": (hook("save", timeout_s=1000.0),)}),
        commands={"save": HANGS},
    )  # fmt: skip

    assert launcher.count("kill", "a") == 1
    assert launcher.count("killed", "a") == 1


# ---- pending from an earlier run
@row("B14")
def test_pending_hooks_of_an_earlier_run_run_before_the_start() -> None:
    """The afterStop hooks of that run are run once; requests for the service wait for them."""
    done: list[float] = []

    async def scenario(world: World) -> None:
        recovery = world.supervisor.hook_recovery
        recovery.run("a", 7, lambda: done.append(world.now))
        recovery.run("a", 7, lambda: done.append(world.now))  # twice in a journal: run once
        recovery.run("none", 1, lambda: done.append(world.now))
        recovery.run("gone", 1, lambda: done.append(world.now))
        clients = [world.client("a", hold_s=0.0), world.client("none", hold_s=0.0)]
        await world.moment()
        assert done == [0.0, 0.0, 0.0]
        assert [client.outcome for client in clients] == ["waiting", "finished"]
        (request,) = world.supervisor.scheduler.queue
        assert request.why == "a runs the afterStop hooks of a run that was killed"
        await world.at(6.0)
        assert clients[0].outcome == "finished"
        assert world.states("a")[-1] == "ready"

    launcher = run_scenario(
        scenario, service("a", hooks=EVERY), service("none"),
        commands={"afterStop": [CommandScript(takes_s=5.0, exit=Exit(code=1)), CommandScript()]},
        policy=lambda target, running: frozenset(),
    )  # fmt: skip

    assert done[3] == pytest.approx(5.0, abs=0.1)
    runs = [record.detail for record in launcher.find("run", "a")]
    assert runs[:2] == ["afterStop", "beforeStart"]
    first = launcher.find("run", "a")[0].command
    assert first is not None
    assert {name: first.env[f"SWAPCHART_{name}"] for name in ("REASON", "HOOK_ID", "PID")} == {
        "REASON": "orphan", "HOOK_ID": "a:7:afterStop", "PID": "",
    }  # fmt: skip


@row("B14")
def test_hook_cut_short_by_shutdown_stays_pending() -> None:
    """A shutdown kills the hook, and its end is not reported."""
    done: list[str] = []

    async def scenario(world: World) -> None:
        world.supervisor.hook_recovery.run("a", 1, lambda: done.append("a"))
        await world.at(1.0)

    launcher = run_scenario(scenario, service("a", hooks=EVERY), commands={"afterStop": HANGS})

    assert launcher.count("killed") == 1
    assert done == []


@row("B14")
def test_reload_starts_no_service_before_its_pending_hooks() -> None:
    """A reload meanwhile does not start the service."""

    async def scenario(world: World) -> None:
        world.supervisor.hook_recovery.run("a", 1, lambda: None)
        client = world.client("a", hold_s=0.0)
        await world.at(1.0)
        world.supervisor.update(service("a", hooks=EVERY, check_url="http://other/"))
        await world.at(2.0)
        assert client.outcome == "waiting"
        assert world["a"].state == "stopped"
        await world.at(9.0)
        assert client.outcome == "finished"

    run_scenario(
        scenario, service("a", hooks=EVERY),
        commands={"afterStop": [CommandScript(takes_s=5.0), CommandScript()]},
    )  # fmt: skip
