"""What every launcher promises; see `swapchart.runtime.ports`.

Each test runs against all `SUBJECTS`. One that a kind of launcher cannot pass by its nature is
skipped there by a capability of its subject, and by nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from tools.net import LATE_S, LONG_S, wait_until_async

from adapters.launchers.subjects import SUBJECTS, Subject, more_than_there_is
from swapchart.runtime import (
    Command,
    Endpoint,
    EngineDown,
    EngineError,
    EngineUp,
    Exit,
    LogRing,
    NodeProcess,
    Placement,
    PlacementError,
    ProcessHandle,
    Resources,
    SpecError,
)
from swapchart.runtime.ports import NodeDown, NodeEvent, NodeUp

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(params=SUBJECTS, ids=lambda kind: kind.__name__.removesuffix("Subject").lower())
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    kind: type[Subject] = request.param
    async with kind.open() as subject:
        yield subject
    await wait_until_async(lambda: not subject.left(), what="everything is gone at the end")


def needs(subject: Subject, capability: str) -> None:
    """Skip the test for a launcher without *capability*."""
    if not getattr(subject, capability):
        pytest.skip(f"{type(subject).__name__}: not {capability}")


async def started(
    subject: Subject, behavior: str, log: LogRing | None = None, **fields: Any
) -> NodeProcess:
    """Start a process and wait until it says ``up``, if its behavior has it say so."""
    log = log or LogRing()
    process = await subject.launcher.start(subject.command(behavior, **fields), log)
    assert isinstance(process, NodeProcess)
    if behavior in ("ends well", "stays", "forks", "forks briefly"):
        await wait_until_async(lambda: b"up" in log.history())
    return process


async def ended(process: ProcessHandle) -> Exit:
    """Return how *process* ended; its tree is swept."""
    with anyio.fail_after(LONG_S):
        exit_ = await process.wait()
        await process.sweep(0)
    return exit_


async def end(process: ProcessHandle) -> Exit:
    """Kill *process* and sweep its tree."""
    process.kill()
    return await ended(process)


# ---- starts and exits
@pytest.mark.parametrize(
    ("behavior", "code"), [("says", 0), ("exits 7", 7), ("exits 139", 139)]
)  # fmt: skip
async def test_wait_returns_the_exit_code_to_every_waiter(
    subject: Subject, behavior: str, code: int
) -> None:
    """Before and after the end, and again."""
    process = await started(subject, behavior)
    seen: list[Exit] = []

    async def look() -> None:
        seen.append(await process.wait())

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            tasks.start_soon(look)
        await look()
    await process.sweep(0)

    assert seen == [Exit(code=code)] * 3
    assert await process.presence() == "gone"


async def test_wait_reports_the_signal_that_ended_a_process(subject: Subject) -> None:
    exit_ = await ended(await started(subject, "crashes"))

    assert subject.was_killed_by(exit_, 11)
    assert (exit_.certain, exit_.is_lost) == (True, False)


async def test_cancelled_wait_stops_nothing(subject: Subject) -> None:
    process = await started(subject, "sleeps")
    with anyio.move_on_after(0.1) as scope:
        await process.wait()

    assert scope.cancelled_caught
    assert await process.presence() == "alive"
    await end(process)


async def test_process_has_an_id_and_is_alive_after_its_start(subject: Subject) -> None:
    process = await started(subject, "sleeps")

    assert process.pid >= 0
    assert await process.presence() == "alive"
    await end(process)
    assert await process.presence() == "gone"


async def test_command_that_cannot_run_is_a_spec_error_without_its_arguments(
    subject: Subject,
) -> None:
    """It is permanent, and leaves nothing behind."""
    with pytest.raises(SpecError) as caught:
        await subject.launcher.start(subject.missing(), LogRing())

    assert caught.value.permanent
    assert "no-such-program-here" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not subject.left()


# ---- output
async def test_output_is_complete_when_the_process_has_ended(subject: Subject) -> None:
    log = LogRing()
    await ended(await started(subject, "says", log))

    assert sorted(log.history().split()) == [b"hello", b"oops"]


async def test_output_is_whole_and_in_order(subject: Subject) -> None:
    log = LogRing()
    await ended(await started(subject, "chatty", log))

    assert log.history() == b"".join(b"line %d\n" % number for number in range(300))


async def test_process_gets_its_environment_and_directory(subject: Subject, tmp_path: Path) -> None:
    needs(subject, "is_real")
    log = LogRing()
    await ended(await started(subject, "shows", log, env={"MINE": "value"}, cwd=str(tmp_path)))

    assert log.history().decode() == f"in {tmp_path} with value\n"


# ---- ends
async def test_terminate_lets_a_process_end_by_itself(subject: Subject) -> None:
    process = await started(subject, "ends well")
    process.terminate()

    assert await ended(process) == Exit(code=0)


async def test_terminate_ends_a_process_that_does_not_handle_it(subject: Subject) -> None:
    process = await started(subject, "sleeps")
    process.terminate()

    assert subject.was_killed_by(await ended(process), 15)


async def test_kill_ends_a_process_that_ignores_terminate(subject: Subject) -> None:
    process = await started(subject, "stays")
    process.terminate()
    with anyio.move_on_after(0.3) as scope:
        await process.wait()
    assert scope.cancelled_caught
    process.kill()

    assert subject.was_killed_by(await ended(process), 9)


async def test_ending_what_has_ended_is_a_no_op(subject: Subject) -> None:
    """The chart cannot know that a process died a moment ago."""
    process = await started(subject, "exits 7")
    with anyio.fail_after(LONG_S):
        await process.wait()
    process.terminate()
    process.kill()
    await process.sweep(0)
    process.terminate()
    process.kill()

    assert await process.wait() == Exit(code=7)


# ---- trees
async def test_sweep_ends_what_outlives_the_leader(subject: Subject) -> None:
    """A child that ignores SIGTERM, and a daemon in a session of its own."""
    process = await started(subject, "forks")
    process.terminate()
    with anyio.fail_after(LONG_S):
        await process.wait()
        killed = await process.sweep(0.1)

    assert killed >= 1 or subject.ends_whole
    await wait_until_async(lambda: not subject.left())


async def test_sweep_waits_for_what_ends_in_time(subject: Subject) -> None:
    process = await started(subject, "forks briefly")
    with anyio.fail_after(LONG_S):
        await process.wait()
        killed = await process.sweep(LONG_S)

    assert killed == 0
    await wait_until_async(lambda: not subject.left())


async def test_kill_ends_the_whole_tree(subject: Subject) -> None:
    process = await started(subject, "forks")
    await end(process)

    await wait_until_async(lambda: not subject.left())


# ---- probes
async def test_probe_passes_once_the_server_responds(subject: Subject) -> None:
    """At the endpoint of the process, if it has one; and no longer when it has ended."""
    command, url = subject.server()
    process = await subject.launcher.start(command, LogRing())
    assert isinstance(process, NodeProcess)
    if process.endpoint is not None:
        url = process.endpoint.at(url)
    for _ in range(1500):  # half a minute
        if (probe := await process.probe(url, timeout_s=2.0)).is_ok:
            break
        await anyio.sleep(0.02)
    assert probe.is_ok, probe.detail
    await end(process)

    probe = await process.probe(url, timeout_s=2.0)
    assert not probe.is_ok
    assert probe.detail


# ---- commands that run to their end
async def test_run_returns_the_exit_and_logs_the_output(subject: Subject) -> None:
    log = LogRing()
    with anyio.fail_after(LONG_S):
        assert await subject.launcher.run(subject.hook("says"), log) == Exit(code=0)
        assert await subject.launcher.run(subject.hook("exits 7"), LogRing()) == Exit(code=7)
        crash = await subject.launcher.run(subject.hook("crashes"), LogRing())

    assert sorted(log.history().split()) == [b"hello", b"oops"]
    assert crash == Exit(signal=11)


async def test_run_of_a_missing_program_is_a_spec_error(subject: Subject) -> None:
    with pytest.raises(SpecError, match="no-such-program-here"):
        await subject.launcher.run(subject.missing(), LogRing())


@pytest.mark.parametrize("behavior", ["sleeps", "stays", "forks"])
async def test_cancelled_run_leaves_nothing(subject: Subject, behavior: str) -> None:
    """The whole group of the command is killed before the cancellation is passed on."""
    with anyio.move_on_after(0.3) as scope:
        await subject.launcher.run(subject.hook(behavior), LogRing())

    assert scope.cancelled_caught
    await wait_until_async(lambda: not subject.left())


async def test_run_on_the_node_of_a_process(subject: Subject) -> None:
    process = await started(subject, "sleeps")
    with anyio.fail_after(LONG_S):
        exit_ = await subject.launcher.run(subject.hook("exits 7", node=process.node), LogRing())

    assert exit_ == Exit(code=7)
    await end(process)


async def test_run_inside_is_possible_or_a_spec_error(subject: Subject) -> None:
    process = await started(subject, "sleeps")
    if subject.runs_inside or not subject.is_real:
        assert await process.run(subject.hook("exits 7"), LogRing()) == Exit(code=7)
    else:
        with pytest.raises(SpecError, match="in no container"):
            await process.run(subject.hook("says"), LogRing())
    await end(process)


# ---- cancellation
async def cancelled_at_every_await(make: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Run a coroutine again and again, cancelled one turn of the loop later each time.

    Returns:
        The number of runs that were cancelled before one came to its end.
    """
    for turns in range(60):
        task = asyncio.get_running_loop().create_task(make())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await task
            return turns
        task.cancel()
        with anyio.fail_after(LONG_S):
            await asyncio.wait({task})
        assert task.cancelled() or task.exception() is None
    return 60


