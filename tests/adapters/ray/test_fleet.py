"""Events of the sidecar, in the order in which they may come."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from tools.net import wait_until_async

from swapchart.adapters.ray import fleet
from swapchart.adapters.ray.fleet import Fleet
from swapchart.adapters.ray.ray_process import RayProcess
from swapchart.runtime import EngineError

pytestmark = pytest.mark.anyio


async def http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    raise NotImplementedError(url, timeout_s)


class Log:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


NODE = {
    "id": "n", "name": "box1", "address": "10.0.0.1", "resources": {}, "labels": {}, "is_own": False
}  # fmt: skip


def run_of(id_: str, **more: Any) -> dict[str, Any]:
    """Return what an agent reports of a run."""
    known = {"label": "m", "incarnation": 1, "is_hook": False, "code": None, "killed": None}
    return {"id": id_, **known, **more}


def node_event(state: str, *runs: dict[str, Any]) -> dict[str, Any]:
    """Return an event of the one node."""
    return {"event": "node", "state": state, "node": NODE, "processes": [*runs], "why": "it died"}


class Sidecar:
    """Connection with a sidecar that does what a test says.

    Attributes:
        requests: What was asked for, each with the id of its process.
        fails: Names of requests that fail.
        gates: Name of a request -> what it waits for first.
    """

    is_open, problem = True, ""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fails: set[str] = set()
        self.gates: dict[str, anyio.Event] = {}

    async def request(self, do: str, values: Mapping[str, Any]) -> bool:
        self.requests.append((do, values["id"]))
        if gate := self.gates.get(do):
            await gate.wait()
        if do in self.fails:
            raise EngineError("the agent does not respond")
        return True


class Rig:
    """A fleet without a cluster.

    Attributes:
        sidecar: The other side of its connection.
        seen: Names of the types of all events that it has reported.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        settings = {"address": "auto", "cluster": "test", "owner": {}}
        self.seen: list[str] = []
        self.fleet = Fleet(
            settings, "ray", http_get, lambda event: self.seen.append(type(event).__name__)
        )
        self.sidecar = Sidecar()
        self.fleet.connection = self.sidecar  # type: ignore[assignment]
        self.fleet._tasks = tasks

    async def take(self, *events: dict[str, Any]) -> None:
        """Take *events* at once, and run what follows of them."""
        for event in events:
            self.fleet._take(event)
        await anyio.wait_all_tasks_blocked()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A fleet that has claimed what earlier proxies have left."""
    async with anyio.create_task_group() as tasks:
        found = Rig(tasks)
        found.fleet.claim()
        yield found
        tasks.cancel_scope.cancel()


async def test_node_that_is_lost_right_after_it_came_is_not_used(rig: Rig) -> None:
    """Both events may arrive before anything else runs."""
    await rig.take(node_event("up"), node_event("down"))

    assert rig.seen == []
    assert not rig.fleet.nodes["n"].is_up


async def test_node_is_used_only_when_what_it_has_left_is_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to its agent that fails ends nothing."""
    monkeypatch.setattr(fleet, "_RETRY_S", 0.01)
    rig.sidecar.fails.add("forget")
    await rig.take(node_event("up", run_of("old")))

    assert rig.seen == []
    rig.sidecar.fails.clear()
    await wait_until_async(lambda: rig.seen == ["NodeUp"])
    assert rig.fleet.nodes["n"].is_up


async def test_run_of_an_earlier_proxy_on_a_node_that_comes_late_ends_with_its_hooks(
    rig: Rig,
) -> None:
    """A process that the proxy itself has counted as ended is killed: its hooks have run."""
    process = RayProcess("own", rig.fleet, None, node="box1", node_id="n")
    rig.fleet.processes["own"] = process
    rig.sidecar.fails.add("forget")
    rig.fleet.discard(process)
    await anyio.wait_all_tasks_blocked()
    rig.sidecar.fails.clear()
    rig.sidecar.requests.clear()
    kept = {"memo": "facts", "lease_s": 60.0}
    await rig.take(node_event("up", run_of("own", **kept), run_of("kept", **kept), run_of("new")))

    assert sorted(rig.sidecar.requests) == [
        ("dismiss", "kept"), ("forget", "kept"), ("forget", "new"), ("forget", "own"),
    ]  # fmt: skip
    assert rig.seen == ["NodeUp"]


async def test_node_is_free_again_when_all_that_was_lost_there_has_ended(rig: Rig) -> None:
    """Two runs whose ends were not confirmed in time: the first end frees nothing yet."""
    await rig.take(node_event("up"))
    gates = [anyio.Event(), anyio.Event()]
    for number, gate in enumerate(gates):
        process = RayProcess(f"run{number}", rig.fleet, None, node="box1", node_id="n")
        rig.sidecar.gates["forget"] = gate
        rig.fleet.confirm(process, 0.0)
        asked = ("forget", process.id)
        await wait_until_async(partial(rig.sidecar.requests.__contains__, asked))

    gates[0].set()
    await anyio.wait_all_tasks_blocked()
    assert rig.seen == ["NodeUp"]  # the first one, of its start
    gates[1].set()
    await anyio.wait_all_tasks_blocked()
    assert rig.seen == ["NodeUp", "NodeUp"]


async def test_run_whose_start_was_lost_with_a_sidecar_is_ended(rig: Rig) -> None:
    """The next sidecar does not find it, since it begins only later."""
    await rig.take(node_event("up"))
    report = {"event": "process", "node_id": "n", **run_of("lost"), "log": "", "offset": 0}
    await rig.take(report, report)

    assert rig.sidecar.requests == [("forget", "lost")]


async def test_processes_of_a_node_that_responds_and_is_not_used_yet_are_not_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is back, and what is left there takes long to end."""
    monkeypatch.setattr(fleet, "ABSENT_S", 0.01)
    process = RayProcess("own", rig.fleet, None, node="box1", node_id="n")
    absent = RayProcess("absent", rig.fleet, None, node="box2", node_id="other")
    rig.fleet.processes |= {"own": process, "absent": absent}
    rig.sidecar.gates["dismiss"] = anyio.Event()
    kept = run_of("kept", memo="facts")
    await rig.take({"event": "engine", "state": "up"}, node_event("up", run_of("own"), kept))
    await absent.wait()

    assert process.exit is None
    assert "NodeUp" not in rig.seen


async def test_other_proxy_on_a_node_is_logged_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent is asked again and again whether the other one is still there."""
    busy = {"event": "busy", "node": NODE, "owner": {"id": "x", "host": "h", "pid": 1}}
    await rig.take(busy, busy, busy)

    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_output_right_behind_its_node_reaches_the_log_of_an_adopted_process() -> None:
    """Both messages may arrive at once, so nothing else runs between them."""
    settings = {"address": "auto", "cluster": "test", "owner": {}}
    found = Fleet(settings, "ray", http_get, lambda _: None)
    run = {"id": "m#1@x", "label": "m", "incarnation": 1, "is_hook": False, "code": None}
    output = {"log": base64.b64encode(b"started\n").decode(), "offset": 8, "killed": None}
    found._take({"event": "node", "state": "up", "node": NODE, "processes": [dict(run)]})
    found._take({"event": "process", "node_id": "n", **run, **output})
    (process,) = found.claim()
    process.attach(log := Log())

    assert log.data == b"started\n"
