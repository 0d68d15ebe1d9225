"""Monitoring of the machine, and ``/metrics``."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tools.asgi import Bench, proxied, run_proxied
from tools.net import wait_until_async

from swapchart import runtime
from swapchart.adapters.http1.client.errors import Stage
from swapchart.adapters.proxy.accounting.metrics import EXITS, OUTCOMES, TOKENS, Metrics
from swapchart.adapters.proxy.histogram import Histogram
from swapchart.adapters.proxy.models.definitions import PeerDefinition
from swapchart.adapters.proxy.monitoring.gpus import amd_gpus, nvidia_gpu
from swapchart.adapters.proxy.monitoring.hardware import HardwareProbe
from swapchart.adapters.proxy.monitoring.host import HostSampler, Sample, Samples
from swapchart.adapters.proxy.options import ProxyOptions
from swapchart.adapters.proxy.query import parse_time
from swapchart.runtime import Command, Hook, RunAction, ServiceSpec, Timings
from swapchart.runtime.lifecycle_requests import _FAILURES
from swapchart.runtime.scheduling import EVICTION_CAUSES

SAMPLED = ProxyOptions(performance_every_s=5.0)


async def metrics(bench: Bench) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await bench.client.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def of(found: Any, metric: str, /, **labels: str) -> float:
    value: float = found[metric, frozenset(labels.items())]
    return value


def _evictions(found: Any, model: str) -> float:
    labels = ({"model": model, "cause": cause} for cause in EVICTION_CAUSES)
    return sum(of(found, "swapchart_evictions_total", **each) for each in labels)


# ---- /metrics
def test_metrics_count_requests_tokens_and_states() -> None:
    """What models were asked, how that went and what state they are in, by model."""

    async def main(bench: Bench) -> None:
        for name in ("a", "a", "b"):
            await bench.client.chat(name)
        found = await metrics(bench)

        assert of(found, "swapchart_requests_total", model="a", outcome="200") == 2
        assert of(found, "swapchart_request_duration_seconds_count", model="a") == 2
        assert of(found, "swapchart_request_wait_seconds_count", model="b") == 1
        assert of(found, "swapchart_request_first_byte_seconds_bucket", model="b", le="+Inf") == 1
        assert of(found, "swapchart_response_bytes_total", model="a") == 22
        assert of(found, "swapchart_model_state", model="b", state="ready") == 1
        assert of(found, "swapchart_model_state", model="b", state="stopped") == 0
        assert of(found, "swapchart_model_state", model="a", state="ready") == 0
        assert of(found, "swapchart_requests_in_flight", model="b") == 0
        assert of(found, "swapchart_queue_length") == 0
        for cause in EVICTION_CAUSES:
            evictions = of(found, "swapchart_evictions_total", model="a", cause=cause)
            assert evictions == (cause == "rule")
        assert of(found, "swapchart_process_exits_total", model="a", how="asked") == 1
        assert of(found, "swapchart_transitions_total", model="a", event="spawned") == 1
        assert of(found, "swapchart_swap_phase_seconds_count", model="a", phase="launching") == 1
        assert of(found, "swapchart_activity_dropped_total") == 0
        await bench.supervisor.unload("b")  # a stop for another reason is no eviction
        assert _evictions(await metrics(bench), "b") == 0

    run_proxied(main)


def test_metrics_exist_from_the_start_with_zero() -> None:
    """Before the first request each counter of each model and outcome is 0, not missing."""

    def change(spec: ServiceSpec) -> ServiceSpec:
        return replace(spec, hooks={"afterStop": (Hook(action=RunAction(argv=("true",))),)})

    async def main(bench: Bench) -> None:
        found = await metrics(bench)

        for name in ("a", "b"):
            for outcome in OUTCOMES:
                assert of(found, "swapchart_requests_total", model=name, outcome=outcome) == 0
            for kind in TOKENS:
                assert of(found, "swapchart_tokens_total", model=name, kind=kind) == 0
            for event in ("proc_exited", "spawn_failed", "start_expired", "unhealthy"):
                assert of(found, "swapchart_transitions_total", model=name, event=event) == 0
            for how in EXITS:
                assert of(found, "swapchart_process_exits_total", model=name, how=how) == 0
            labels = {"model": name, "point": "afterStop"}
            assert of(found, "swapchart_hooks_total", outcome="failed", **labels) == 0
            assert _evictions(found, name) == 0
            assert of(found, "swapchart_response_bytes_total", model=name) == 0
        await bench.client.chat("a")
        found = await metrics(bench)
        assert of(found, "swapchart_requests_total", model="a", outcome="200") == 1
        assert of(found, "swapchart_requests_total", model="b", outcome="200") == 0

    run_proxied(main, specs=change)


def test_metrics_of_peers_exist_from_the_start_with_zero() -> None:
    """The models of a peer are counted by outcome from 0 too."""
    peer = PeerDefinition(id="far", url="http://127.0.0.1:9/", models=("x",))

    async def main() -> None:
        async with proxied("a", peers=[peer]) as bench:
            found = await metrics(bench)
            labels = {"model": "far/x", "outcome": "upstream_connect"}

            assert of(found, "swapchart_requests_total", **labels) == 0

    asyncio.run(main())


def test_outcomes_name_each_code_of_the_runtime() -> None:
    """A code that the runtime refuses requests with is among the outcomes that exist with 0."""
    sources = [path.read_text() for path in Path(runtime.__file__).parent.glob("*.py")]
    codes = {
        code for text in sources for code in re.findall(r'(?:Request|Start)Error\(\s*"(\w+)"', text)
    }

    assert len(codes) > 8
    assert {*codes, *_FAILURES.values()} - {"busy"} <= {*OUTCOMES}  # refuses stops, not requests
    assert {f"upstream_{stage}" for stage in get_args(Stage)} <= {*OUTCOMES}


def test_metrics_count_hooks_and_crashes(tmp_path: Path) -> None:
    """Hooks are counted by their outcome, and ends that were not requested as crashes."""

    def change(spec: ServiceSpec) -> ServiceSpec:
        hooks = {"afterHealthy": (Hook(action=RunAction(argv=("true",))),)}
        script = f"until [ -e {tmp_path}/end ]; do sleep 0.05; done; exit 3"
        command = Command(argv=("sh", "-c", script), label=spec.name)
        return replace(spec, hooks=hooks, command=command, timings=Timings(backoff=60.0))

    async def main(bench: Bench) -> None:
        await bench.client.chat("a")
        (tmp_path / "end").touch()
        await wait_until_async(lambda: bench.supervisor["a"].state == "backoff")
        found = await metrics(bench)

        assert of(found, "swapchart_process_exits_total", model="a", how="crash") == 1
        labels = {"model": "a", "point": "afterHealthy"}
        assert of(found, "swapchart_hooks_total", outcome="ok", **labels) == 1
        assert of(found, "swapchart_hook_duration_seconds_count", **labels) == 1
        assert of(found, "swapchart_model_consecutive_failures", model="a") == 1

    run_proxied(main, specs=change)


def test_metrics_include_the_names_of_llama_swap() -> None:
    """The machine goes by llama-swap's names, if it is looked at at all."""

    async def main(bench: Bench) -> None:
        await wait_until_async(lambda: bench.app.proxy.accounting.samples.latest)
        found = await metrics(bench)
        names = {name for name, _ in found}

        assert of(found, "llamaswap_memory_total_bytes") == psutil.virtual_memory().total
        assert of(found, "llamaswap_cpu_util_percent", core="0") >= 0
        assert of(found, "llamaswap_load_average", interval="15m") >= 0
        assert names >= {
            "llamaswap_memory_used_bytes", "llamaswap_memory_free_bytes",
            "llamaswap_swap_total_bytes", "llamaswap_swap_used_bytes",
        }  # fmt: skip

    async def without(bench: Bench) -> None:
        assert not any(name.startswith("llamaswap") for name, _ in await metrics(bench))

    run_proxied(main, options=SAMPLED)
    run_proxied(without)