def settled(subject: Subject) -> int:
    """Return how many processes run; 0 in the middle of an exec, when one shows no environment."""
    found = subject.left()
    return len(found) if found == subject.left() else 0


@pytest.mark.parametrize("what", ["wait", "probe", "presence", "run"])
async def test_cancellation_at_every_await_harms_nothing(subject: Subject, what: str) -> None:
    """The process goes on as if the call had not been made, and no command is left."""
    process = await started(subject, "sleeps")
    url = "http://127.0.0.1:9/health" if process.endpoint is None else process.endpoint.at("http:")
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "wait": process.wait,
        "probe": lambda: process.probe(url, timeout_s=1.0),
        "presence": process.presence,
        "run": lambda: subject.launcher.run(subject.hook("says"), LogRing()),
    }
    before = await wait_until_async(lambda: settled(subject))
    await cancelled_at_every_await(calls[what])

    assert await process.presence() == "alive"
    await wait_until_async(lambda: len(subject.left()) == before)
    assert subject.was_killed_by(await end(process), 9)


async def test_sweep_that_was_cancelled_can_be_repeated(subject: Subject) -> None:
    """A sweep is not cancelled by the runtime; a program that does so sweeps once more."""
    needs(subject, "is_real")
    process = await started(subject, "forks")
    process.terminate()
    with anyio.fail_after(LONG_S):
        await process.wait()
    with anyio.move_on_after(0.2):
        await process.sweep(LONG_S)
    with anyio.fail_after(LONG_S):
        await process.sweep(0)

    await wait_until_async(lambda: not subject.left())


