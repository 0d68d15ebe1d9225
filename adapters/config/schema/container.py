"""Keys of a container, as its author writes them; ``build_container`` makes the value."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from .fields import CommandLine, Filled, Seconds
from .section import BeforeValidator, Field, Section, refuse


def _as_gpus(value: object) -> object:
    if isinstance(value, (list, tuple)) and value and all(str(item).strip() for item in value):
        return tuple(str(item) for item in value)
    if value == "all" or (type(value) is int and value > 0):
        return value
    if isinstance(value, str) and value.isdecimal() and int(value) > 0:
        return int(value)
    raise refuse("expected all, a number of GPUs, or a list of their numbers or UUIDs")


#: ``all``, a number of GPUs, or the GPUs by number, UUID or CDI name.
Gpus: TypeAlias = Annotated[
    int | str | tuple[str, ...],
    BeforeValidator(_as_gpus, json_schema_input_type=Literal["all"] | int | tuple[int | str, ...]),
]


class ContainerSection(Section):
    """A container that a container engine runs, in place of `cmd`."""

    image: Filled
    """Image of the server. Example: `image: "vllm/vllm-openai:v0.11.0"`"""
    args: CommandLine = ()
    """Arguments for the image, as text that is split without a shell, or as a list.

    Example: `args: "--port ${PORT} -m /models/qwen.gguf"`
    """
    entrypoint: CommandLine = ()
    """Program in place of the image's, with its first arguments.

    Example: `entrypoint: /app/llama-server`
    """
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port on which the server listens in the container; by default `${PORT}`. The host's
    `127.0.0.1:${PORT}` leads to it, unless `network` is `host`, `none` or another container's.

    Example: `port: 8000`
    """
    network: str = ""
    """Network of the engine, such as `host`; by default the engine's own.

    Example: `network: host`
    """
    gpus: Gpus = ()
    """GPUs of NVIDIA: `all`, a number of them, or a list of numbers, UUIDs or CDI names; by
    default none.

    Example: `gpus: all`
    """
    devices: tuple[Filled, ...] = ()
    """Further devices. Example: `devices: [/dev/kfd, /dev/dri]`"""
    volumes: tuple[Filled, ...] = ()
    """Folders and volumes. Example: `volumes: ["/models:/models:ro"]`"""
    user: str = ""
    """User of the server in the container; by default the image's.

    Example: `user: "1000:1000"`
    """
    workdir: str = ""
    """Working directory; by default the image's. Example: `workdir: /app`"""
    shm_size: str = ""
    """Size of `/dev/shm`; by default the engine's, 64 MB. Example: `shmSize: 8g`"""
    stop_signal: str = ""
    """Signal that stops the server, `unloadTimeout` seconds before SIGKILL; by default the
    image's, or SIGTERM.

    Example: `stopSignal: SIGINT`
    """
    init: bool = False
    """Run an init process as process 1, for a server that ignores signals or leaves zombies.

    Example: `init: true`
    """
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] | None = None
    """Name of the container; by default one of the proxy and the model.

    Example: `name: qwen`
    """
    health: CommandLine = ()
    """Command in the container that succeeds when the server is ready, in place of the HTTP
    request to `checkEndpoint`.

    Example: `health: curl -f http://127.0.0.1/health`
    """
    pull: Literal["missing", "always", "never"] = "missing"
    """When the image is pulled: `missing` does so before a start that lacks it, `always` before
    each start. The log of the model shows the progress, and `startTimeout` does not count it.

    Example: `pull: never`
    """
    pull_timeout: Seconds = 3600.0
    """Most seconds to pull the image. Example: `pullTimeout: 600`"""
    options: tuple[str, ...] = ()
    """Further options of the engine's command `create`, one item for each word.

    Example: `options: [--ipc, host, --memory, 16g]`
    """
