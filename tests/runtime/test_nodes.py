"""Processes on nodes: where they are reached, and what happens when a node is lost."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tools.virtual import World, run_scenario

from swapchart.runtime import (
    Command,
    Exit,
    Hook,
    HttpAction,
    HttpCall,
    Liveness,
    MemoryLedger,
    Placement,
    RequestError,
    RunAction,
    ServiceSpec,
    Timings,
)
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.testing import CommandScript, ScriptedLauncher, ServerScript, service

GIB = 1 << 30


def on_nodes(name: str, **fields: Any) -> ServiceSpec:
    """Return a service whose hooks show where it runs."""
    command = Command(
        argv=(name,), label=name, placement=fields.pop("placement", Placement()),
        resources=fields.pop("resources", Command(argv=("x",)).resources),
    )  # fmt: skip
    return service(name, command=command, **fields)


def run_hook(*argv: str, **fields: Any) -> Hook:
    return Hook(action=RunAction(argv=argv, **fields))


def started_on(launcher: ScriptedLauncher, name: str) -> list[frozenset[str]]:
    """Return the nodes to be avoided at each start of *name*."""
    return [r.command.placement.avoid for r in launcher.find("spawn", name) if r.command]


def test_service_is_reached_at_the_endpoint_of_its_process() -> None:
    """Requests, probes and leases use host and port of the process, and the path of the spec."""

    async def scenario(world: World) -> None:
        assert world["a"].endpoint == "http://127.0.0.1:5800"
        async with world.supervisor.lease("a") as lease:
            process = world.launcher.of("a")[0]

            assert lease.endpoint == world["a"].endpoint == "http://10.0.0.1:40001"
            assert process.probed == "http://10.0.0.1:40001/health"
            assert world["a"].node == "h1"
        await world["a"].stop()
        assert world["a"].node == ""

    run_scenario(scenario, service("a"), nodes=["h1"])


def test_process_without_an_endpoint_is_reached_at_the_url_of_its_specification() -> None:
    async def scenario(world: World) -> None:
        async with world.supervisor.lease("a") as lease:
            assert lease.endpoint == "http://127.0.0.1:5800"
            assert world.launcher.of("a")[0].probed == "http://127.0.0.1:5800/health"
            assert world["a"].node == ""

    run_scenario(scenario, service("a"))


def test_liveness_probe_goes_to_the_endpoint_of_the_process() -> None:
    liveness = Liveness(every_s=5.0, url="http://127.0.0.1:5800/alive?x=1")

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await anyio.sleep(6.0)

        assert world.launcher.of("a")[0].probed == "http://10.0.0.1:40001/alive?x=1"

    run_scenario(scenario, service("a", liveness=liveness), nodes=["h1"])


def test_hooks_run_on_the_node_of_the_process_with_its_endpoint() -> None:
    """Placeholders, variables and the stop command have what the node has given."""
    spec = on_nodes(
        "a", stop_argv=("stop", "${HOST}:${PORT}"),
        hooks={
            "beforeStart": (run_hook("before", "${NODE}"),),
            "afterHealthy": (run_hook("save", "${HOST}", "${PORT}", "${NODE}", "${PID}"),),
            "afterStop": (run_hook("after", "${NODE}"),),
        },
    )  # fmt: skip

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        await world["a"].stop()

    launcher = run_scenario(
        scenario, spec, nodes=["h1"], commands={"stop": CommandScript(signals="a")}
    )

    ran = {r.detail: r.command for r in launcher.find("run") if r.command}
    assert ran["before"].argv == ("before", "")
    assert ran["save"].argv == ("save", "10.0.0.1", "40001", "h1", "102")
    assert ran["stop"].argv == ("stop", "10.0.0.1:40001")
    assert {ran[name].node for name in ("save", "stop", "after")} == {"h1"}
    env = ran["save"].env
    assert (env["SWAPCHART_HOST"], env["SWAPCHART_PORT"]) == ("10.0.0.1", "40001")
    assert env["SWAPCHART_NODE"] == "h1"


def test_http_hook_at_the_service_goes_to_its_endpoint_and_others_stay() -> None:
    calls = [
        HttpCall(method="POST", url="http://127.0.0.1:5800/slots?id=1"),
        HttpCall(method="POST", url="http://127.0.0.1:9999/notify/${NODE}"),
    ]
    hooks = {"afterHealthy": tuple(Hook(action=HttpAction(call=call)) for call in calls)}

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")

        assert [call.url for call in world.http.calls] == [
            "http://10.0.0.1:40001/slots?id=1", "http://127.0.0.1:9999/notify/h1",
        ]  # fmt: skip

    run_scenario(scenario, service("a", hooks=hooks), nodes=["h1"])


def test_hook_inside_runs_by_the_process() -> None:
    """Without a process there is nothing to run it in, which the log says."""
    hooks = {
        "beforeStart": (run_hook("early", is_inside=True),),
        "afterHealthy": (run_hook("late", is_inside=True),),
    }

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")

        assert b"there is no container to run it in at beforeStart" in world["a"].log.history()

    launcher = run_scenario(scenario, service("a", hooks=hooks), nodes=["h1"])

    assert [(r.detail, r.command.node) for r in launcher.find("run") if r.command] == [
        ("late", "inside")
    ]


# ---- lost nodes
def test_service_whose_node_was_lost_starts_elsewhere_and_its_request_is_served() -> None:
    """The request waits for the start on the other node, and the lost one is avoided."""

    async def scenario(world: World) -> None:
        world.launcher.servers["a"] = [ServerScript(healthy_s=20.0), ServerScript()]
        client = world.client("a")
        await world.until("a", "health_checking")
        world.launcher.lose("h1")
        await world.until("a", "ready")
        await world.moment()

        assert (client.outcome, world["a"].node) == ("served", "h2")
        assert world.supervisor.nodes.lost == {"h1": {"a"}}
        client.finish()

    launcher = run_scenario(scenario, service("a"), nodes=["h1", "h2"])

    assert started_on(launcher, "a") == [frozenset(), frozenset({"h1"})]


def test_service_is_not_started_again_where_it_may_still_run() -> None:
    """With one node, requests are refused with the reason until the node is back."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.lose("h1")
        await world.until("a", "backoff")
        client = world.client("a")
        await world.until("a", "tripped")
        await world.moment()
        assert client.outcome == "no_room"
        assert "no room on h1" in str(client.error)

        world.launcher.restore("h1")
        await world.supervisor.load("a")

        assert world["a"].node == "h1"
        assert world.supervisor.nodes.lost == {}

    run_scenario(scenario, service("a", intensity=2), nodes=["h1"])