def test_metrics_report_gpus() -> None:
    """GPUs have labels of their own, and what is unknown of them is left out."""
    gpu = nvidia_gpu("0, RTX, GPU-1, 61, [N/A], 97, 40, 1024, 8192, 35, 220.5")
    assert gpu is not None

    async def main(bench: Bench) -> None:
        await wait_until_async(lambda: bench.app.proxy.accounting.samples.latest)
        latest = bench.app.proxy.accounting.samples.latest
        assert latest is not None
        bench.app.proxy.accounting.samples.add(replace(latest, gpus=(gpu,)))
        found = await metrics(bench)
        labels = {"id": "0", "name": "RTX", "uuid": "GPU-1"}

        assert of(found, "llamaswap_gpu_temperature_celsius", **labels) == 61
        assert of(found, "llamaswap_gpu_memory_used_bytes", **labels) == 1 << 30
        assert of(found, "llamaswap_gpu_power_draw_watts", **labels) == 220.5
        assert not any("vram_temperature" in name for name, _ in found)
        shown = (await bench.client.call("GET", "/api/performance")).json()["gpu_stats"]
        assert shown[-1]["vram_temp_c"] is None
        assert (shown[-1]["mem_used_mb"], shown[-1]["gpu_util_pct"]) == (1024, 97)

    run_proxied(main, options=SAMPLED)


