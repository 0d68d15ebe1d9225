"""Names of resources: those of the port, and those of Ray.

Ray counts amounts by name and node, and knows no memory of single GPUs. A node therefore declares
one resource for each GPU, in GiB: ``ray start --resources='{"VRAM_0": 24, "VRAM_1": 24}'``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ...runtime.ports import NodeDevice, Resources

GIB = 1 << 30
_STEPS = 10_000  # Ray counts ten-thousandths
_VRAM = re.compile(r"VRAM_(\d+)")
_GPU = re.compile(r"GPU(\d+)")
_NAMES = {"CPU": "cpus", "GPU": "gpus", "memory": "RAM"}


def capacity_of(resources: Mapping[str, float]) -> dict[str, float]:
    """Return resources of Ray by the names of the port; memory in bytes."""
    found: dict[str, float] = {}
    for name, amount in resources.items():
        if (match := _VRAM.fullmatch(name)) is not None:
            found[f"GPU{match[1]}"] = amount * GIB
        else:
            found[_NAMES.get(name, name)] = amount
    return found


def devices_of(resources: Mapping[str, float]) -> tuple[NodeDevice, ...]:
    """Return the GPUs that a node declares, in the order of their numbers."""
    numbers = {int(m[1]): n for name, n in resources.items() if (m := _VRAM.fullmatch(name))}
    return tuple(
        NodeDevice(pool=f"GPU{number}", id=str(number), capacity=int(numbers[number] * GIB))
        for number in sorted(numbers)
    )


def needs_of(resources: Resources) -> dict[str, float]:
    """Return what a process takes by the names of the port; memory in bytes."""
    needs: dict[str, float] = {**resources.custom, **resources.memory}
    if resources.gpus:
        needs["gpus"] = resources.gpus
    if resources.cpus:
        needs["cpus"] = resources.cpus
    return {name: amount for name, amount in needs.items() if amount > 0}


def reservation_of(needs: Mapping[str, float]) -> dict[str, float]:
    """Return *needs* by the names and units of Ray, rounded up to what it can count."""
    own = {name: ray for ray, name in _NAMES.items()}
    found: dict[str, float] = {}
    for name, amount in needs.items():
        if (match := _GPU.fullmatch(name)) is not None:
            found[f"VRAM_{match[1]}"] = math.ceil(amount / GIB * _STEPS) / _STEPS
        else:
            found[own.get(name, name)] = amount
    return found


def missing(needs: Mapping[str, float], capacity: Mapping[str, float]) -> str:
    """Return what of *needs* a node with *capacity* can never have, in words; else empty."""
    lack = [
        f"{name} {_amount(name, amount)} of {_amount(name, capacity.get(name, 0))}"
        for name, amount in sorted(needs.items())
        if amount > capacity.get(name, 0)
    ]
    return ", ".join(lack)


def gpu_numbers(memory: Mapping[str, int]) -> list[int]:
    """Return the numbers of the GPUs whose memory a process takes."""
    return sorted(int(m[1]) for name, n in memory.items() if n and (m := _GPU.fullmatch(name)))


def _amount(name: str, amount: float) -> str:
    is_memory = name == "RAM" or _GPU.fullmatch(name) is not None
    return f"{amount / GIB:.1f} GiB" if is_memory else f"{amount:g}"