# ---- nodes
async def test_nodes_have_unique_names_and_processes_are_on_one_of_them(subject: Subject) -> None:
    nodes = await subject.launcher.nodes()
    process = await started(subject, "sleeps")

    names = [node.name for node in nodes]
    assert len(names) == len(set(names))
    assert all(node.is_alive for node in nodes)
    assert process.node in {*names, ""}
    await end(process)


async def test_endpoint_is_where_the_process_listens(subject: Subject) -> None:
    """Host, port and node are filled into the command by the launcher, on the node."""
    needs(subject, "has_nodes")
    needs(subject, "is_real")
    log = LogRing()
    script = "import sys; print(*sys.argv[1:])"
    argv = (sys.executable, "-c", script, "${HOST}", "${PORT}", "${NODE}", "${OTHER}")
    command = Command(argv=argv, label="test", launcher=subject.launcher.name)
    process = await subject.launcher.start(command, log)
    assert isinstance(process, NodeProcess)
    at = process.endpoint
    await ended(process)

    assert isinstance(at, Endpoint)
    assert log.history().decode().split() == [at.host, str(at.port), at.node, "${OTHER}"]


async def test_process_goes_where_its_placement_says(subject: Subject) -> None:
    needs(subject, "has_nodes")
    names = [node.name for node in await subject.launcher.nodes()]
    for name in names:
        process = await started(subject, "sleeps", placement=Placement(nodes=(name,)))
        assert process.node == name
        await end(process)
    others = frozenset(names[:-1])
    process = await started(subject, "sleeps", placement=Placement(avoid=others))
    assert process.node == names[-1]
    await end(process)


@pytest.mark.parametrize("is_infeasible", [True, False])
async def test_placement_error_says_whether_it_can_ever_succeed(
    subject: Subject, is_infeasible: bool
) -> None:
    """No such node, or none that is not to be avoided; at once, and nothing is left."""
    needs(subject, "has_nodes")
    names = frozenset(node.name for node in await subject.launcher.nodes())
    placement = Placement(nodes=("nowhere",)) if is_infeasible else Placement(avoid=names)
    with pytest.raises(PlacementError) as caught:
        await started(subject, "sleeps", placement=placement)

    assert caught.value.is_infeasible is is_infeasible
    assert caught.value.permanent is is_infeasible
    assert not subject.left()


