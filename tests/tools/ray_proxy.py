"""A process that runs a `RayLauncher` until it is killed: ``python -m tools.ray_proxy``.

Arguments: address of the cluster, name in it, and a JSON list of commands (``script``, ``node``,
``lease_s``, ``memory``, ``wait_s``). It prints a JSON line for each that has started.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import anyio

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.ray.launcher import RayLauncher
from swapchart.runtime import Command, LaunchError
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Placement, Resources


async def _get(url: str, timeout_s: float) -> tuple[int | None, str]:
    raise NotImplementedError(url, timeout_s)


async def _start(launcher: RayLauncher, number: int, wanted: dict[str, Any]) -> None:
    command = Command(
        argv=("sh", "-c", wanted["script"]), label=f"m{number}", incarnation=number + 1,
        lease_s=wanted.get("lease_s", 0.0), grace_s=1.0,
        resources=Resources(memory=wanted.get("memory", {})),
        placement=Placement(nodes=(wanted["node"],), wait_s=wanted.get("wait_s", 0.0)),
    )  # fmt: skip
    try:
        process = await launcher.start(command, LogRing(1 << 20))
    except LaunchError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    else:
        print(json.dumps({"pid": process.pid, "id": process.id}), flush=True)


async def _main(address: str, name: str, commands: list[dict[str, Any]]) -> None:
    async with (
        LocalLauncher(guard=False) as local,
        RayLauncher(local, _get, address=address, cluster=name) as launcher,
        anyio.create_task_group() as tasks,
    ):
        print(json.dumps({"open": True}), flush=True)
        for number, wanted in enumerate(commands):
            tasks.start_soon(partial(_start, launcher, number, wanted))
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
