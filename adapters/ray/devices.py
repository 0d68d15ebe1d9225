"""Choice of the GPUs of a command that asks for a number of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ...runtime.errors import PlacementError
from ...runtime.ports import Command
from .node_choice import NodeState
from .resources import capacity_of, gpu_numbers, needs_of, reservation_of


def gpus_of(
    command: Command, state: NodeState, free: Mapping[str, float] | None, held: Collection[int]
) -> list[int]:
    """Return the numbers of the GPUs that *command* gets on a node.

    These are the GPUs of its place in memory, where it has one. Else they are the first ones of
    which nothing is reserved, as many as it asks for.

    Args:
        command: The command.
        state: The node.
        free: What is free there by resource of Ray; None means that it is unknown.
        held: Numbers of the GPUs there that processes of this proxy have.

    Raises:
        PlacementError: Too few are free at present.
    """
    count = int(command.resources.gpus)
    numbers = gpu_numbers(command.resources.memory)
    if numbers or not count:
        return numbers
    whole = {int(device.id): device.capacity for device in state.devices}
    if whole and free is not None:
        left = capacity_of(free)
        whole = {n: size for n, size in whole.items() if left.get(f"GPU{n}", 0.0) >= size}
    known = sorted(whole) if state.devices else range(int(state.capacity.get("gpus", 0)))
    usable = [number for number in known if number not in held]
    if len(usable) < count:
        text = f"{state.name}: {count} whole GPUs are needed, and {len(usable)} are free"
        raise PlacementError(text)
    return usable[:count]


def reservation(command: Command, state: NodeState, numbers: Collection[int]) -> dict[str, float]:
    """Return what *command* takes on a node by resource of Ray, with the whole GPUs *numbers*."""
    memory = dict(command.resources.memory)
    if command.resources.gpus and not gpu_numbers(memory):
        chosen = (device for device in state.devices if int(device.id) in numbers)
        memory.update({device.pool: device.capacity for device in chosen})
    found = reservation_of(needs_of(replace(command.resources, memory=memory)))
    if "GPU" not in state.facts["resources"]:  # Ray knows none of this kind
        found.pop("GPU", None)
    return found
