"""Placement: how a process is told on which GPUs it was given memory.

Variables of the environment limit a process to the GPUs of its place, by UUID where the vendor has
them, because CUDA and the driver number GPUs differently. A command that contains ``${GPU}`` or
``${GPUS}`` gets their numbers instead.

Source: CUDA Programming Guide, CUDA Environment Variables; ROCm documentation, GPU isolation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..dataclass import dataclass
from .lost_claims import node_of
from .memory import Amounts
from .ports import Command

_ONE, _ALL = "${GPU}", "${GPUS}"
_BACKEND = re.compile(r"(CUDA|ROCm|SYCL|Vulkan|MTL)(\d{1,3})")
_VENDORS = {"CUDA": "nvidia", "ROCm": "amd", "SYCL": "intel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU whose memory is a pool.

    Attributes:
        id: UUID, or another stable id.
        vendor: ``nvidia``, ``amd`` or ``intel``; empty if unknown.
        number: Number among the GPUs of its vendor, from 0.
        position: Number among all GPUs, from 0.
    """

    id: str
    vendor: str = ""
    number: int = 0
    position: int = 0

    @property
    def rocm_id(self) -> str:
        """Id for ROCm: the UUID where the device has one, else its number."""
        return self.id if self.id.startswith("GPU-") else str(self.number)


def has_placeholder(argv: Iterable[str]) -> bool:
    """Return True if a command contains a placeholder for its GPUs."""
    return any(_ONE in argument or _ALL in argument for argument in argv)


def placed(
    command: Command, place: Amounts, devices: Mapping[str, Device], *, sets_variables: bool
) -> Command:
    """Return *command* for a start at *place*.

    Args:
        command: The command as configured.
        place: Bytes by pool; placeholders become all GPUs where it holds none of them.
        devices: Pool -> GPU.
        sets_variables: The command does not say its GPUs itself.
    """
    if nodes := {node_of(pool) for pool in place} - {""}:
        return _placed_on_node(command, place, nodes.pop())
    given = [devices[pool] for pool in devices if pool in place]
    if has_placeholder(command.argv):
        numbers = [str(device.number) for device in given or devices.values()]
        argv = tuple(
            argument.replace(_ALL, ",".join(numbers)).replace(_ONE, numbers[0] if numbers else "")
            for argument in command.argv
        )
        # By default CUDA numbers the fastest GPU first, and the driver by PCI address.
        return replace(command, argv=argv, env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **command.env})
    if not sets_variables or not given or len(given) == len(devices):
        return command
    return replace(command, env={**command.env, **_variables(given)})


def _placed_on_node(command: Command, place: Amounts, node: str) -> Command:
    """Return *command* for a start on *node*, whose launcher sets the variables of its GPUs."""
    memory = {pool.rpartition("/")[2]: amount for pool, amount in place.items()}
    numbers = sorted(int(name[3:]) for name in memory if name[3:].isdecimal())
    numbers_in_words = [str(number) for number in numbers]
    argv = tuple(
        item.replace(_ALL, ",".join(numbers_in_words)).replace(_ONE, (numbers_in_words or [""])[0])
        for item in command.argv
    )
    return replace(
        command, argv=argv, resources=replace(command.resources, memory=memory),
        placement=replace(command.placement, nodes=(node,)),
    )  # fmt: skip


def _variables(given: Sequence[Device]) -> dict[str, str]:
    """Return the variables that limit a process to the GPUs *given*."""
    positions = [str(device.position) for device in given]
    variables = {"GGML_VK_VISIBLE_DEVICES": ",".join(positions)}
    nvidia = [device.id for device in given if device.vendor == "nvidia"]
    if nvidia:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(nvidia)
    amd = [device.rocm_id for device in given if device.vendor == "amd"]
    if amd:
        variables["ROCR_VISIBLE_DEVICES"] = ",".join(amd)
        # HIP counts the devices that ROCr leaves.
        variables["HIP_VISIBLE_DEVICES"] = ",".join(str(number) for number in range(len(amd)))
    return variables


def pools_of(
    names: Iterable[str], gpus: Sequence[str], devices: Mapping[str, Device]
) -> dict[str, str]:
    """Return the pool of each GPU that a process names by its backend, such as ``CUDA0``.

    Args:
        names: Names of the process; ``GPU`` is the only one that it uses.
        gpus: Pools of the GPUs that the process can use, in its order.
        devices: Pool -> GPU.

    Returns:
        Name -> pool; empty if that is not certain for each name.
    """
    names = list(names)
    if names == ["GPU"]:
        return {"GPU": gpus[0]} if len(gpus) == 1 else {}
    found = [match for name in names if (match := _BACKEND.fullmatch(name))]
    backends = {match[1] for match in found}
    if len(found) < len(names) or len(backends) != 1:
        return {}
    vendor = _VENDORS.get(backends.pop(), "")
    own = [pool for pool in gpus if not vendor or devices[pool].vendor in (vendor, "")]
    by_number = dict(enumerate(own))
    if any(int(match[2]) not in by_number for match in found):  # it numbers all GPUs
        by_number = {
            devices[pool].number if vendor else devices[pool].position: pool for pool in own
        }
    pools = {match[0]: by_number.get(int(match[2]), "") for match in found}
    return pools if all(pools.values()) else {}
