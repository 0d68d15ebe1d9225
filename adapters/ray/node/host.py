"""The machine of an agent: its raylet, free ports, and the environment of commands."""

from __future__ import annotations

import os
import socket
import time

RAYLET_LOOK_S = 0.5


def exit_with(raylet: int) -> None:
    """Exit when the raylet of this node is gone; Ray leaves an actor that runs tasks alive."""
    while os.getppid() == raylet:
        time.sleep(RAYLET_LOOK_S)
    os._exit(1)


def free_port(address: str) -> int:
    """Return a port of *address* that no process listens at."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def fill(text: str, values: dict[str, str]) -> str:
    """Return *text* with the values of ``${HOST}``, ``${PORT}`` and ``${NODE}``."""
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def environment_of(pid: int) -> dict[str, str]:
    """Return the first environment of the raylet *pid*, without variables of Ray.

    A worker of Ray has more than its raylet: OMP_NUM_THREADS=1, and no GPUs in
    CUDA_VISIBLE_DEVICES.
    """
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        texts = os.fsdecode(file.read()).split("\0")
    found = dict(text.split("=", 1) for text in texts if "=" in text)
    preload = found.get("LD_PRELOAD", "").split(":")
    found["LD_PRELOAD"] = ":".join(name for name in preload if "/ray/core/" not in name)
    if not found["LD_PRELOAD"]:
        del found["LD_PRELOAD"]
    return {name: value for name, value in found.items() if not name.startswith("RAY_")}
