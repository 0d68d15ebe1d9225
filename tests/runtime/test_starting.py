"""Starts: from the first request to the first response, and everything that can end a start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tools.rows import row
from tools.virtual import World, run_scenario, suspend

from swapchart.runtime import Exit, RequestError, Timings
from swapchart.runtime.testing import ServerScript, service


@row("D01")
def test_thousand_requests_for_a_stopped_service_share_one_start() -> None:
    """One process is spawned, and all requests are admitted at the same time."""

    async def scenario(world: World) -> None:
        clients = [world.client("a", hold_s=1.0) for _ in range(1000)]
        await world.until("a", "ready")
        await world.moment()

        assert {client.served_at for client in clients} == {clients[0].served_at}
        await world.at(60.0)
        assert world.outcomes() == {"finished": 1000}

    launcher = run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=20.0)})

    assert launcher.count("spawn", "a") == 1


def test_request_whose_start_fails_gets_the_last_output() -> None:
    """The error has the exit code and the last lines of the process."""
    script = ServerScript(
        healthy_s=None,
        exit_s=3.0,
        exit=Exit(code=1),
        output=((1.0, b"loading\n"), (2.0, b"no such file\n")),
    )

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "backoff")
        await world.moment()

        assert client.outcome == "exited"
        assert client.error is not None
        assert "exit code 1" in str(client.error)
        assert client.error.log_tail == ("loading", "no such file")

    run_scenario(scenario, service("a"), servers={"a": script})


def test_error_of_a_failed_start_has_the_output_of_that_start_only() -> None:
    """Lines of an earlier run, such as errors that were repaired since, are not among them."""
    script = ServerScript(
        healthy_s=None, exit_s=1.0, exit=Exit(code=1), output=((0.5, b"no such file\n"),)
    )

    async def scenario(world: World) -> None:
        for _ in range(2):
            client = world.client("a")
            await world.until("a", "backoff")
            await world.moment()

            assert client.error is not None
            assert client.error.log_tail == ("no such file",)
            assert str(client.error).endswith(
                "its process ended by itself after 1.0 s: exit code 1"
            )
            await world.until("a", "stopped")

    run_scenario(scenario, service("a"), servers={"a": script})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ""),
        (("loading", "  "), "loading"),
        (("E: failed to load model", "cleaning up", ""), "E: failed to load model"),
        (("error: a", "Error: b", "bye"), "Error: b"),
    ],
)
def test_reason_line_prefers_the_last_error(lines: tuple[str, ...], expected: str) -> None:
    """The last line that reports an error says most; without one, the last line."""
    assert RequestError("exited", "x", log_tail=lines).reason_line() == expected


# ---- noticing that it is ready
@pytest.mark.parametrize("ready_s", [0.003, 1.0, 30.0, 600.0])
@pytest.mark.parametrize("before_s", [0.0, 0.001, 0.02])
def test_output_of_a_starting_server_triggers_a_probe(ready_s: float, before_s: float) -> None:
    """A server that prints when it becomes ready, or a little before, is detected at once."""
    script = ServerScript(healthy_s=ready_s + before_s, output=((ready_s, b"listening\n"),))

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.served_at is not None
        late_s = client.served_at - client.requested_at - ready_s - before_s
        assert late_s <= max(before_s / 2, 0.002)

    run_scenario(scenario, service("a", timings=Timings(start_limit=None)), servers={"a": script})


@pytest.mark.parametrize("ready_s", [0.0, 0.02, 0.5, 3.0, 10.0, 60.0])
def test_silent_server_is_ready_at_most_a_small_share_late(ready_s: float) -> None:
    """The delay is at most 10 ms and 0.1 %: 20 ms after ten seconds."""

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        await world.moment()
        assert client.served_at is not None
        late_s = client.served_at - client.requested_at - ready_s
        limit_s = max(min(0.1 * ready_s, 0.010 + 0.001 * ready_s), 0.002)
        assert 0.0 <= late_s <= limit_s + 1e-6

    script = ServerScript(healthy_s=ready_s)
    run_scenario(scenario, service("a", timings=Timings(start_limit=None)), servers={"a": script})


def test_flood_of_output_causes_no_flood_of_probes() -> None:
    """A thousand lines a second cause a hundred more probes a second, not a thousand."""
    flood = tuple((0.001 * n, b"loading\n") for n in range(10_000))
    probes = []

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.at(5.0)
        probes.append(world.launcher.of("a")[0].probes)
        await world.at(10.0)
        probes.append(world.launcher.of("a")[0].probes)

    for output in ((), flood):
        run_scenario(
            scenario, service("a"), servers={"a": ServerScript(healthy_s=20.0, output=output)}
        )
    silent, flooded = probes[1] - probes[0], probes[3] - probes[2]

    assert silent + 100 < flooded <= silent + 508


def test_output_of_a_ready_server_triggers_no_probe() -> None:
    """After the start, no watcher of the log is left."""
    output = tuple((float(n), b"request\n") for n in range(2, 100))

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        process, log = world.launcher.of("a")[0], world["a"].log
        probes = process.probes
        assert not log.is_watched
        await world.at(50.0)
        assert log.history().count(b"request") >= 48
        assert process.probes == probes

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=1.0, output=output)})


def test_cancelled_start_gets_no_further_events() -> None:
    """However the probing ends, the log is not watched any more."""
    script = ServerScript(healthy_s=None, output=((1.0, b"loading\n"),), terminate_s=5.0)

    async def scenario(world: World) -> None:
        world.client("a")
        await world.at(2.0)
        assert world["a"].log.is_watched
        world["a"].stop_nowait()
        await world.moment()
        assert world["a"].state == "terminating"
        assert not world["a"].log.is_watched

    run_scenario(scenario, service("a"), servers={"a": script})


# ---- the proxy stands still
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "timings", [Timings(start_limit=20.0), Timings(start_limit=None, stall_limit=20.0)]
)
@row("A36")
def test_pause_of_the_proxy_extends_the_start_limit(seed: int, timings: Timings) -> None:
    """A server that became healthy meanwhile is ready, although its limit has passed."""

    async def scenario(world: World) -> None:
        client = world.client("a", hold_s=0.0)
        await world.at(10.3)
        suspend(60.0)
        await world.until("a", "ready", "stopping")
        await world.moment()
        assert client.outcome == "finished"

    script = ServerScript(healthy_s=25.0, probe_s=0.2)
    run_scenario(scenario, service("a", timings=timings), servers={"a": script}, seed=seed)


# ---- slow health checks
@pytest.mark.parametrize(("check_s", "ready_s"), [(1.9, 1.9), (3.0, 5.0), (15.0, 29.0)])
def test_health_check_that_takes_longer_than_the_limit_becomes_healthy(
    check_s: float, ready_s: float
) -> None:
    """The limit of a probe doubles, from 2 s on, until the check fits in."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        assert world.now == pytest.approx(ready_s, abs=0.5)

    run_scenario(scenario, service("a"), servers={"a": ServerScript(probe_s=check_s)})


