"""Commands: what a launcher starts or runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...dataclass import dataclass, field
from ..arguments import (
    require_count,
    require_flag,
    require_kind,
    require_seconds,
    require_text,
    require_texts_by_name,
    require_url,
    texts,
)
from ..container import Container
from .nodes import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Share of its node that a process takes; a launcher for one machine does not look at it.

    Attributes:
        gpus: Number of GPUs, whole or, where the engine allows it, a fraction of one.
        memory: Bytes of each memory pool of the node, such as ``RAM`` or ``GPU0``.
        cpus: Number of CPU cores.
        custom: Amounts of other resources, by the names of the engine.
    """

    gpus: float = 0.0
    memory: Mapping[str, int] = field(default_factory=dict)
    cpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a process may run; a launcher for one machine does not look at it.

    Attributes:
        nodes: Names of the nodes that it may run on; empty means any.
        labels: Label -> value that the node must have.
        avoid: Nodes on which an earlier run of the service may still exist.
        wait_s: Longest time in seconds for which the engine may queue it; 0 means that a start
            without room fails at once.
    """

    nodes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    avoid: frozenset[str] = frozenset()
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to run, without a shell.

    Attributes:
        argv: Program, looked up in PATH, and arguments; at least one item, unless `is_external`
            or in a `container`, where they are the arguments of its image.
        env: Environment variables, added to those of the proxy.
        cwd: Working directory; None means that of the proxy.
        label: Name of the service that it belongs to; marks the process tree.
        listens_at: URL at which it will serve; no other process may listen there at its start.
            None skips that check. Not part of equality.
        is_external: The server runs outside of the tree of the command and is never signaled. Only
            `adapters.process.ExternalLauncher` supports it.
        container: Container in which the command runs, and whose image has the program; None runs
            it on this machine. Only `adapters.process.container.ContainerLauncher` supports it.
        launcher: Name of the launcher that starts it, for `Launchers`; empty means the first one.
        node: Node on which `Launcher.run` runs it; empty means the machine of the proxy.
        incarnation: Number of the run of the service; 0 for a hook. Not part of equality.
        resources: What it takes of its node.
        placement: Nodes that it may run on.
        start_limit_s: Longest time in seconds that `Launcher.start` may take; None is unlimited.
        grace_s: Time in seconds between SIGTERM and SIGKILL where the node ends it by itself.
        lease_s: Time in seconds that it may outlive the proxy; 0 means that it ends with it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    label: str = ""
    listens_at: str | None = field(default=None, compare=False)
    is_external: bool = False
    container: Container | None = None
    launcher: str = ""
    node: str = ""
    incarnation: int = field(default=0, compare=False)
    resources: Resources = Resources()
    placement: Placement = Placement()
    start_limit_s: float | None = None
    grace_s: float = 5.0
    lease_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields; a list of arguments becomes a tuple.

        Raises:
            ConfigError: A field has a wrong type, or there is no program.
        """
        require_flag("command.is_external", self.is_external)
        require_kind("command.container", self.container, Container, "a Container", or_none=True)
        least = 0 if self.is_external or self.container is not None else 1
        argv = texts("command.argv", self.argv, least=least)
        object.__setattr__(self, "argv", argv)
        require_texts_by_name("command.env", self.env)
        require_text("command.cwd", self.cwd, or_none=True)
        require_text("command.label", self.label)
        require_url("command.listens_at", self.listens_at, or_none=True)
        require_text("command.launcher", self.launcher)
        require_text("command.node", self.node)
        require_count("command.incarnation", self.incarnation)
        require_kind("command.resources", self.resources, Resources, "Resources")
        require_kind("command.placement", self.placement, Placement, "a Placement")
        require_seconds("command.start_limit_s", self.start_limit_s, or_none=True)
        require_seconds("command.grace_s", self.grace_s)
        require_seconds("command.lease_s", self.lease_s)

    def at(self, endpoint: Endpoint) -> Command:
        """Return the command for *endpoint*: with ``${HOST}``, ``${PORT}`` and ``${NODE}`` filled.

        A launcher that chooses node and port calls it, just before the process is started.
        """
        argv = tuple(endpoint.fill(item) for item in self.argv)
        env = {name: endpoint.fill(value) for name, value in self.env.items()}
        return replace(self, argv=argv, env=env)
