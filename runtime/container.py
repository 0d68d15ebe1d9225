"""Container of a service: an image and how a container engine runs it, as an immutable value.

The runtime compares it and hands it to the launcher; `adapters.process.container` makes the
arguments of the engine from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..dataclass import dataclass, field
from .arguments import (
    require_count,
    require_flag,
    require_kind,
    require_name,
    require_text,
    require_texts_by_name,
    texts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """Command line of a container engine.

    Attributes:
        command: Program and global options, at least one item.
        is_podman: It takes the options of podman; else those of docker.
    """

    command: tuple[str, ...]
    is_podman: bool = False

    def __post_init__(self) -> None:
        """Check the fields; a list becomes a tuple.

        Raises:
            ConfigError: A field has a wrong type, or there is no program.
        """
        command = texts("container.engine.command", self.command, least=1)
        object.__setattr__(self, "command", command)
        require_flag("container.engine.is_podman", self.is_podman)

    @property
    def name(self) -> str:
        """Name of the program, without its folder."""
        return self.command[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that runs in place of a local process; ``Command.argv`` are its arguments.

    Attributes:
        image: Reference of the image, as the engine takes it.
        engine: Engine that runs it.
        name: Name of the container; empty takes one of the proxy and the service.
        entrypoint: Program in place of the image's, with its first arguments; empty keeps it.
        gpus: ``all``, or ids, numbers or CDI names of GPUs; empty gives none.
        gpu_count: Number of GPUs in place of *gpus*, > 0; None means *gpus*.
        devices: Further devices, as ``--device`` takes them.
        volumes: Volumes, as ``--volume`` takes them.
        network: Network, as ``--network`` takes it; empty is the engine's default.
        publish: Host address and ports, as ``--publish`` takes them.
        user: User of its processes; empty is the image's.
        workdir: Working directory; empty is the image's.
        shm_size: Size of ``/dev/shm``; empty is the engine's.
        stop_signal: Signal that asks it to end; empty is the image's.
        init: Run an init process as process 1, which reaps and forwards signals.
        options: Further options of ``create``, put before the image.
        health: Command that is run in the container as its probe; empty means by HTTP.
        labels: Further labels.
    """

    image: str
    engine: ContainerEngine
    name: str = ""
    entrypoint: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    gpu_count: int | None = None
    devices: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    network: str = ""
    publish: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    shm_size: str = ""
    stop_signal: str = ""
    init: bool = False
    options: tuple[str, ...] = field(default=(), repr=False)
    health: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields; lists become tuples.

        Raises:
            ConfigError: A field has a wrong type, or there is no image or engine.
        """
        require_name("container.image", self.image)
        require_kind("container.engine", self.engine, ContainerEngine, "a ContainerEngine")
        for name in ("name", "network", "user", "workdir", "shm_size", "stop_signal"):
            require_text(f"container.{name}", getattr(self, name))
        for name in (
            "entrypoint", "gpus", "devices", "volumes", "publish", "options", "health",
        ):  # fmt: skip
            items = texts(f"container.{name}", getattr(self, name))
            object.__setattr__(self, name, items)
        require_count("container.gpu_count", self.gpu_count, 1, or_none=True)
        require_flag("container.init", self.init)
        require_texts_by_name("container.labels", self.labels)
