"""Command lines of container engines, made from a `Container`. Pure.

Podman and Docker take the same options here, except for GPUs: Docker has ``--gpus``, and Podman
takes CDI devices. Values of variables are not on the command line, where every user could read
them, but in the environment of the client.

Source: docker-create(1), docker-exec(1), podman-create(1), podman-exec(1); Container Device
Interface specification 0.6, kind ``nvidia.com/gpu``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from ....runtime.container import Container, ContainerEngine
from ....runtime.ports import Command

#: Labels of our containers: who owns it, for which model, by which proxy process, and which run.
OWNER, MODEL, INSTANCE, RUN = (
    f"swapchart.{name}" for name in ("owner", "model", "instance", "run")
)

#: Line that `inspect` prints before its JSON values; warnings of the engine have no such beginning.
MARK = "swapchart:"

_CDI = "nvidia.com/gpu="
_LONGEST_NAME = 37
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.-]+")
#: Variables that a client reads itself; their values are given on its command line.
_OF_CLIENTS = re.compile(
    r"(?:PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|LANG|TZ|HOSTNAME|GO[A-Z]+"
    r"|(?:LC|LD|XDG|DOCKER|PODMAN|CONTAINERS?|BUILDAH|REGISTRY|STORAGE|DBUS|SSH|SSL|NOTIFY)_\w*"
    r"|(?i:https?|no|all|ftp)_(?i:proxy))"
)


def container_name(owner: str, model: str) -> str:
    """Return the name of the container of *model*, the same at each start.

    Args:
        owner: Id of the proxy, so that two of them can run models of one name.
        model: Id of the model; what a name cannot hold is replaced, and a hash keeps it unique.
    """
    slug = _NOT_IN_NAMES.sub("-", model)[:_LONGEST_NAME].strip("-.") or "model"
    if slug != model:
        slug = f"{slug}-{hashlib.sha256(model.encode('utf-8', 'replace')).hexdigest()[:6]}"
    return f"swapchart-{owner[:8]}-{slug}"


def create_argv(
    container: Container, command: Command, *, name: str, labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the command that creates the container and prints its id; it pulls no image."""
    return (
        *container.engine.command, "create", "--name", name, "--pull", "never",
        *_pairs("--label", (f"{key}={value}" for key, value in sorted(labels.items()))),
        *_options(container, command),
        *_pairs("--env", variables(command.env)),
        *container.options,
        container.image, *container.entrypoint[1:], *command.argv,
    )  # fmt: skip


def _options(container: Container, command: Command) -> Iterator[str]:
    values = {
        "--network": container.network, "--user": container.user,
        "--workdir": container.workdir or command.cwd, "--shm-size": container.shm_size,
        "--stop-signal": container.stop_signal,
    }  # fmt: skip
    for option, value in values.items():
        if value:
            yield from (option, value)
    if container.entrypoint:
        yield from ("--entrypoint", container.entrypoint[0])
    if container.init:
        yield "--init"
    yield from _gpus(container)
    yield from _pairs("--device", container.devices)
    yield from _pairs("--publish", container.publish)
    yield from _pairs("--volume", container.volumes)


def _gpus(container: Container) -> Iterator[str]:
    names = container.gpus
    if container.gpu_count is not None:
        names = tuple(str(number) for number in range(container.gpu_count))
    if not names:
        return
    has_cdi = any("=" in each for each in names)  # Docker takes such names from version 25 on
    if container.engine.is_podman or has_cdi:
        yield from _pairs("--device", (each if "=" in each else _CDI + each for each in names))
    elif container.gpu_count is not None:
        yield from ("--gpus", str(container.gpu_count))
    elif "all" in names:
        yield from ("--gpus", "all")
    else:
        yield from ("--gpus", f'"device={",".join(names)}"')  # its value is CSV


def variables(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of ``--env``: a name alone takes the value of the client's environment."""
    for name, value in env.items():
        yield f"{name}={value}" if _OF_CLIENTS.fullmatch(name) else name


def client_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return those variables of a container that its client passes on from its environment."""
    return {name: value for name, value in env.items() if not _OF_CLIENTS.fullmatch(name)}


def start_argv(container: Container, id_: str) -> tuple[str, ...]:
    """Return the client that starts the container, prints its output and ends as it does."""
    return (*container.engine.command, "start", "--attach", id_)


def attach_argv(container: Container, id_: str) -> tuple[str, ...]:
    """Return a client that prints the output of a running container."""
    return (*container.engine.command, "attach", "--no-stdin", id_)


def inspect_argv(engine: ContainerEngine, id_: str) -> tuple[str, ...]:
    """Return the command that prints state, labels and stop signal on one line after `MARK`."""
    values = f"{MARK}[{{{{json .State}}}},{{{{json .Config}}}}]"
    return (*engine.command, "container", "inspect", "--format", values, id_)


def exec_argv(container: Container, id_: str, command: Command) -> tuple[str, ...]:
    """Return the command that runs *command* in the container and ends with its exit code."""
    place = () if command.cwd is None else ("--workdir", command.cwd)
    return (
        *container.engine.command, "exec", *place, *_pairs("--env", variables(command.env)), id_,
        *command.argv,
    )  # fmt: skip


def kill_argv(container: Container, id_: str, signal: str) -> tuple[str, ...]:
    """Return the command that sends a signal to the first process of the container."""
    return (*container.engine.command, "kill", "--signal", signal, id_)


def remove_argv(engine: ContainerEngine, id_: str) -> tuple[str, ...]:
    """Return the command that kills and removes a container with its anonymous volumes."""
    at_once = ("--time", "0") if engine.is_podman else ()  # else podman waits 10 s before it kills
    return (*engine.command, "rm", "--force", *at_once, "--volumes", id_)


def list_argv(engine: ContainerEngine, owner: str) -> tuple[str, ...]:
    """Return the command that lists the containers of *owner*, each with `MARK` before its id."""
    return (
        *engine.command, "ps", "--all", "--no-trunc", "--filter", f"label={OWNER}={owner}",
        "--format", f"{MARK}{{{{.ID}}}}",
    )  # fmt: skip


def _pairs(option: str, values: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    for value in values:
        yield from (option, value)
