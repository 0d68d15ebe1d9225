"""What is lost and what stays when a part of the cluster is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tools.net import LATE_S, LONG_S, wait_until, wait_until_async
from tools.ray_cluster import RayCluster

from swapchart.adapters.ray.launcher import RayLauncher
from swapchart.runtime import Exit
from swapchart.runtime.ports import (
    EngineDown,
    EngineUp,
    NodeDown,
    NodeEvent,
    NodeUp,
    Placement,
    Resources,
)

from .conftest import opened
from .test_launcher import GIB, Sink, is_running, on, said, shell, stop

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.anyio]

#: Starts a child in a session of its own, and prints both process ids.
TREE = "setsid sleep 1000 & echo $$ $! up; wait; exec sleep 1000"


async def exit_of(waiting: Callable[[], Any], limit_s: float = LONG_S) -> Exit:
    with anyio.fail_after(limit_s):
        ended = await waiting()
    assert isinstance(ended, Exit)
    return ended


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


class Events:
    """The events of a launcher."""

    def __init__(self, launcher: RayLauncher) -> None:
        self.all: list[NodeEvent] = []
        launcher.listen(self.all.append)

    async def wait(self, kind: type, node: str = "", limit_s: float = LONG_S) -> None:
        """Wait for an event of *kind*, and forget all until it."""

        def index() -> int:
            for number, event in enumerate(self.all):
                at = getattr(event, "node", None)
                if isinstance(event, kind) and (at is None or not node or at.name == node):
                    return number + 1
            return 0

        what = f"{kind.__name__} of {node or 'the engine'}"
        await wait_until_async(index, limit_s, what=what)
        del self.all[: index()]


async def test_killed_guard_ends_its_tree_and_nothing_else(
    cluster: RayCluster, launcher: RayLauncher
) -> None:
    first = await launcher.start(shell("exec sleep 1000", placement=on("box1")), Sink())
    (own,) = cluster.guards("box1")
    second = await launcher.start(shell(TREE, placement=on("box1")), sink := Sink())
    pids = [int(word) for word in (await said(sink, b"up")).split()[:2]]
    kill(*(set(cluster.guards("box1")) - {own}))

    ended = await exit_of(second.wait)
    assert (ended.reason, ended.certain) == ("agent-lost", True)
    assert not any(map(is_running, pids))
    assert await first.presence() == "alive"
    await stop(first)


async def test_killed_agent_leaves_no_orphan_and_is_replaced(
    cluster: RayCluster, launcher: RayLauncher
) -> None:
    events = Events(launcher)
    wants = Resources(memory={"GPU0": 20 * GIB})
    process = await launcher.start(
        shell(TREE, resources=wants, placement=on("box1")), sink := Sink()
    )
    pids = [int(word) for word in (await said(sink, b"up")).split()[:2]]
    began = time.monotonic()
    kill(*cluster.agents("box1"))

    ended = await exit_of(process.wait)
    assert (ended.reason, ended.certain) == ("agent-lost", False)
    assert time.monotonic() - began < 1.0 + LATE_S
    assert await process.sweep(5.0) == 0  # at once: no agent could confirm it
    await events.wait(NodeDown, "box1")
    await events.wait(NodeUp, "box1")
    assert not any(map(is_running, pids))  # before the node is used again
    again = await launcher.start(
        shell("exec sleep 1000", resources=wants, placement=on("box1")), Sink()
    )
    await stop(again)


async def test_stopped_agent_makes_the_presence_unknown(
    cluster: RayCluster, launcher: RayLauncher
) -> None:
    process = await launcher.start(shell("exec sleep 1000", placement=on("box1")), Sink())
    (agent,) = cluster.agents("box1")
    os.kill(agent, signal.SIGSTOP)
    try:
        assert await process.presence() == "unknown"
    finally:
        os.kill(agent, signal.SIGCONT)
    assert await process.presence() == "alive"
    await stop(process)


async def test_killed_sidecar_loses_no_process(cluster: RayCluster, launcher: RayLauncher) -> None:
    events = Events(launcher)
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    process = await launcher.start(shell(script, placement=on("box1")), sink := Sink())
    await said(sink, b"line 5\n")
    sidecar = launcher._fleet.connection._process
    assert sidecar is not None
    kill(sidecar.pid)

    await events.wait(EngineDown)
    await events.wait(EngineUp)
    await events.wait(NodeUp, "box1")
    assert await process.presence() == "alive"
    count = sink.data.count(b"\n")
    await said(sink, b"line %d\n" % (count + 20))
    lines = sink.data.split(b"\n")[:-1]
    assert lines == [b"line %d" % number for number in range(1, len(lines) + 1)]  # none twice
    await stop(process)


@contextmanager
def other_proxy(
    cluster: RayCluster, name: str, commands: list[dict[str, Any]]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a proxy of its own that starts *commands*."""
    tests = Path(__file__).parent.parent.parent
    argv = (sys.executable, "-m", "tools.ray_proxy", cluster.address, name, json.dumps(commands))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tests) as popen:
        try:
            assert popen.stdout is not None
            assert json.loads(popen.stdout.readline()) == {"open": True}
            yield popen
        finally:
            popen.kill()