def test_metrics_histograms_are_cumulative() -> None:
    """Each bucket has all that is below its end, as Prometheus wants it."""
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.add(value)

    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 12


def test_metrics_without_samples_are_valid() -> None:
    """Before anything happened the counters are empty."""
    assert not Metrics().requests


# ---- /api/performance
def test_performance_endpoint_returns_samples() -> None:
    """Samples are told, those after a moment only if that is given."""

    async def main(bench: Bench) -> None:
        samples = bench.app.proxy.accounting.samples
        await wait_until_async(lambda: samples.latest)
        found = (await bench.client.call("GET", "/api/performance")).json()
        (row,) = found["sys_stats"]

        assert found["enabled"] is True
        assert found["gpu_stats"] is None or isinstance(found["gpu_stats"], list)
        assert len(row["cpu_util_per_core"]) == psutil.cpu_count()
        assert row["mem_total_mb"] == psutil.virtual_memory().total >> 20
        assert row["mem_used_mb"] + row["mem_free_mb"] in (
            row["mem_total_mb"], row["mem_total_mb"] - 1,
        )  # fmt: skip
        assert {"load_avg_1", "load_avg_5", "load_avg_15", "swap_total_mb", "swap_used_mb"} <= (
            row.keys()
        )
        assert all(link["name"] != "lo" for link in row["net_io"])
        later = (
            await bench.client.call("GET", f"/api/performance?after={row['timestamp']}")
        ).json()
        assert len(later["sys_stats"] or []) <= 1
        future = await bench.client.call("GET", "/api/performance?after=2999-01-01T00:00:00Z")
        assert (future.json()["sys_stats"], future.json()["gpu_stats"]) == ([], [])
        for bad in ("yesterday", "2026-01-01T00:00:00"):
            answer = await bench.client.call("GET", f"/api/performance?after={bad}")
            assert answer.status == 400

    async def without(bench: Bench) -> None:
        answer = await bench.client.call("GET", "/api/performance")
        assert (answer.status, answer.json()) == (503, {"enabled": False})

    run_proxied(main, options=SAMPLED)
    run_proxied(without)


def test_performance_samples_of_an_hour_are_kept() -> None:
    """What is older than an hour goes."""
    samples = Samples()
    base = Sample(
        at=0, cores=(), memory_total=0, memory_used=0, memory_available=0, swap_total=0,
        swap_used=0, load=(0, 0, 0),
    )  # fmt: skip
    for minute in range(120):
        samples.add(replace(base, at=minute * 60.0))

    assert len(samples.recent) == 61