@pytest.mark.parametrize("is_certain", [True, False])
def test_node_that_is_gone_for_certain_holds_nothing(is_certain: bool) -> None:
    """Only an end that is certain lets the service start there again."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.lose("h1")
        await world.until("a", "backoff")
        world.launcher.report_down("h1", is_certain=is_certain)

        assert bool(world.supervisor.nodes.lost) is not is_certain
        nodes = {node.name: node.is_alive for node in await world.supervisor.nodes.nodes()}
        assert nodes == {"h1": False}

    run_scenario(scenario, service("a"), nodes=["h1"])


def test_placement_that_is_infeasible_is_not_tried_again() -> None:
    spec = on_nodes("a", placement=Placement(nodes=("h9",)))

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "tripped")
        await world.moment()

        assert client.outcome == "no_room"
        assert str(client.error) == "a cannot be placed: there is no node h9"
        assert client.error is not None
        assert client.error.status_hint == 503

    launcher = run_scenario(scenario, spec, nodes=["h1"])

    assert launcher.count("spawn", "a") == 1


def test_placement_without_room_is_planned_again_once() -> None:
    """The request goes back to the queue, and is served if there is room the second time."""

    async def scenario(world: World) -> None:
        world.launcher.lose("h1")
        client = world.client("a")
        await world.until("a", "backoff")
        assert client.outcome == "waiting"
        world.launcher.restore("h1")
        await world.until("a", "ready")
        await world.moment()

        assert client.outcome == "served"
        client.finish()

    launcher = run_scenario(scenario, service("a"), nodes=["h1"])

    assert launcher.count("refused", "a") == 1


# ---- a request that did not reach its process
def test_process_on_an_unreachable_node_is_replaced_before_the_engine_notices() -> None:
    """The engine would need 60 s; hooks of the unreachable process get a second each."""
    spec = on_nodes(
        "a", hooks={"beforeStop": (run_hook("hangs"),)}, timings=Timings(grace=5.0, backoff=1.0)
    )

    async def scenario(world: World) -> None:
        world.launcher.servers["a"] = ServerScript(lost_s=60.0)
        await world.supervisor.load("a")
        lost_at = world.now
        world.launcher.lose("h1")
        world["a"].note_unreachable("connection timed out")
        await world.moment()
        assert world["a"].state == "before_stop"
        assert world["a"].cause == "its node cannot be reached: connection timed out"
        client = world.client("a")
        await world.until("a", "ready")
        await world.moment()

        assert (client.outcome, world["a"].node) == ("served", "h2")
        assert world.now - lost_at < 10.0
        client.finish()

    run_scenario(
        scenario, spec, nodes=["h1", "h2"], commands={"hangs": CommandScript(takes_s=None)}
    )


@pytest.mark.parametrize("nodes", [["h1"], []])
def test_process_that_is_there_survives_a_request_that_did_not_reach_it(nodes: list[str]) -> None:
    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].note_unreachable("connection refused")
        await anyio.sleep(100.0)

        assert world["a"].state == "ready"

    launcher = run_scenario(scenario, service("a"), nodes=nodes)

    assert launcher.count("spawn", "a") == 1


def test_stalled_response_alone_does_not_end_a_process_on_a_node() -> None:
    """Without liveness, a stall counts for nothing, wherever the process runs."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world["a"].note_stall()
        await anyio.sleep(10.0)

        assert world["a"].state == "ready"

    run_scenario(scenario, service("a"), nodes=["h1"])