async def test_resources_are_reserved_until_the_process_has_ended(subject: Subject) -> None:
    """What is too much for every node is infeasible, what is taken is no room."""
    needs(subject, "resource")
    nodes = await subject.launcher.nodes()
    most = max(node.capacity[subject.resource] for node in nodes)
    whole = Resources(custom={subject.resource: most})
    with pytest.raises(PlacementError) as caught:
        await started(subject, "sleeps", resources=more_than_there_is(subject))
    assert caught.value.is_infeasible

    running = [await started(subject, "sleeps", resources=whole) for _ in nodes]
    assert sorted(process.node for process in running) == sorted(node.name for node in nodes)
    with pytest.raises(PlacementError) as caught:
        await started(subject, "sleeps", resources=whole)
    assert not caught.value.is_infeasible
    first = running.pop()
    await end(first)
    running.append(await started(subject, "sleeps", resources=whole))
    assert running[-1].node == first.node
    for process in running:
        await end(process)


async def test_lost_node_ends_its_processes_without_certainty(subject: Subject) -> None:
    """First nothing is seen of it; the request that failed asks, then the engine notices."""
    needs(subject, "has_nodes")
    events: list[NodeEvent] = []
    subject.launcher.listen(events.append)
    process = await started(subject, "sleeps")
    subject.lose(process.node)

    assert await process.presence() == "unknown"
    assert not (await process.probe("http://127.0.0.1:9/", timeout_s=0.2)).is_ok
    await subject.notice(process.node)
    with anyio.fail_after(LONG_S):
        exit_ = await process.wait()
    assert (exit_.certain, exit_.is_lost, exit_.code) == (False, True, None)
    began = time.monotonic()
    assert await process.sweep(LONG_S) == 0
    assert time.monotonic() - began < LATE_S
    assert [type(event) for event in events] == [NodeDown]
    assert not {n.name: n.is_alive for n in await subject.launcher.nodes()}.get(process.node)
    await subject.restore(process.node)


async def test_node_that_comes_back_has_ended_what_was_lost_before_it_says_so(
    subject: Subject,
) -> None:
    needs(subject, "has_nodes")
    process = await started(subject, "stays")
    subject.lose(process.node)
    await subject.notice(process.node)
    with anyio.fail_after(LONG_S):
        await process.wait()
        await process.sweep(0)
    left: list[int] = []

    def look(event: NodeEvent) -> None:
        if isinstance(event, NodeUp):
            left.append(len(subject.left()))

    remove = subject.launcher.listen(look)
    with anyio.fail_after(LONG_S):
        await subject.restore(process.node)
    remove()

    assert left == [0]
    again = await started(subject, "sleeps", placement=Placement(nodes=(process.node,)))
    await end(again)


async def test_kill_on_a_lost_node_ends_in_limited_time(subject: Subject) -> None:
    """Long before the engine notices: the chart waits for the end of each process."""
    needs(subject, "has_nodes")
    process = await started(subject, "sleeps")
    subject.lose(process.node)
    process.terminate()
    process.kill()
    with anyio.fail_after(10.0 + LATE_S):
        exit_ = await process.wait()

    assert (exit_.certain, exit_.is_lost) == (False, True)
    await process.sweep(0)
    await subject.restore(process.node)


async def test_engine_that_does_not_respond_starts_nothing_and_ends_nothing(
    subject: Subject,
) -> None:
    needs(subject, "has_engine")
    events: list[NodeEvent] = []
    subject.launcher.listen(events.append)
    process = await started(subject, "sleeps")
    await subject.set_engine(is_down=True)
    before = len(subject.left())

    with pytest.raises(EngineError) as caught:
        await started(subject, "sleeps")
    assert not caught.value.permanent
    with pytest.raises(EngineError):
        await subject.launcher.nodes()
    assert len(subject.left()) == before
    await subject.set_engine(is_down=False)
    assert [type(event) for event in events] == [EngineDown, EngineUp]
    assert await process.presence() == "alive"
    await end(process)


# ---- adoption
async def test_process_that_outlived_its_proxy_is_adopted_with_its_output(
    subject: Subject,
) -> None:
    needs(subject, "can_adopt")
    first = await started(
        subject, "ends well", label="test", incarnation=7, lease_s=60.0, grace_s=1.0
    )
    await subject.replace_proxy()
    (adopted,) = await subject.launcher.adopt()
    log = LogRing()
    adopted.process.attach(log)

    assert (adopted.service, adopted.incarnation) == ("test", 7)
    assert adopted.id
    assert adopted.process.endpoint == first.endpoint
    assert await adopted.process.presence() == "alive"
    await wait_until_async(lambda: b"up" in log.history())
    adopted.process.terminate()
    assert await ended(adopted.process) == (Exit(code=0) if subject.knows_exits else Exit())
    await wait_until_async(lambda: b"bye" in log.history())
    assert list(await subject.launcher.adopt()) == []


async def test_adoption_finds_nothing_where_nothing_was_left(subject: Subject) -> None:
    assert list(await subject.launcher.adopt()) == []
