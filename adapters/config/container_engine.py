"""Container engine of this machine: which one is used, and whether it is Podman or Docker."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...runtime.container import ContainerEngine

#: Variable that chooses the engine where the configuration does not.
VARIABLE = "SWAPCHART_CONTAINER_ENGINE"

_DOCKER_SOCKET = Path("/var/run/docker.sock")
_SCRIPT_BYTES = 1 << 12


def find_engine(
    configured: Sequence[str], environment: Mapping[str, str], *, socket: Path = _DOCKER_SOCKET
) -> ContainerEngine:
    """Return the engine to use, which need not be there.

    It is the configured one, else that of SWAPCHART_CONTAINER_ENGINE, else the one in PATH. If both
    are there, it is Docker where its daemon has a socket, and else Podman, which needs no daemon.

    Args:
        configured: Program and global options of `containerEngine`; empty if there are none.
        environment: Variables of the proxy.
        socket: Socket of Docker's daemon.
    """
    path, command = environment.get("PATH", os.defpath), tuple(configured)
    if not command:
        with suppress(ValueError):  # an unterminated quote
            command = tuple(shlex.split(environment.get(VARIABLE, "")))
    if not command:
        has_docker, has_podman = (shutil.which(each, path=path) for each in ("docker", "podman"))
        has_daemon = socket.exists() or "DOCKER_HOST" in environment
        command = ("docker",) if has_docker and (has_daemon or not has_podman) else ("podman",)
    is_podman = _is_podman(command[0], shutil.which(command[0], path=path) or "")
    return ContainerEngine(command=command, is_podman=is_podman)


def engine_problem(engine: ContainerEngine, environment: Mapping[str, str]) -> str:
    """Return why *engine* cannot be used and what to do; empty if its program is there."""
    if shutil.which(engine.command[0], path=environment.get("PATH", os.defpath)):
        return ""
    return (
        f"the container engine {engine.command[0]!r} is not in PATH: install podman or docker, or "
        f"name the one to use by `containerEngine` or {VARIABLE}"
    )


def _is_podman(name: str, program: str) -> bool:
    """Return True for podman, also where it is called docker (the package podman-docker)."""
    if any("podman" in Path(each).name for each in (name, os.path.realpath(program))):
        return True
    with suppress(OSError):
        with open(program, "rb") as file:  # noqa: PTH123
            head = file.read(_SCRIPT_BYTES)
        return head.startswith(b"#!") and b"podman" in head
    return False