# ---- memory of nodes
def two_nodes() -> MemoryLedger:
    return MemoryLedger([Pool(name=f"{node}/GPU0", capacity=24 * GIB) for node in ("h1", "h2")])


def needs(amount: int) -> MemoryNeed:
    return MemoryNeed(options=({"h1/GPU0": amount}, {"h2/GPU0": amount}))


def test_claim_of_a_lost_process_stays_held_and_the_service_is_planned_elsewhere() -> None:
    ledger = two_nodes()

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        entry = world.supervisor.scheduler.services["a"]
        assert dict(entry.claim) == {"h1/GPU0": 20 * GIB}

        world.launcher.lose("h1")
        await world.until("a", "stopped")
        assert ledger.free("h1/GPU0") == 4 * GIB
        await world.supervisor.load("a")
        assert dict(entry.claim) == {"h2/GPU0": 20 * GIB}
        assert ledger.free("h1/GPU0") == 4 * GIB

        world.launcher.restore("h1")
        assert ledger.free("h1/GPU0") == 24 * GIB

    run_scenario(scenario, service("a", memory=needs(20 * GIB)), nodes=["h1", "h2"], memory=ledger)


def test_service_that_restarts_by_itself_leaves_its_claim_on_the_lost_node() -> None:
    ledger = two_nodes()
    spec = service("a", memory=needs(20 * GIB), restart="permanent")

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.lose("h1")
        await world.until("a", "backoff")
        await world.until("a", "ready")

        assert (ledger.free("h1/GPU0"), ledger.free("h2/GPU0")) == (4 * GIB, 4 * GIB)
        assert world["a"].node == "h2"

    run_scenario(scenario, spec, nodes=["h1", "h2"], memory=ledger)


def test_another_service_does_not_get_the_memory_of_a_lost_process() -> None:
    """It waits, and the queue says for what; the return of the node lets it start."""
    ledger = MemoryLedger([Pool(name="h1/GPU0", capacity=24 * GIB)])
    need = MemoryNeed(options=({"h1/GPU0": 20 * GIB},))

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.lose("h1")
        await world.until("a", "stopped")
        client = world.client("b")
        again = world.client("a")
        await anyio.sleep(5.0)
        waiting = {request.service: request.why for request in world.supervisor.scheduler.queue}
        assert "a lost on h1" in waiting["b"]
        assert waiting["a"] == "a may still run on h1, which was lost"

        world.launcher.restore("h1")
        await world.until("b", "ready")
        await world.moment()

        assert client.outcome == "served"
        again.leave()
        client.finish()

    run_scenario(
        scenario, service("a", memory=need), service("b", memory=need), nodes=["h1"], memory=ledger
    )


def test_uncertain_end_without_a_node_holds_nothing() -> None:
    """A local process that survived SIGKILL until the launcher was closed has no node."""

    async def scenario(world: World) -> None:
        await world.supervisor.load("a")
        world.launcher.crash("a", Exit(certain=False))
        await world.until("a", "backoff")

        assert world.supervisor.nodes.lost == {}
        with pytest.raises(RequestError):
            raise world["a"].refusal_now()

    run_scenario(scenario, service("a"))