def test_probe_limit_of_a_service_is_that_of_its_timings() -> None:
    """With a limit above its duration the first check passes."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.until("a", "ready")
        assert world.now == pytest.approx(15.0, abs=0.1)

    script = ServerScript(probe_s=15.0)
    run_scenario(scenario, service("a", timings=Timings(probe=16.0)), servers={"a": script})


def test_output_ends_a_long_probe_for_the_next_one() -> None:
    """A server leaves probes without a response while it loads, and prints once it is loaded."""

    async def scenario(world: World) -> None:
        world.client("a", hold_s=0.0)
        await world.at(19.0)  # a probe of 16 s began at about 14 s
        process = world.launcher.of("a")[0]
        before = process.probes
        process.script = replace(process.script, probe_s=0.0)
        await world.until("a", "ready")
        assert world.now == pytest.approx(20.0, abs=0.1)
        assert process.probes == before + 1

    script = ServerScript(probe_s=1000.0, output=((20.0, b"listening\n"),))
    run_scenario(scenario, service("a"), servers={"a": script})


@pytest.mark.parametrize("other_s", [5.0, 15.0, 1000.0])
@row("A36")
def test_pause_of_the_proxy_extends_the_start_limit_once(other_s: float) -> None:
    """A server that is never healthy fails when the limit has passed without the pause."""
    timings = Timings(start_limit=20.0)

    async def scenario(world: World) -> None:
        await world.supervisor.load("other")
        world.client("a")
        await world.at(8.3)
        suspend(30.0)
        await world.until("a", "stopping")
        assert 50.0 - 1.0 <= world.now <= 50.0 + 1.0

    run_scenario(
        scenario, service("a", timings=timings),
        service("other", timings=Timings(idle_limit=other_s)),
        servers={"a": ServerScript(healthy_s=None)}, policy=lambda target, running: frozenset(),
    )  # fmt: skip


@row("A36")
def test_pause_of_the_proxy_extends_no_idle_limit() -> None:
    """The idle limit includes the pause."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        suspend(60.0)
        await world.until("a", "stopped")
        assert world.now == pytest.approx(60.0)

    run_scenario(scenario, service("a", timings=Timings(idle_limit=20.0)))
