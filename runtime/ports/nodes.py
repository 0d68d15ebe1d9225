"""Nodes: the machines on which launchers start processes, and where a process is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import AnyStr, Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from ...dataclass import dataclass, field
from ..arguments import require_count, require_flag, require_name, require_text

#: Whether a process exists: ``unknown`` if its node or its engine does not respond.
Presence: TypeAlias = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a process is reached; known after its start.

    Attributes:
        host: Host name or address, as the proxy reaches it.
        port: Port, 1 to 65535.
        node: Name of its node; empty means the machine of the proxy.
    """

    host: str
    port: int
    node: str = ""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or value.
        """
        require_name("endpoint.host", self.host)
        require_count("endpoint.port", self.port, 1)
        require_text("endpoint.node", self.node)

    def at(self, url: str) -> str:
        """Return *url* with this host and port in place of its own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return urlunsplit(urlsplit(url)._replace(netloc=f"{host}:{self.port}"))

    def fill(self, text: AnyStr) -> AnyStr:
        """Return *text* with the values of ``${HOST}``, ``${PORT}`` and ``${NODE}``."""
        for name, value in (("HOST", self.host), ("PORT", str(self.port)), ("NODE", self.node)):
            placeholder = f"${{{name}}}"
            if isinstance(text, bytes):
                text = text.replace(placeholder.encode(), value.encode())
            else:
                text = text.replace(placeholder, value)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDevice:
    """A GPU of a node.

    Attributes:
        pool: Name of its memory pool on that node, such as ``GPU0``.
        id: UUID, or another stable id; empty if unknown.
        vendor: ``nvidia``, ``amd`` or ``intel``; empty if unknown.
        capacity: Size of its memory in bytes; 0 if unknown.
    """

    pool: str
    id: str = ""
    vendor: str = ""
    capacity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine on which a launcher starts processes.

    Attributes:
        name: Unique name: the engine's own, or the host name.
        address: Address at which the proxy reaches its processes.
        is_alive: False if its engine does not see it at present.
        capacity: Resource -> amount: ``cpus``, bytes of each memory pool such as ``RAM`` or
            ``GPU0``, and other resources of the engine by their names.
        free: The same for what is not granted yet; None means unknown.
        devices: Its GPUs.
        labels: Label -> value, as set by its administrator.
        is_own: The proxy itself runs there.
    """

    name: str
    address: str
    is_alive: bool = True
    capacity: Mapping[str, float] = field(default_factory=dict)
    free: Mapping[str, float] | None = None
    devices: tuple[NodeDevice, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    is_own: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or value.
        """
        require_name("node.name", self.name)
        require_text("node.address", self.address)
        require_flag("node.is_alive", self.is_alive)


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node joined or came back.

    No process that was reported lost there runs any more: the launcher has ended it before.
    """

    node: Node


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node does not respond.

    Attributes:
        node: The node.
        is_certain: It is gone for good: nothing runs there, and nothing will.
    """

    node: Node
    is_certain: bool = False


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """Capacity, devices or labels of a node changed."""

    node: Node


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine of a launcher responds again.

    Attributes:
        launcher: Name of the launcher.
    """

    launcher: str


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine of a launcher does not respond: nothing can be started; what runs goes on.

    Attributes:
        launcher: Name of the launcher.
        reason: What failed, in words.
    """

    launcher: str
    reason: str = ""


NodeEvent: TypeAlias = NodeUp | NodeDown | NodeChanged | EngineUp | EngineDown
