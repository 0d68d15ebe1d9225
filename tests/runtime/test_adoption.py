"""Adoption: a supervisor takes over a process that an earlier one has left running."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.virtual import World, hook, run_scenario

from swapchart.runtime import Command, MemoryLedger, ServiceSpec, Timings
from swapchart.runtime.adoption import RunFacts, digest_of_spec
from swapchart.runtime.leaving import ending_of, facts_of
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.ports import Ending, Exit, NodeProcess
from swapchart.runtime.scripted_launcher import ScriptedProcess
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, service

HOOKS = {
    point: (hook(point),)
    for point in ("beforeStart", "afterStart", "afterHealthy", "beforeStop", "afterStop")
}
ASLEEP = {"suspend": (hook("doze"),), "wake": (hook("wake"),)}
GIB = 1 << 30
WEB = service("web", hooks={**HOOKS, **ASLEEP})
Scenario = Callable[[World], Coroutine[Any, Any, None]]


async def left_running(world: World, spec: ServiceSpec = WEB) -> ScriptedProcess:
    """Start a process as an earlier supervisor would have."""
    return await world.launcher.start(spec.command, LogRing())


def known(spec: ServiceSpec = WEB, **more: Any) -> RunFacts:
    return RunFacts(**{"digest": digest_of_spec(spec), "incarnation": 7, **more})


def events(world: World) -> list[str]:
    return [f"{record.source} {record.event} {record.target}" for record in world.trace]


def test_adopted_service_is_probed_and_serves_without_a_start() -> None:
    """No process and no hook of a start is run; the stop has its hooks, and counts its run."""

    async def scenario(world: World) -> None:
        process = await left_running(world)
        assert world.supervisor.adopt("web", process, known())
        client = world.client("web")
        assert world["web"].state == "adopting"
        await world.until("web", "ready")
        await world.moment()

        assert client.outcome == "served"
        assert world["web"].process is process
        assert process.probes == 1
        client.finish()
        await world["web"].stop()
        assert world.launcher.count("spawn") == 1
        assert world.launcher.programs() == ["beforeStop", "afterStop"]
        (first, _) = world.launcher.environments("beforeStop") * 2
        assert first["SWAPCHART_INCARNATION"] == "7"
        world.client("web", hold_s=0.0)
        await world.until("web", "ready")
        assert world["web"].incarnation == 8

    run_scenario(scenario, WEB)


def test_adopted_service_whose_probe_fails_is_stopped_with_its_hooks() -> None:
    """At the limit of a start: it counts as a failure, and the next request starts it anew."""

    async def scenario(world: World) -> None:
        process = await left_running(world)
        process.is_sick = True
        assert world.supervisor.adopt("web", process, known())
        client = world.client("web")
        await world.until("web", "stopped", "backoff")

        assert client.outcome == "start_timeout"
        assert "adopting start_expired before_stop" in events(world)
        assert world.launcher.programs() == ["beforeStop", "afterStop"]

    run_scenario(scenario, WEB)


def test_adopted_process_that_has_ended_leaves_no_ghost() -> None:
    """Its end is seen like any other; a later request starts a process of its own."""

    async def scenario(world: World) -> None:
        process = await left_running(world)
        process.exit_now(Exit())
        assert world.supervisor.adopt("web", process, known())
        await world.until("web", "stopped", "backoff")
        assert not world.launcher.live
        client = world.client("web")
        await world.until("web", "ready")
        await world.moment()

        assert client.outcome == "served"
        assert world.launcher.count("spawn") == 2
        client.finish()

    run_scenario(scenario, WEB)


def test_adopted_service_goes_on_sleeping_and_wakes() -> None:
    """It is not probed while it sleeps; a request wakes it by its hooks."""

    async def scenario(world: World) -> None:
        process = await left_running(world)
        assert world.supervisor.adopt("web", process, known(is_asleep=True))
        await anyio.sleep(100.0)
        assert world["web"].state == "asleep"
        assert process.probes == 0
        client = world.client("web")
        await world.until("web", "ready")
        await world.moment()

        assert client.outcome == "served"
        assert world.launcher.programs() == ["wake"]
        client.finish()

    run_scenario(scenario, WEB)


@pytest.mark.parametrize(
    "change",
    [
        {"command": Command(argv=("other",), label="web")},
        {"command": replace(WEB.command, env={"A": "1"})},
        {"command": replace(WEB.command, cwd="/tmp")},
        {"endpoint": "http://127.0.0.1:1"},
    ],
)
def test_process_of_another_specification_is_not_adopted(change: dict[str, Any]) -> None:
    """Whatever a restart would change: the process stays as it is, for the caller to end."""

    async def scenario(world: World) -> None:
        process = await left_running(world)
        changed = replace(WEB, **change)

        assert not world.supervisor.adopt("web", process, known(changed))
        assert not world.supervisor.adopt("nowhere", process, known())
        assert world["web"].state == "stopped"
        assert process.ended is None
        process.exit_now(Exit())
        await process.sweep(0)

    run_scenario(scenario, WEB)


def test_hooks_and_timings_may_change_before_an_adoption() -> None:
    """What a running process would keep, or take at once, is no reason to end it."""
    same = replace(WEB, hooks={}, timings=Timings(idle_limit=1.0), pinned=True)

    assert digest_of_spec(same) == digest_of_spec(WEB)


def test_adopted_service_keeps_its_place_and_claim() -> None:
    """Its memory is held from the beginning, where it was granted, and its hooks know the GPU."""
    need = MemoryNeed(options=({"GPU0": 6 * GIB}, {"GPU1": 6 * GIB}))
    spec = replace(WEB, memory=need)
    rival = service("rival", memory=need)
    pools = [Pool(name="GPU0", capacity=8 * GIB), Pool(name="GPU1", capacity=8 * GIB)]
    ledger = MemoryLedger(pools)

    async def scenario(world: World) -> None:
        process = await left_running(world, spec)
        facts = known(spec, claim={"GPU1": 6 * GIB, "GPU7": 1}, place={"CUDA_VISIBLE_DEVICES": "1"})
        assert world.supervisor.adopt("web", process, facts)
        await world.until("web", "ready")
        assert ledger.held("GPU1") == 6 * GIB
        assert ledger.held("GPU0") == 0
        world.client("rival", hold_s=0.0)
        await world.until("rival", "ready")

        assert ledger.held("GPU0") == 6 * GIB  # it has no room beside the adopted one
        assert world["web"].state == "ready"
        await world["web"].stop()
        (environment,) = world.launcher.environments("beforeStop")
        assert environment["CUDA_VISIBLE_DEVICES"] == "1"
        assert ledger.held("GPU1") == 0

    run_scenario(scenario, spec, rival, memory=ledger, policy=lambda target, running: frozenset())


@pytest.mark.parametrize(("before_s", "left_s"), [(40.0, 20.0), (100.0, 0.0)])
def test_idle_time_goes_on_over_an_adoption(before_s: float, left_s: float) -> None:
    """The idle limit counts from the last use, also if that was before the restart."""
    spec = replace(WEB, timings=Timings(idle_limit=60.0))

    async def scenario(world: World) -> None:
        await anyio.sleep(before_s)
        process = await left_running(world, spec)
        facts = known(spec, idle_since=anyio.current_time() - before_s)
        assert world.supervisor.adopt("web", process, facts)
        began = anyio.current_time()
        await world.until("web", "stopped")

        assert "ready idle_expired before_stop" in events(world)
        ended = next(record for record in world.trace if record.event == "idle_expired")
        assert ended.at - began == pytest.approx(left_s, abs=0.1)

    run_scenario(scenario, spec)


def test_idle_time_of_an_earlier_run_ends_with_the_first_request() -> None:
    """A request that waits for the adoption makes it busy; its end begins a new idle time."""
    spec = replace(WEB, timings=Timings(idle_limit=60.0))

    async def scenario(world: World) -> None:
        process = await left_running(world, spec)
        facts = known(spec, idle_since=anyio.current_time() - 59.0)
        assert world.supervisor.adopt("web", process, facts)
        world.client("web", hold_s=5.0)
        await anyio.sleep(60.0)

        assert world["web"].state == "ready"

    run_scenario(scenario, spec)


class Remembered(ScriptedProcess, NodeProcess):
    """A scripted process that may outlive its supervisor."""

    facts = ""
    ending: Ending | None = None
    is_detached = False

    @property
    def is_remembered(self) -> bool:
        return bool(self.facts)

    def remember(self, facts: str, ending: Ending) -> None:
        self.facts, self.ending = facts, ending

    def detach(self) -> None:
        self.is_detached = True


class Remembering(ScriptedLauncher):
    """A launcher of such processes."""

    async def start(self, command: Command, log: Any) -> Remembered:
        process = await super().start(command, log)
        process.__class__ = Remembered
        assert isinstance(process, Remembered)
        return process


def test_leave_lets_go_of_what_is_remembered_and_stops_the_rest() -> None:
    """A ready service goes on; one that starts is stopped; its facts suit the next supervisor."""
    starting = service("slow")

    async def scenario(world: World) -> None:
        web = world.supervisor["web"]
        world.client("web", hold_s=0.0)
        await world.until("web", "ready")
        world.client("slow")
        await world.until("slow", "health_checking")
        process = web.process
        assert isinstance(process, Remembered)
        facts = facts_of(web, world.supervisor.scheduler.services["web"])
        assert facts is not None
        process.remember(facts.as_text(), ending_of(web))
        world.supervisor.begin_leave()
        await world.supervisor.leave(10.0)

        assert process.is_detached
        assert process.ended is None
        assert world["slow"].is_final
        found = RunFacts.from_text(process.facts)
        assert found is not None
        assert found.digest == digest_of_spec(WEB)
        assert found.idle_since is not None
        assert process.ending is not None
        assert [step.command.argv for step in process.ending.before if step.command] == [
            ("beforeStop",)
        ]
        process.exit_now(Exit())  # it is still this supervisor's, until that ends
        await world.until("web", "stopped", "backoff")

    run_scenario(
        scenario, WEB, starting, kind=Remembering,
        servers={"slow": ServerScript(healthy_s=None)}, policy=lambda target, running: frozenset(),
    )  # fmt: skip


@given(
    st.builds(
        RunFacts, digest=st.text(), incarnation=st.integers(1), is_asleep=st.booleans(),
        place=st.dictionaries(st.text(), st.text()),
        claim=st.dictionaries(st.text(), st.integers()),
        start_s=st.floats(0, 1e9), kept_s=st.none() | st.floats(0, allow_nan=False),
    )
)  # fmt: skip
def test_facts_are_read_as_they_were_written(facts: RunFacts) -> None:
    assert RunFacts.from_text(facts.as_text()) == facts


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "{}", '{"version": 2, "digest": ""}', '{"version": 1}',
        '{"version": 1, "digest": "", "more": 1}',
    ],
)  # fmt: skip
def test_facts_of_another_version_are_none(text: str) -> None:
    assert RunFacts.from_text(text) is None
