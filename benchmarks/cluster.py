"""Processes through Ray compared with processes of this machine, in one run.

Both launchers start the same demo server, in turns. Ray runs on this machine: a head and one node
at loopback addresses. A node elsewhere adds its round trips: three for a start, two for a hook.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import anyio
from lab.report import Weather, document, median, publish, table

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.port import http_probe
from swapchart.adapters.ray.launcher import RayLauncher
from swapchart.runtime import Command
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import EngineUp, Launcher, Placement, ProcessHandle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tools.ray_cluster import WHY_SKIPPED, RayCluster

MODELS = 20
#: Target -> largest ratio, milliseconds or seconds; see the table.
LIMITS = {"ready": 1.3, "stop": 1.3, "hook": 20.0, "loss": 1.0, "adoption": 1.0}


async def http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    response = await http_probe.get(url, timeout_s=timeout_s)
    return response.status, response.detail


def server(host: str, port: str) -> Command:
    """Return the command of a demo server."""
    argv = (
        sys.executable, "-m", "swapchart.adapters.demo", "--model", "m", "--host", host,
        "--port", port, "--quiet",
    )  # fmt: skip
    return Command(argv=argv, label="m", placement=Placement(nodes=("box1",)), lease_s=120.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_ready(process: ProcessHandle, url: str) -> None:
    with anyio.fail_after(60):
        while not (await process.probe(url, timeout_s=1.0)).is_ok:  # noqa: ASYNC110
            await anyio.sleep(0.002)


async def one_start(launcher: Launcher, *, is_local: bool) -> tuple[float, float, float]:
    """Return seconds from start to ready, of a stop, and of a hook, for one process."""
    port = free_port()
    command = server("127.0.0.1", str(port)) if is_local else server("${HOST}", "${PORT}")
    log = LogRing(1 << 20)
    began = time.perf_counter()
    process = await launcher.start(command, log)
    endpoint = getattr(process, "endpoint", None)
    host = f"127.0.0.1:{port}" if endpoint is None else f"{endpoint.host}:{endpoint.port}"
    await until_ready(process, f"http://{host}/health")
    ready = time.perf_counter() - began
    hook = Command(argv=("true",), node="" if is_local else "box1")
    began = time.perf_counter()
    assert (await launcher.run(hook, log)).is_clean
    hook_s = time.perf_counter() - began
    began = time.perf_counter()
    process.terminate()
    await process.sweep(10.0)
    return ready, time.perf_counter() - began, hook_s


async def one_loss(launcher: RayLauncher) -> float:
    """Return seconds from the death of a process until it is noticed."""
    command = Command(argv=("sleep", "1000"), placement=Placement(nodes=("box1",)))
    process = await launcher.start(command, LogRing(1 << 20))
    began = time.perf_counter()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    took = time.perf_counter() - began
    await process.sweep(0.0)
    return took


async def adoption(local: LocalLauncher, address: str) -> tuple[float, float]:
    """Return seconds to adopt all models: from the connection on, and with the connection."""
    async with RayLauncher(local, http_get, address=address, cluster="adopt") as launcher:
        for number in range(MODELS):
            command = Command(argv=("sleep", "1000"), label=f"m{number}", lease_s=120.0)
            process = await launcher.start(command, LogRing(1 << 20))
            process.detach()
    connected = [0.0]
    second = RayLauncher(local, http_get, address=address, cluster="adopt")
    remove = second.listen(
        lambda event: (
            connected.__setitem__(0, time.perf_counter()) if isinstance(event, EngineUp) else None
        )
    )
    began = time.perf_counter()
    async with second:
        found = await second.adopt()
        took = time.perf_counter()
        assert len(found) == MODELS, len(found)
    remove()
    return took - connected[0], took - began


async def measure(rounds: int, address: str) -> dict[str, list[float]]:
    """Return the seconds of each measurement."""
    found: dict[str, list[float]] = {}

    def note(name: str, *seconds: float) -> None:
        found.setdefault(name, []).extend(seconds)

    async with LocalLauncher() as local:
        note("adoption", *(await adoption(local, address)))
        async with RayLauncher(local, http_get, address=address, cluster="bench") as remote:
            for number in range(rounds + 1):
                for name, launcher in (("local", local), ("ray", remote)):
                    values = await one_start(launcher, is_local=name == "local")
                    if number:  # the first round warms up
                        for what, value in zip(("ready", "stop", "hook"), values, strict=True):
                            note(f"{name} {what}", value)
            for _ in range(rounds):
                note("loss", await one_loss(remote))
    return found


def report(found: dict[str, list[float]]) -> tuple[str, list[str]]:
    """Return the table, and the targets that were missed."""
    rows, missed = [], []
    for what in ("ready", "stop"):
        local, ray = median(found[f"local {what}"]), median(found[f"ray {what}"])
        paired = zip(found[f"ray {what}"], found[f"local {what}"], strict=True)
        ratio = median(a / b for a, b in paired)
        rows.append((what, f"{local * 1e3:.1f}", f"{ray * 1e3:.1f}", f"{ratio:.2f} times", "1.3"))
        missed += [what] if ratio > LIMITS[what] else []
    local, ray = median(found["local hook"]), median(found["ray hook"])
    more_ms = (ray - local) * 1e3
    rows.append(("hook", f"{local * 1e3:.1f}", f"{ray * 1e3:.1f}", f"{more_ms:+.1f} ms", "20 ms"))
    missed += ["hook"] if more_ms > LIMITS["hook"] else []
    loss = max(found["loss"])
    rows.append(("loss of a process, longest", "", f"{loss * 1e3:.1f}", "", "1 s"))
    adopted, whole = found["adoption"]
    rows.append((f"adoption of {MODELS}", "", f"{adopted * 1e3:.0f}", "", "1 s"))
    rows.append(("... with the connection", "", f"{whole * 1e3:.0f}", "", ""))
    missed += ["loss"] * (loss > LIMITS["loss"]) + ["adoption"] * (adopted > LIMITS["adoption"])
    return table(("median", "local, ms", "Ray, ms", "difference", "target"), rows), missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each measurement")
    parser.add_argument("--no-save", action="store_true", help="keep no report in results/")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("ray") is None:
        print(WHY_SKIPPED)
        return 2
    weather, cluster = Weather(), RayCluster()
    try:
        cluster.add("box1", vram=(24,))
        found = anyio.run(measure, options.rounds, cluster.address)
    finally:
        with suppress(OSError):
            cluster.close()
    weather.note()
    text, missed = report(found)
    if missed:
        text += f"\n\nMissed: {', '.join(missed)}."
    versions = {"Python": sys.version.split()[0], "ray": version("ray")}
    page = document("Cluster", "./dev bench cluster", [text], weather, versions)
    publish("cluster", page, keep=not options.no_save and not missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