def test_performance_times_are_rfc3339() -> None:
    """Times may have fractions and offsets, and a plus that was not escaped."""
    assert parse_time("1970-01-01T00:00:01.5Z") == 1.5
    assert parse_time("1970-01-01T01:00:01 01:00") == 1.0


# ---- looking at a machine
_MEMINFO = """MemTotal: 100 kB
MemFree: 30 kB
MemAvailable: 40 kB
Buffers: 0 kB
Cached: 5 kB
SReclaimable: 0 kB
Active: 1 kB
Inactive: 1 kB
Shmem: 0 kB
Slab: 0 kB
SwapTotal: 20 kB
SwapFree: 15 kB
"""
_NET_DEV = """Inter-| Receive | Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop
    lo: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0
  eth0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0
"""


def test_host_sample_reports_kernel_counters(tmp_path: Path) -> None:
    """Utilization is the difference to the previous sample, memory is in bytes, lo is left out."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "dev").write_text(_NET_DEV)
    (tmp_path / "meminfo").write_text(_MEMINFO)
    stat = tmp_path / "stat"
    sampler = HostSampler(tmp_path / "drm", tmp_path)
    stat.write_text("cpu 0\ncpu0 10 0 0 80 10 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n")
    first = sampler.sample()
    stat.write_text("cpu 0\ncpu0 40 0 0 140 20 0 0 0 25 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n")
    second = sampler.sample()

    assert (first.cores, second.cores) == ((10.0, 0.0), (30.0, 0.0))
    assert (second.memory_total, second.memory_used) == (102400, 61440)
    assert (second.memory_available, second.swap_total, second.swap_used) == (40960, 20480, 5120)
    assert second.load == pytest.approx(os.getloadavg(), abs=1)
    assert [(i.name, i.received, i.sent) for i in second.interfaces] == [("eth0", 10, 20)]


def test_host_sample_without_proc_raises_os_error(tmp_path: Path) -> None:
    """Where the kernel's numbers are missing, OSError is raised, which ends the monitor alone."""
    with pytest.raises(OSError, match="No such file"):
        HostSampler(tmp_path / "drm", tmp_path).sample()


@pytest.mark.parametrize(
    "line", ["", "x, y", "No devices were found", "a, b, c, d, e, f, g, h, i, j, k"]
)
def test_gpu_output_that_is_invalid_gives_no_gpu(line: str) -> None:
    """Whatever else nvidia-smi says is no GPU."""
    assert nvidia_gpu(line) is None


def test_gpu_values_come_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi is asked where it is there; one that fails tells nothing."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo '0, A, U, 1, 2, 3, 4, 5, 6, 7, 8'\n"
        "echo '1, B, V, [N/A], , 3, 4, 5, 6, 7, 8'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    gpus = HostSampler(drm=tmp_path).gpus()
    assert [(gpu.index, gpu.name, gpu.celsius, gpu.watts) for gpu in gpus] == [
        (0, "A", 1.0, 8.0), (1, "B", None, 8.0),
    ]  # fmt: skip
    program.write_text("#!/bin/sh\nexit 9\n")
    assert HostSampler(drm=tmp_path).gpus() == []


