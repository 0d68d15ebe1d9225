"""Container of one model, built from its section."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias
from urllib.parse import SplitResult

from ...runtime.container import Container, ContainerEngine
from .schema.container import ContainerSection
from .schema.fields import CommandLine

Location: TypeAlias = tuple[int | str, ...]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Networks in which the ports of a container are those of the host or of another container.
_SHARED = ("host", "none", "container:", "ns:", "pod:")


class ContainerBuilder:
    """Builds the container of one model.

    Args:
        engine: Engine that runs it.
        split: (command, location) -> argv; reports commands that cannot be split.
        error: (location, message) -> None; reports a problem.
    """

    def __init__(
        self,
        engine: ContainerEngine,
        split: Callable[[CommandLine, Location], tuple[str, ...]],
        error: Callable[[Location, str], None],
    ) -> None:
        self._engine, self._split, self._error = engine, split, error

    def build(
        self, section: ContainerSection, port: int | None, proxy: SplitResult | None,
        environment: Mapping[str, str],
    ) -> Container:  # fmt: skip
        """Return the container.

        Args:
            section: The section as written.
            port: Port of the model on the host; None if its address has no port of this machine.
            proxy: Address of its server; None if it is invalid.
            environment: Variables of the server.
        """
        self._check_port(section, port, proxy, environment.values())
        gpus = section.gpus
        return Container(
            image=section.image,
            engine=self._engine,
            name=section.name or "",
            entrypoint=self._argv(section.entrypoint, "entrypoint"),
            gpus=() if isinstance(gpus, int) else (gpus,) if isinstance(gpus, str) else gpus,
            gpu_count=gpus if isinstance(gpus, int) else None,
            devices=section.devices,
            volumes=section.volumes,
            network=section.network,
            publish=_published(section, port, proxy),
            user=section.user,
            workdir=section.workdir,
            shm_size=section.shm_size,
            stop_signal=section.stop_signal,
            init=section.init,
            options=section.options,
            health=self._argv(section.health, "health"),
        )

    def args(self, section: ContainerSection) -> tuple[str, ...]:
        """Return the arguments of the image."""
        return self._argv(section.args, "args")

    def _argv(self, command: CommandLine, key: str) -> tuple[str, ...]:
        return self._split(command, ("container", key)) if command else ()

    def _check_port(
        self, section: ContainerSection, port: int | None, proxy: SplitResult | None,
        values: Iterable[str],
    ) -> None:  # fmt: skip
        """Report a server that does not learn its port, and a port that has no effect."""
        is_shared = section.network.startswith(_SHARED)
        if is_shared and section.port is not None:
            message = f"has no effect with network {section.network!r}; use `${{PORT}}` in args"
            self._error(("container", "port"), message)
        elif _is_here(port, proxy) and section.port is None:
            commands = (section.args, section.entrypoint, section.options, *values)
            texts = (each if isinstance(each, str) else " ".join(each) for each in commands)
            if not any(str(port) in text for text in texts):
                how = "" if is_shared else ", or set `port` to the one that it listens on"
                message = f"the server does not learn its port: use `${{PORT}}` in args{how}"
                self._error(("container",), message)


def _published(
    section: ContainerSection, port: int | None, proxy: SplitResult | None
) -> tuple[str, ...]:
    is_shared = section.network.startswith(_SHARED)
    if is_shared or not _is_here(port, proxy):
        return ()
    return (f"127.0.0.1:{port}:{section.port or port}",)


def _is_here(port: int | None, proxy: SplitResult | None) -> bool:
    """Return True if the proxy reaches the server by a port of this machine."""
    return port is not None and proxy is not None and proxy.hostname in _LOOPBACK


def shown_command(container: Container, args: str) -> str:
    """Return the command line that stands for a container where one is shown.

    Args:
        container: The container.
        args: Its arguments, as they may be shown.
    """
    words = [container.engine.name, "run", container.image]
    return f"{shlex.join(words)} {args}".rstrip()
