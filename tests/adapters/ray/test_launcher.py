"""Processes on the nodes of a real Ray cluster."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest
from tools.net import LATE_S, LONG_S, wait_until_async
from tools.ray_cluster import RayCluster

from swapchart.adapters.ray.errors import ClusterInUseError
from swapchart.adapters.ray.launcher import RayLauncher
from swapchart.runtime import Command, EngineError, Exit, PlacementError, SpecError
from swapchart.runtime.ports import Endpoint, Placement, ProcessHandle, Resources

from .conftest import opened

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.anyio]

GIB = 1 << 30


class Sink:
    """Sink that keeps everything."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def shell(script: str, **fields: object) -> Command:
    """Return a command of the shell."""
    return Command(argv=("sh", "-c", script), label="m", **fields)  # type: ignore[arg-type]


def on(node: str) -> Placement:
    return Placement(nodes=(node,))


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def stop(process: ProcessHandle) -> Exit:
    process.terminate()
    with anyio.fail_after(LONG_S):
        await process.sweep(1.0)
        return await process.wait()


async def said(sink: Sink, text: bytes) -> bytes:
    """Wait until *text* stands in the output, and return all of it."""
    await wait_until_async(lambda: text in sink.data, what=f"{text!r} in the output")
    return sink.data


async def test_start_fills_endpoint_on_the_node_and_sets_gpus(launcher: RayLauncher) -> None:
    sink = Sink()
    process = await launcher.start(
        shell(
            "echo $0 ${HOST} ${PORT} ${NODE} gpu $CUDA_VISIBLE_DEVICES omp $OMP_NUM_THREADS end;"
            "exec sleep 1000",
            resources=Resources(memory={"GPU1": 4 * GIB}),
        ),
        sink,
    )

    endpoint = process.endpoint
    assert isinstance(endpoint, Endpoint)
    assert endpoint.node == process.node == "box2"  # the only one with a GPU1
    words = (await said(sink, b"end")).split()
    assert words[1:4] == [endpoint.host.encode(), str(endpoint.port).encode(), b"box2"]
    # A worker of Ray has no GPUs in CUDA_VISIBLE_DEVICES, and OMP_NUM_THREADS=1.
    threads = os.environ.get("OMP_NUM_THREADS", "").encode()
    assert words[4:] == [b"gpu", b"1", b"omp", *([threads] if threads else []), b"end"]
    assert await process.presence() == "alive"
    assert (await stop(process)).signal == signal.SIGTERM
    assert await process.presence() == "gone"


@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 7", Exit(code=7)), ("kill -9 $$", Exit(signal=9)), ("true", Exit(code=0))],
)
async def test_exit_of_the_leader_is_reported(
    launcher: RayLauncher, script: str, expected: Exit
) -> None:
    process = await launcher.start(shell(f"echo out; {script}"), sink := Sink())

    with anyio.fail_after(LONG_S):
        assert await process.wait() == expected
    assert sink.data == b"out\n"  # before the exit
    assert await process.sweep(0.0) == 0


async def test_sweep_kills_what_outlives_the_leader_and_ignores_sigterm(
    launcher: RayLauncher,
) -> None:
    process = await launcher.start(
        shell("setsid sh -c 'trap \"\" TERM; echo $$ up; sleep 1000 & wait; sleep 1000' & wait"),
        sink := Sink(),
    )
    daemon = int((await said(sink, b"up")).split()[0])
    process.terminate()

    with anyio.fail_after(LONG_S):
        assert (await process.wait()).signal == signal.SIGTERM
        assert await process.sweep(0.2) >= 1
    assert not is_running(daemon)


async def test_kill_ends_the_whole_tree(launcher: RayLauncher) -> None:
    process = await launcher.start(
        shell("trap '' TERM; setsid sleep 1000 & echo $! up; sleep 1000"), sink := Sink()
    )
    daemon = int((await said(sink, b"up")).split()[0])
    process.kill()

    with anyio.fail_after(LONG_S):
        assert (await process.wait()).signal == signal.SIGKILL
        await process.sweep(0.0)
    assert not is_running(daemon)


async def test_hook_runs_on_its_node_and_leaves_nothing(launcher: RayLauncher) -> None:
    command = shell("echo $SWAPCHART_NODE; sleep 1000 & echo $! last; exit 3", node="box2")
    ended = await launcher.run(command, sink := Sink())

    assert ended == Exit(code=3)
    node, child = sink.data.split()[:2]
    assert node == b"box2"
    assert not is_running(int(child))


