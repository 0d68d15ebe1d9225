"""Nodes of a scripted launcher, which a test loses and restores."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import PlacementError
from .ports import Command, Endpoint, Node

_FIRST_PORT = 40000


class ScriptedNodes:
    """Nodes on which scripted processes are placed: the first one that is allowed.

    Args:
        names: Names of the nodes; without any, processes are on no node.

    Attributes:
        lost: Nodes that are lost at present.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self.lost: set[str] = set()
        self._last_port = _FIRST_PORT

    def place(self, command: Command) -> Endpoint | None:
        """Return where *command* starts; None without nodes.

        Raises:
            PlacementError: Each node is lost, to be avoided, or not allowed.
        """
        if not self._names:
            return None
        placement = command.placement
        allowed = [name for name in self._names if not placement.nodes or name in placement.nodes]
        if not allowed:
            names = ", ".join(placement.nodes)
            raise PlacementError(f"there is no node {names}", is_infeasible=True)
        free = [name for name in allowed if name not in self.lost | placement.avoid]
        if not free:
            raise PlacementError(f"no room on {', '.join(allowed)}")
        self._last_port += 1
        return Endpoint(self._address(free[0]), self._last_port, free[0])

    def node(self, name: str) -> Node:
        """Return node *name*."""
        return Node(name=name, address=self._address(name), is_alive=name not in self.lost)

    def all(self) -> tuple[Node, ...]:
        """Return all nodes."""
        return tuple(self.node(name) for name in self._names)

    def _address(self, name: str) -> str:
        return f"10.0.0.{self._names.index(name) + 1}"