def test_gpu_values_of_amd_come_from_sysfs(tmp_path: Path) -> None:
    """The kernel's own files tell of AMD's GPUs; other cards have no such files."""
    device = tmp_path / "card1" / "device"
    sensors = device / "hwmon" / "hwmon3"
    sensors.mkdir(parents=True)
    (tmp_path / "card0" / "device").mkdir(parents=True)
    for name, text in (
        ("mem_info_vram_total", str(8 << 30)), ("mem_info_vram_used", str(1 << 30)),
        ("gpu_busy_percent", "42\n"), ("product_name", "RX"), ("unique_id", "abc"),
        ("hwmon/hwmon3/temp1_input", "51000"), ("hwmon/hwmon3/power1_average", "30000000"),
        ("hwmon/hwmon3/pwm1", "51"), ("hwmon/hwmon3/pwm1_max", "255"),
    ):  # fmt: skip
        (device / name).write_text(text)
    (gpu,) = amd_gpus(tmp_path)

    assert (gpu.name, gpu.uuid, gpu.busy, gpu.celsius, gpu.watts) == ("RX", "abc", 42, 51, 30)
    assert (gpu.used_mib, gpu.total_mib, gpu.fan, gpu.memory_celsius) == (1024, 8192, 20, None)
    for name, text in (("power1_input", "45000000"), ("temp3_input", "62000")):
        (sensors / name).write_text(text)
    (sensors / "power1_average").unlink()  # newer cards report the momentary power only
    (gpu,) = amd_gpus(tmp_path)

    assert (gpu.watts, gpu.memory_celsius) == (45, 62)


# ---- hardware
def test_hardware_describes_this_machine() -> None:
    """The snapshot has every part, and says the same each time."""

    async def main(bench: Bench) -> None:
        first = await bench.client.call("GET", "/api/hardware")
        value = first.json()

        assert (value["schema_version"], value["capture"]["scope"]) == (1, "inference_host")
        assert value["capture"]["detector"]["name"] == "swapchart"
        assert value["architecture"]["name"] in ("x86_64", "arm64", "other")
        assert value["operating_system"]["family"] == "linux"
        assert value["environment"]["kind"] in (
            "native", "container", "virtual_machine", "wsl", "unknown",
        )  # fmt: skip
        assert value["cpu"]["logical_thread_count"] == psutil.cpu_count()
        assert 0 < value["memory"]["capacity_bytes"] <= psutil.virtual_memory().total
        assert isinstance(value["accelerators"], list)
        assert (await bench.client.call("GET", "/api/hardware")).json() == value

    run_proxied(main)


def lay(root: Path, **files: str) -> HardwareProbe:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("0dot", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return HardwareProbe(root)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, "unknown"),
        ({"proc__version": "Linux 5 Microsoft WSL2"}, "wsl"),
        ({"0dotdockerenv": ""}, "container"),
        ({"run__0dotcontainerenv": ""}, "container"),
        ({"proc__1__cgroup": "0::/kubepods/x"}, "container"),
        ({"proc__cpuinfo": "flags : fpu hypervisor sse"}, "virtual_machine"),
        ({"sys__class__dmi__id__product_name": "VMware7,1"}, "virtual_machine"),
        ({"sys__class__dmi__id__product_name": "ThinkPad"}, "native"),
    ],
)
def test_hardware_environment_is_recognized(
    tmp_path: Path, files: dict[str, str], kind: str
) -> None:
    """Containers, virtual machines and bare ones are told apart."""
    assert lay(tmp_path, **files).detect()["environment"]["kind"] == kind


def test_hardware_includes_cgroup_limits(tmp_path: Path) -> None:
    """The memory is what the control group allows, if that is less; processors are counted."""
    cpu = "\n\n".join(
        f"processor : {n}\nvendor_id : V\nmodel name : M\nphysical id : 0\ncore id : {n // 2}"
        for n in range(4)
    )
    files = {
        "proc__meminfo": "MemTotal: 1000 kB",
        "sys__fs__cgroup__memory0dotmax": "4096",
        "proc__cpuinfo": cpu,
        "etc__os-release": 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
    }
    value = lay(tmp_path, **files).detect()

    assert value["memory"]["capacity_bytes"] == 4096
    assert value["cpu"] == {
        "vendor": "V", "model": "M", "socket_count": 1, "physical_core_count": 2,
        "logical_thread_count": 4,
    }  # fmt: skip
    assert value["operating_system"]["name"] == "Debian GNU/Linux"
    assert json.dumps(value)
