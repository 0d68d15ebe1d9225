"""Containers of the configuration: their launcher, leftovers, facts, and missing images."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable
from typing import Any

from ...runtime import LaunchError, Lifecycle
from ...runtime.container import Container, ContainerEngine
from ...runtime.fence import fenced
from ..config import Config, Problem
from ..config.container_engine import engine_problem
from ..process.container import ContainerLauncher, ContainerProcess
from ..process.launcher import LocalLauncher
from ..store.state_directory import StateDirectory

log = logging.getLogger(__name__)

_GPU_WORD = re.compile(r"gpu|nvidia|/kfd|/dri|/dxg|device|privileged")  # of options of an engine
_ASK_S = 2.0  # of one question of `config check` to the engine


def container_launcher(local: LocalLauncher, state: StateDirectory | None) -> ContainerLauncher:
    """Return the launcher of containers, which finds those of earlier processes of this proxy.

    Args:
        local: Launcher of the clients of engines.
        state: Its lock makes sure that no other proxy has the same id; None has no earlier ones.
    """
    owner = local.instance
    if state is not None:
        try:
            owner = state.owner()
        except OSError as error:
            log.warning("containers of an earlier run cannot be recognized: %s", error)
    return ContainerLauncher(local, owner)


async def remove_leftovers(launcher: ContainerLauncher, config: Config) -> None:
    """Remove the containers that earlier processes of this proxy left; failures are logged."""
    for engine in _engines(config):
        await fenced(_remove_leftovers, launcher, engine)


async def _remove_leftovers(launcher: ContainerLauncher, engine: ContainerEngine) -> None:
    try:
        await launcher.remove_leftovers(engine)
    except LaunchError as error:
        log.warning("no model in a container can start: %s", error)


def container_facts(of: Callable[[str], Lifecycle]) -> Callable[[str], dict[str, Any] | None]:
    """Return the function that returns the facts of a model's container; None without one."""

    def facts(model: str) -> dict[str, Any] | None:
        life = of(model)
        container = life.spec.command.container
        if container is None:
            return None
        process = life.process
        name = process.name if isinstance(process, ContainerProcess) else container.name
        return {"engine": container.engine.name, "image": container.image, "name": name}

    return facts


def container_gpus(container: Container | None) -> tuple[str, ...] | None:
    """Return the GPUs that a container is given, by number or UUID; None means it is not known."""
    if container is None:
        return None
    if container.gpu_count is not None:
        return tuple(str(number) for number in range(container.gpu_count))
    words = (*container.gpus, *container.devices, *container.options)
    if container.gpus and all("=" not in name for name in container.gpus):
        return container.gpus
    return None if any(_GPU_WORD.search(word) for word in words) else ()


def container_problems(config: Config, environment: dict[str, str]) -> list[Problem]:
    """Return a warning for each image that this machine lacks; an engine that is slow has none."""
    found, silent = [], set[tuple[str, ...]]()
    known: dict[tuple[ContainerEngine, str], str] = {}
    for model in config.models.values():
        container = model.container
        if container is None or container.engine.command in silent:
            continue
        if engine_problem(container.engine, environment):
            continue  # reported with the model
        key = container.engine, container.image
        try:
            if key not in known:
                known[key] = _image_problem(container)
        except subprocess.TimeoutExpired:
            silent.add(container.engine.command)
            continue
        if text := known[key]:
            if "is not on this machine" in text:
                text += "; its first start pulls it" if model.pull else "; pull it"
            found.append(
                Problem(
                    file="", path=f"models.{model.id}.container", line=0, column=0, message=text,
                    severity="warning",
                )
            )  # fmt: skip
    return found


def _image_problem(container: Container) -> str:
    """Return what is wrong with an image or its engine; empty if nothing is.

    Raises:
        TimeoutExpired: The engine does not respond in time.
    """
    argv = [*container.engine.command, "image", "inspect", "--format", "found", container.image]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_ASK_S,
            check=False,
        )  # fmt: skip
    except OSError as error:
        return f"{container.engine.name} cannot be run: {error.strerror}"
    errors = done.stderr.strip()
    if done.returncode == 0:
        return ""
    if "no such image" in errors.lower() or "image not known" in errors.lower():
        return f"the image {container.image} is not on this machine"
    why = errors.splitlines()[-1][:300] if errors else f"exit code {done.returncode}"
    return f"{container.engine.name} does not respond: {why}"


def _engines(config: Config) -> list[ContainerEngine]:
    engines = (model.container.engine for model in config.models.values() if model.container)
    return list(dict.fromkeys(engines))
