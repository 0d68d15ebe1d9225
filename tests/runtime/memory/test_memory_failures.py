"""Starts and runs that end because memory ran out, on the virtual clock."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import anyio
import pytest

from swapchart.runtime import MemoryLearning, RequestError, Timings
from swapchart.runtime.memory import Evidence, MemoryNeed, Shortage
from swapchart.runtime.memory_failures import MemoryFailures
from swapchart.runtime.ports import Exit
from swapchart.runtime.spec import ServiceSpec
from swapchart.runtime.testing import ServerScript, service

from .cases import GIB
from .test_memory_watch import World

LINE = "alloc_tensor_range: failed to allocate CUDA0 buffer of size 2147483648"
OOM = ServerScript(
    healthy_s=None, exit_s=0.4, exit=Exit(code=1),
    output=((0.3, LINE.encode() + b"\nexiting due to model loading error\n"),),
)  # fmt: skip
FINE = ServerScript(healthy_s=3.0)


def find(lines: Sequence[str]) -> Evidence | None:
    found = [line for line in lines if "failed to allocate" in line]
    return Evidence(line=found[-1], size=2 * GIB, kind="gpu") if found else None


class FailingWorld(World):
    """A world in which the first starts of ``b`` run out of memory.

    Attributes:
        stored: Shortages in the order in which they were reported.
    """

    def __init__(
        self, needs: dict[str, float], scripts: Sequence[ServerScript] = (OOM, FINE),
        source: Literal["declared", "learned", "estimated", "unknown"] = "learned",
        **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(needs)
        self.launcher.servers["b"] = list(scripts)
        self.stored: list[Shortage] = []
        self.ledger.failures = MemoryFailures(
            find=find, clock=lambda: 1000.0, store=self.stored.append
        )
        self.ledger.learning = MemoryLearning()
        self.specs = [
            replace(spec, **(more if spec.name == "b" else {}), memory=self.need_of(spec, source))
            for spec in self.specs
        ]

    @staticmethod
    def need_of(spec: ServiceSpec, source: Any) -> MemoryNeed:
        assert spec.memory is not None
        if spec.name != "b":
            return spec.memory
        return replace(spec.memory, source=source, key="b", advice="-c 8192 -> 4096 saves 1.0 GiB")

    async def fails(self, name: str) -> RequestError:
        with pytest.raises(RequestError) as caught:
            await self.supervisor.acquire(name)
        return caught.value

    def need(self, name: str) -> MemoryNeed:
        found = self.supervisor.scheduler.services[name].need
        assert found is not None
        return found

    def starts(self, name: str) -> int:
        return len([r for r in self.launcher.records if (r.what, r.name) == ("spawned", name)])


def test_case_17_start_without_memory_is_repeated_once_others_have_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = FailingWorld({"a": 12, "b": 11})

    async def scenario() -> None:
        await world.supervisor.load("a")
        await world.supervisor.acquire("b")
        assert world.states() == {"a": "stopped", "b": "ready"}
        assert world.supervisor.scheduler.services["b"].claim == {"GPU0": int(13.75 * GIB)}
        assert world.supervisor["b"].failures == 1
        world.supervisor.release("b")

    with caplog.at_level(logging.WARNING):
        world.run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        f"b ran out of memory: {LINE}; its next start reserves 13.8 GiB of GPU0 (before: 11.0 GiB);"
        " it is started once more after a has made room"
    ]
    assert (world.stored[0].pool, world.stored[0].amount) == ("GPU0", int(13.75 * GIB))
    assert [each.good_runs for each in world.stored] == [0, 1]
    assert world.ledger.failures.counts == {"b": 1}


def test_case_18_start_that_fails_again_alone_is_refused_with_the_sum() -> None:
    world = FailingWorld({"a": 12, "b": 11}, [OOM])

    async def scenario() -> None:
        await world.supervisor.load("a")
        error = await world.fails("b")
        assert (error.code, error.status_hint) == ("out_of_memory", 502)
        assert str(error) == (
            "b ran out of memory 0.4 s after its launch: an allocation of 2.0 GiB of GPU memory"
            " failed; it was granted 13.8 GiB of GPU0; GPU0: 24.0 GiB - 1.0 GiB reserve"
            " = 23.0 GiB free, 23.2 GiB needed (learned); no other model held memory there."
            " To run it: -c 8192 -> 4096 saves 1.0 GiB, or use a smaller context, quantization or"
            " model"
        )
        assert error.reason_line() == LINE
        assert world.starts("b") == 2
        for _ in range(3):
            assert (await world.fails("b")).code == "out_of_memory"
        tripped = await world.fails("b")
        assert (tripped.code, tripped.status_hint) == ("failed", 503)
        assert "not restarted for now: b ran out of memory" in str(tripped)
        assert world.starts("b") == 5

    world.run(scenario)


def test_case_14_start_beside_other_programs_fails_once_and_is_not_repeated() -> None:
    world = FailingWorld({"b": 6}, [OOM], source="estimated")
    world.meter.others = 20

    async def scenario() -> None:
        await anyio.sleep(6.0)
        error = await world.fails("b")
        assert error.code == "out_of_memory"
        assert "it was granted 3.0 GiB of GPU0; GPU0: 24.0 GiB - 1.0 GiB reserve" in str(error)
        assert "- 20.0 GiB other programs = 3.0 GiB free, 7.5 GiB needed" in str(error)
        assert world.starts("b") == 1
        assert world.supervisor["b"].failures == 1

    world.run(scenario)


def test_start_without_memory_names_the_models_that_hold_it() -> None:
    world = FailingWorld({"a": 12, "p": 2, "b": 9}, [OOM])
    world.specs = [replace(spec, pinned=spec.name == "p") for spec in world.specs]

    async def scenario() -> None:
        await world.supervisor.acquire("a")
        await world.supervisor.load("p")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.fails, "b")
            await anyio.sleep(8.0)
            failure = world.ledger.failures.last["b"]
            assert failure.can_retry
            assert "held by a (12.0 GiB, 1 in flight), p (2.0 GiB, pinned)" in failure.text
            (waiting,) = world.supervisor.scheduler.queue
            assert "a has 1 request in flight" in waiting.why, "it waits for a, in use"
            world.supervisor.release("a")
        assert world.starts("b") == 2

    world.run(scenario)


@pytest.mark.parametrize("restart", ["temporary", "transient", "permanent"])
def test_start_without_memory_is_repeated_after_the_eviction_whatever_the_restart_policy(
    restart: str,
) -> None:
    world = FailingWorld({"a": 12, "b": 11}, restart=restart)

    async def scenario() -> None:
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        assert world.starts("b") == 2

    world.run(scenario)
    a_ended = next(r.at for r in world.launcher.records if (r.what, r.name) == ("exit", "a"))
    assert a_ended <= [r.at for r in world.launcher.records if r.what == "spawn"][-1]


def test_start_without_memory_of_several_requests_is_repeated_for_all_of_them() -> None:
    world = FailingWorld({"a": 12, "b": 11})
    served = []

    async def request() -> None:
        async with world.supervisor.lease("b"):
            served.append("b")

    async def scenario() -> None:
        await world.supervisor.load("a")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(request)
        assert served == ["b"] * 3
        assert world.starts("b") == 2
        assert world.supervisor.scheduler.services["b"].granted == 0

    world.run(scenario)


def test_request_that_leaves_after_its_start_ran_out_of_memory_starts_nothing() -> None:
    world = FailingWorld({"a": 12, "b": 11})

    async def scenario() -> None:
        await world.supervisor.load("a")
        with anyio.move_on_after(0.45):
            await world.supervisor.acquire("b")
        await anyio.sleep(30.0)
        assert (world.starts("b"), world.states()["b"]) == (1, "stopped")
        assert world.supervisor.scheduler.services["b"].granted == 0
        assert not world.supervisor.scheduler.queue

    world.run(scenario)


@pytest.mark.parametrize(
    "script",
    [
        replace(OOM, exit=Exit(code=0)),  # it ended well
        replace(OOM, output=((0.1, b"failed to bind\n"),)),
        replace(OOM, exit_s=None),  # it lives on until its limit
    ],
)
def test_start_that_fails_for_another_reason_is_not_repeated(script: ServerScript) -> None:
    world = FailingWorld({"a": 12, "b": 11}, [script], timings=Timings(start_limit=20.0))

    async def scenario() -> None:
        await world.supervisor.load("a")
        error = await world.fails("b")
        assert error.code in ("exited", "start_timeout")
        assert world.ledger.failures.counts == {}

    world.run(scenario)


def test_start_without_memory_that_trips_the_breaker_is_refused_at_once() -> None:
    world = FailingWorld({"a": 12, "b": 11}, intensity=1)

    async def scenario() -> None:
        await world.supervisor.load("a")
        assert (await world.fails("b")).code == "out_of_memory"
        assert (world.states()["a"], world.states()["b"]) == ("ready", "sweeping")

    world.run(scenario)


def test_kill_by_the_kernel_counts_for_main_memory_only() -> None:
    kill = replace(OOM, exit=Exit(signal=9, out_of_memory=True), output=())
    world = FailingWorld({"a": 12, "b": 11}, [kill])

    async def scenario() -> None:
        await world.supervisor.load("a")
        error = await world.fails("b")
        assert error.code == "out_of_memory"
        assert "the kernel killed it because no main memory was left" in str(error)
        assert error.reason_line() == "killed by signal 9 by the kernel, out of memory"
        assert world.stored == [], "its claim is one of a GPU"

    world.run(scenario)


@pytest.mark.parametrize("ended", [Exit(code=3, out_of_memory=True), Exit(signal=9), Exit(code=1)])
def test_end_that_has_other_causes_is_no_memory_failure(ended: Exit) -> None:
    """The kernel killed another process, or another program killed this one."""
    world = FailingWorld({"b": 11}, [replace(OOM, exit=ended, output=())])

    async def scenario() -> None:
        assert (await world.fails("b")).code == "exited"

    world.run(scenario)


def test_ready_model_that_runs_out_of_memory_reserves_more_from_then_on() -> None:
    dying = replace(FINE, exit_s=20.0, exit=Exit(code=1), output=((19.0, LINE.encode() + b"\n"),))
    world = FailingWorld({"b": 8}, [dying, FINE], restart="permanent")

    async def scenario() -> None:
        await world.supervisor.load("b")
        await anyio.sleep(30.0)
        assert world.states() == {"b": "ready"}
        assert world.supervisor.scheduler.services["b"].claim == {"GPU0": 10 * GIB}
        assert world.need("b").note == "it ran out of memory with 8.0 GiB of GPU0"
        assert not world.ledger.failures.last["b"].can_retry

    world.run(scenario)
    assert world.stored[0].claim == 8 * GIB


def test_line_that_a_ready_model_wrote_long_before_its_end_is_no_evidence() -> None:
    echoed = ((10.0, LINE.encode() + b"\n" + b"served\n" * 30),)
    dying = replace(FINE, exit_s=20.0, exit=Exit(code=1), output=echoed)
    world = FailingWorld({"b": 8}, [dying, FINE])

    async def scenario() -> None:
        await world.supervisor.load("b")
        await anyio.sleep(30.0)
        assert world.ledger.failures.counts == {}

    world.run(scenario)


def test_ten_good_runs_end_a_raised_claim() -> None:
    world = FailingWorld({"a": 12, "b": 11})

    async def scenario() -> None:
        await world.supervisor.load("a")
        for run in range(10):
            await world.supervisor.load("b")
            assert world.need("b").options == ({"GPU0": int(13.75 * GIB)},), run
            (notice,) = world.ledger.failures.notices()
            assert notice.text.endswith(f"until {10 - run} more runs have gone well")
            await world.supervisor.unload("b")
        assert world.need("b").options[0]["GPU0"] < 11.5 * GIB, "as it was learned"
        assert world.ledger.failures.notices() == []

    world.run(scenario)
    assert world.stored[-1].good_runs == 10


def test_raised_claim_of_an_earlier_run_of_the_proxy_counts_and_can_be_forgotten() -> None:
    world = FailingWorld({"a": 12, "b": 11}, [FINE], source="declared")
    known = Shortage(
        model="b", key="b", pool="GPU0", at=900.0, claim=11 * GIB, amount=40 * GIB, good_runs=3
    )
    world.ledger.failures = MemoryFailures([known])

    async def scenario() -> None:
        await world.supervisor.load("a")
        await world.supervisor.load("b")
        assert world.states() == {"a": "stopped", "b": "ready"}, "alone, and not refused"
        await world.supervisor.unload("b")
        world.ledger.forget(world.supervisor.scheduler.services["b"])
        for name in ("a", "b"):
            await world.supervisor.load(name)
        assert {*world.states().values()} == {"ready"}

    world.run(scenario)


def test_unknown_model_that_fails_alone_stays_unknown() -> None:
    world = FailingWorld({"a": 12, "b": 0}, [OOM], source="unknown")

    async def scenario() -> None:
        await world.supervisor.load("a")
        assert (await world.fails("b")).code == "out_of_memory"
        assert world.starts("b") == 1
        assert world.need("b").source == "unknown"

    world.run(scenario)


def test_failure_that_is_only_observed_is_learned_and_evicts_nothing() -> None:
    world = FailingWorld({"a": 12, "b": 11})
    world.ledger.decides = False

    async def scenario() -> None:
        await world.supervisor.load("a")
        assert (await world.fails("b")).code == "out_of_memory"
        assert world.states()["a"] == "ready"
        assert world.need("b").options == ({"GPU0": int(13.75 * GIB)},)

    world.run(scenario)


def test_failure_without_pools_says_what_to_set() -> None:
    world = FailingWorld({"b": 11})
    world.ledger.pools = {}
    world.specs = [service("b", endpoint="http://127.0.0.1:5898")]

    async def scenario() -> None:
        error = await world.fails("b")
        assert error.code == "out_of_memory"
        assert str(error).endswith(
            ": an allocation of 2.0 GiB of GPU memory failed. To run it: use a smaller context,"
            " quantization or model, or set `memory: auto`, so that only models that fit together"
            " run together"
        )

    world.run(scenario)
