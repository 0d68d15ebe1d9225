"""Variables and placeholders by which a process is told its GPUs."""

from __future__ import annotations

import anyio
import pytest

from swapchart.runtime import Hook, MemoryLedger, RunAction, Supervisor, Timings
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import MemoryNeed, Pool, Rules
from swapchart.runtime.placement import Device, placed
from swapchart.runtime.ports import Command, LogSink
from swapchart.runtime.scripted_launcher import ScriptedProcess
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service

GIB = 1 << 30
NVIDIA = {
    "GPU0": Device(id="GPU-a", vendor="nvidia", number=0, position=0),
    "GPU1": Device(id="GPU-b", vendor="nvidia", number=1, position=1),
}
AMD = {
    "GPU2": Device(id="GPU-c", vendor="amd", number=0, position=2),
    "GPU3": Device(id="0000:0a:00.0", vendor="amd", number=1, position=3),
}
SERVER = Command(argv=("serve", "--port", "1"), env={"A": "1"})


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ({"GPU1": 5}, {"CUDA_VISIBLE_DEVICES": "GPU-b", "GGML_VK_VISIBLE_DEVICES": "1"}),
        (
            {"GPU1": 5, "GPU0": 5, "RAM": 1},
            {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "GGML_VK_VISIBLE_DEVICES": "0,1"},
        ),
        (
            {"GPU3": 5},
            {
                "ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0",
                "GGML_VK_VISIBLE_DEVICES": "3",
            },
        ),
        (
            {"GPU2": 5, "GPU3": 5},
            {
                "ROCR_VISIBLE_DEVICES": "GPU-c,1", "HIP_VISIBLE_DEVICES": "0,1",
                "GGML_VK_VISIBLE_DEVICES": "2,3",
            },
        ),
        ({"RAM": 5}, {}),
        (dict.fromkeys((*NVIDIA, *AMD), 5), {}),
    ],
)  # fmt: skip
def test_placed_command_has_variables_unless_it_may_use_all_gpus(
    place: dict[str, int], variables: dict[str, str]
) -> None:
    found = placed(SERVER, place, {**NVIDIA, **AMD}, sets_variables=True)
    assert found.env == {"A": "1", **variables}
    assert found.argv == SERVER.argv
    assert placed(SERVER, place, {**NVIDIA, **AMD}, sets_variables=False) == SERVER


def test_placed_command_with_placeholders_has_numbers_instead_of_variables() -> None:
    command = Command(argv=("docker", "--gpus", "device=${GPUS}", "-mg", "${GPU}"))
    found = placed(command, {"GPU0": 1, "GPU1": 1}, NVIDIA, sets_variables=True)
    assert found.argv == ("docker", "--gpus", "device=0,1", "-mg", "0")
    assert found.env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    everywhere = placed(command, {}, NVIDIA, sets_variables=False)
    assert everywhere.argv[2] == "device=0,1"
    assert placed(command, {"GPU1": 1}, NVIDIA, sets_variables=True).argv[-1] == "1"


def test_supervisor_tells_a_process_the_gpu_with_room() -> None:
    """The second service fits on the other GPU only, and its process is told so."""
    pools = [Pool(name=name, capacity=24 * GIB) for name in NVIDIA]
    ledger = MemoryLedger(pools, Rules(), NVIDIA)
    need = MemoryNeed(options=tuple({name: 16 * GIB} for name in NVIDIA))
    told = {}

    class Launcher(ScriptedLauncher):
        async def start(self, command: Command, log: LogSink) -> ScriptedProcess:
            told[command.label] = command.env.get("CUDA_VISIBLE_DEVICES")
            return await super().start(command, log)

    launcher = Launcher({name: ServerScript() for name in ("a", "b")})
    specs = [
        service(name, endpoint=f"http://127.0.0.1:{5800 + i}", memory=need)
        for i, name in enumerate(("a", "b"))
    ]

    async def main() -> None:
        async with Supervisor(launcher, specs, policy=no_evictions, memory=ledger) as supervisor:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervisor.load, "a")
                tasks.start_soon(supervisor.load, "b")
            assert sorted(map(str, told.values())) == ["GPU-a", "GPU-b"]

    run_virtual(main)


def test_hooks_and_stop_command_get_the_place_of_their_service() -> None:
    """All of one incarnation have it, also while the service sleeps and holds memory elsewhere."""
    pools = [Pool(name=name, capacity=24 * GIB) for name in (*NVIDIA, "RAM")]
    ledger = MemoryLedger(pools, Rules(), NVIDIA)
    need = MemoryNeed(options=({"GPU1": 16 * GIB},), asleep={"RAM": GIB})
    points = ("beforeStart", "afterHealthy", "suspend", "beforeStop", "afterStop")
    hooks = {point: (Hook(action=RunAction(argv=(point,)), timeout_s=5.0),) for point in points}
    launcher = ScriptedLauncher({"a": ServerScript()})
    spec = service(
        "a", endpoint="http://127.0.0.1:5800", memory=need, hooks=hooks, stop_argv=("stop",),
        timings=Timings(doze_limit=5.0),
    )  # fmt: skip

    async def main() -> None:
        async with Supervisor(launcher, [spec], policy=no_evictions, memory=ledger) as supervisor:
            await supervisor.load("a")
            await supervisor["a"].wait_for("asleep")
            with anyio.move_on_after(5.0):
                await supervisor.unload("a")
            launcher.crash("a")

    run_virtual(main)
    for program in (*points, "stop"):
        environments = launcher.environments(program)
        assert environments, program
        for env in environments:
            assert env.get("CUDA_VISIBLE_DEVICES") == "GPU-b", program
