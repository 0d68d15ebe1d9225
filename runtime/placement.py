"""Placement: how a process is told on which GPUs it was given memory.

Variables of the environment limit a process to the GPUs of its place, by UUID where the vendor has
them, because CUDA and the driver number GPUs differently. A command that contains ``${GPU}`` or
``${GPUS}`` gets their numbers instead.

Source: CUDA Programming Guide, CUDA Environment Variables; ROCm documentation, GPU isolation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .memory import Amounts
from .ports import Command

_ONE, _ALL = "${GPU}", "${GPUS}"


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