def started(popen: subprocess.Popen[bytes], count: int) -> dict[str, int]:
    """Return id and process id of the next *count* processes that it starts."""
    assert popen.stdout is not None
    lines = [json.loads(popen.stdout.readline()) for _ in range(count)]
    return {line["id"]: line["pid"] for line in lines}


async def test_killed_proxy_loses_nothing_and_the_next_one_adopts_in_a_second(
    cluster: RayCluster,
) -> None:
    count = 20
    commands = [
        {"script": "echo before; exec sleep 1000", "node": f"box{1 + number % 2}", "lease_s": 120}
        for number in range(count)
    ]
    with other_proxy(cluster, "adopt", commands) as popen:
        pids = started(popen, count)
        popen.kill()
        popen.wait()

    async with opened(cluster.address, "adopt") as launcher:
        began = time.monotonic()
        found = await launcher.adopt()
        took_s = time.monotonic() - began
        assert took_s < 1.0 + LATE_S
        assert {each.id: each.process.pid for each in found} == pids
        assert {each.service: each.incarnation for each in found} == {
            f"m{number}": number + 1 for number in range(count)
        }
        assert all(map(is_running, pids.values()))
        for each in found:
            each.process.attach(sink := Sink())
            await said(sink, b"before")
            assert (await stop(each.process)).signal == signal.SIGTERM
        assert await launcher.adopt() == []
    assert not any(map(is_running, pids.values()))


async def test_killed_proxy_without_lease_ends_its_processes(cluster: RayCluster) -> None:
    with other_proxy(cluster, "no-lease", [{"script": TREE, "node": "box1"}]) as popen:
        (pid,) = started(popen, 1).values()
        popen.kill()
        popen.wait()
        wait_until(lambda: not is_running(pid), LONG_S, what="no process")

    async with opened(cluster.address, "no-lease") as launcher:
        assert await launcher.adopt() == []


async def test_reservation_that_waits_is_dropped_with_its_proxy(
    cluster: RayCluster, launcher: RayLauncher
) -> None:
    """A proxy that dies while the engine queues its reservation leaves none, and no process."""
    wants = Resources(memory={"GPU0": 20 * GIB})
    holder = await launcher.start(
        shell("exec sleep 1000", resources=wants, placement=on("box1")), Sink()
    )
    commands = [
        {
            "script": "exec sleep 1000", "node": "box1", "memory": {"GPU0": 20 * GIB},
            "wait_s": 8.0, "lease_s": 120,
        }
    ]  # fmt: skip
    with other_proxy(cluster, "ghost", commands) as popen:
        await anyio.sleep(1.0)  # its reservation is queued by now, or the test shows less
        popen.kill()
        popen.wait()
    await stop(holder)

    # What the ghost would take is free at the latest when its time is over.
    placement = Placement(nodes=("box1",), wait_s=15.0)
    again = await launcher.start(
        shell("exec sleep 1000", resources=wants, placement=placement), Sink()
    )
    await stop(again)
    async with opened(cluster.address, "ghost") as second:
        assert await second.adopt() == []