async def test_hook_that_is_cancelled_is_killed(launcher: RayLauncher) -> None:
    sink = Sink()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.run, shell("echo $$ up; exec sleep 1000", node="box1"), sink)
        pid = int((await said(sink, b"up")).split()[0])
        tasks.cancel_scope.cancel()

    assert not is_running(pid)


async def test_large_output_arrives_complete(launcher: RayLauncher) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    process = await launcher.start(shell(script), sink := Sink())

    with anyio.fail_after(LONG_S):
        assert (await process.wait()).is_clean
    assert sink.data.splitlines() == [f"line {i}".encode() for i in range(20000)]
    await process.sweep(0.0)


async def test_missing_program_and_folder_are_spec_errors(launcher: RayLauncher) -> None:
    with pytest.raises(SpecError, match="no-such-program on node box1: No such file"):
        await launcher.start(Command(argv=("no-such-program",), placement=on("box1")), Sink())
    with pytest.raises(SpecError, match="on node box2: No such file"):
        await launcher.start(
            Command(argv=("true",), cwd="/no/such/folder", placement=on("box2")), Sink()
        )


async def test_placement_errors_say_what_each_node_lacks(launcher: RayLauncher) -> None:
    with pytest.raises(PlacementError, match=r"box1: .* GPU0 40.0 GiB of 24.0 GiB") as caught:
        await launcher.start(shell("", resources=Resources(memory={"GPU0": 40 * GIB})), Sink())
    assert caught.value.is_infeasible

    labels = Placement(nodes=("box2",), labels={"weights": "all"})
    with pytest.raises(PlacementError, match="box2: label weights is not set, not all") as caught:
        await launcher.start(shell("", placement=labels), Sink())
    assert caught.value.is_infeasible

    avoid = Placement(nodes=("box1",), avoid=frozenset({"box1"}))
    with pytest.raises(PlacementError, match="do not respond: box1") as caught:
        await launcher.start(shell("", placement=avoid), Sink())
    assert not caught.value.is_infeasible

    with pytest.raises(EngineError, match="node box9 does not respond"):
        await launcher.run(shell("", node="box9"), Sink())


async def test_reservation_is_refused_while_held_and_free_after_the_stop(
    launcher: RayLauncher,
) -> None:
    wants = Resources(memory={"GPU0": 20 * GIB})
    command = shell("exec sleep 1000", resources=wants, placement=on("box1"))
    first = await launcher.start(command, Sink())
    with pytest.raises(PlacementError, match="box1: cannot reserve VRAM_0 20: others hold it"):
        await launcher.start(command, Sink())

    await stop(first)
    second = await launcher.start(command, Sink())

    assert second.node == "box1"
    await stop(second)


async def test_label_selects_the_node(launcher: RayLauncher) -> None:
    labels = Placement(labels={"weights": "all"})
    process = await launcher.start(shell("exec sleep 1000", placement=labels), Sink())

    assert process.node == "box1"
    await stop(process)


async def test_nodes_have_capacity_devices_and_labels(launcher: RayLauncher) -> None:
    nodes = {node.name: node for node in await launcher.nodes()}

    assert set(nodes) == {"head", "box1", "box2"}
    assert nodes["head"].is_own
    assert nodes["box1"].labels["weights"] == "all"
    assert nodes["box1"].capacity["GPU0"] == 24 * GIB
    assert nodes["box1"].free is not None
    assert [device.pool for device in nodes["box2"].devices] == ["GPU0", "GPU1"]


async def test_death_of_a_process_is_noticed_within_a_second(launcher: RayLauncher) -> None:
    process = await launcher.start(shell("exec sleep 1000"), Sink())
    began = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)

    with anyio.fail_after(LONG_S):
        assert await process.wait() == Exit(signal=9)
    assert time.monotonic() - began < 1.0 + LATE_S
    await process.sweep(0.0)


async def test_second_proxy_with_the_same_name_is_refused(
    cluster: RayCluster, launcher: RayLauncher
) -> None:
    second = opened(cluster.address, "tests")
    with pytest.raises(ClusterInUseError, match=r"another proxy \(.*pid .* `cluster.name`"):
        await second.__aenter__()

    process = await launcher.start(shell("exec sleep 1000"), Sink())  # the first one goes on
    await stop(process)


async def test_cluster_that_does_not_respond_is_no_failure_of_the_proxy(
    cluster: RayCluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del cluster  # skips
    async with opened("127.0.0.9:1", "none") as launcher:
        with pytest.raises(EngineError, match=r"no Ray cluster responds at 127.0.0.9:1"):
            await launcher.start(shell("true"), Sink())
    assert "no Ray cluster responds" in caplog.text