async def test_killed_raylet_is_a_lost_node_without_orphans(own_cluster: RayCluster) -> None:
    own_cluster.add("box2", vram=(24,))
    async with opened(own_cluster.address, "raylet") as launcher:
        events = Events(launcher)
        process = await launcher.start(shell(TREE, placement=on("box2")), sink := Sink())
        pids = [int(word) for word in (await said(sink, b"up")).split()[:2]]
        began = time.monotonic()
        own_cluster.kill("box2", "raylet")

        ended = await exit_of(process.wait)
        assert ended.is_lost
        assert not ended.certain
        await events.wait(NodeDown, "box2")
        assert time.monotonic() - began < 15.0
        await wait_until_async(lambda: not any(map(is_running, pids)), 5.0, what="no orphan")
        nodes = {node.name: node.is_alive for node in await launcher.nodes()}
        assert not nodes.get("box2", False)
        elsewhere = await launcher.start(shell("exec sleep 1000", placement=on("box1")), Sink())

        own_cluster.add("box2", vram=(24,))
        await events.wait(NodeUp, "box2")
        again = await launcher.start(shell("exec sleep 1000", placement=on("box2")), Sink())
        await stop(again)
        await stop(elsewhere)


@pytest.mark.skipif(
    not os.environ.get("SWAPCHART_LONG"), reason="NOT TESTED: test_cluster_hosts.py cuts a host off"
)
async def test_node_that_is_silent_for_six_seconds_loses_nothing(own_cluster: RayCluster) -> None:
    """Raylet and agent are stopped, as if their machine was cut off; the model goes on."""
    async with opened(own_cluster.address, "blip") as launcher:
        events = Events(launcher)
        process = await launcher.start(shell("exec sleep 1000", placement=on("box1")), Sink())
        own_cluster.stop("box1")
        assert await process.presence() == "unknown"
        await anyio.sleep(3.0)
        own_cluster.resume("box1")

        await anyio.sleep(1.0)  # for the connection that was silent
        assert await process.presence() == "alive"
        assert events.all == []
        assert is_running(process.pid)
        await stop(process)


@pytest.mark.skipif(not os.environ.get("SWAPCHART_LONG"), reason="NOT TESTED: takes two minutes")
async def test_lost_head_ends_its_models_and_another_head_serves_again(
    own_cluster: RayCluster,
) -> None:
    """Ray ends drivers and nodes a minute after the head; the proxy goes on and connects again."""
    async with opened(own_cluster.address, "head") as launcher:
        events = Events(launcher)
        process = await launcher.start(shell(TREE, placement=on("box1")), sink := Sink())
        pids = [int(word) for word in (await said(sink, b"up")).split()[:2]]
        own_cluster.kill("head", "gcs_server")
        await events.wait(EngineDown, limit_s=LONG_S)
        assert all(map(is_running, pids))  # for now
        await wait_until_async(lambda: not any(map(is_running, pids)), 120.0, what="no model")
        process.kill()
        ended = await exit_of(process.wait)
        assert ended.is_lost

        port = int(own_cluster.address.rpartition(":")[2])
        own_cluster.close()
        second = RayCluster(port=port)
        try:
            second.add("box1", vram=(24,))
            await events.wait(EngineUp, limit_s=90.0)
            await events.wait(NodeUp, "box1", limit_s=60.0)
            again = await launcher.start(shell("exec sleep 1000", placement=on("box1")), Sink())
            await stop(again)
        finally:
            second.close()
