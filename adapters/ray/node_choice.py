"""Choice of the nodes on which a command can be started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...runtime.errors import EngineError, PlacementError
from ...runtime.ports import Command, Node, NodeDevice
from .messages import Message
from .resources import capacity_of, devices_of, missing, needs_of


class NodeState:
    """A node of the cluster.

    Args:
        facts: ``id``, ``name``, ``address``, ``resources``, ``labels`` and ``is_own``.

    Attributes:
        facts: See above.
        has_agent: Its agent responds.
        is_up: It does, and nothing of earlier proxies or agents runs there.
        is_gone: It has left the cluster.
        turn: Grows when the agent responds and when it is lost.
    """

    def __init__(self, facts: Message) -> None:
        self.facts = facts
        self.has_agent = self.is_up = self.is_gone = False
        self.turn = 0

    def set_agent(self) -> None:
        """Note that its agent responds."""
        self.has_agent, self.is_gone = True, False
        self.turn += 1

    def set_down(self, *, is_gone: bool = False) -> None:
        """Note that its agent is lost, or that it has left the cluster."""
        self.has_agent, self.is_up, self.is_gone = False, False, is_gone
        self.turn += 1

    @property
    def id(self) -> str:
        """Id that Ray gave it."""
        return str(self.facts["id"])

    @property
    def name(self) -> str:
        """Name for users."""
        return str(self.facts["name"])

    @property
    def capacity(self) -> dict[str, float]:
        """Resource -> amount; memory in bytes."""
        return capacity_of(self.facts["resources"])

    @property
    def devices(self) -> tuple[NodeDevice, ...]:
        """The GPUs whose memory it declares, in the order of their numbers."""
        return devices_of(self.facts["resources"])

    def node(self, free: Mapping[str, float] | None) -> Node:
        """Return it for the runtime; *free* are resources of Ray, or None."""
        return Node(
            name=self.name, address=self.facts["address"], is_alive=self.is_up,
            capacity=self.capacity, free=None if free is None else capacity_of(free),
            devices=self.devices, labels=self.facts["labels"],
            is_own=self.facts["is_own"],
        )  # fmt: skip


def candidates(
    command: Command, nodes: Iterable[NodeState], running: Sequence[str]
) -> list[NodeState]:
    """Return the nodes that may run *command*, the preferred one first; at least one.

    Args:
        command: The command.
        nodes: All nodes.
        running: Ids of the nodes of all processes.

    Raises:
        PlacementError: No node can have room, or none of those that could may be used.
        EngineError: No node of the cluster is up.
    """
    known = _latest(nodes)
    if command.node:
        known = [state for state in known if state.name == command.node]
        if not any(state.is_up for state in known):
            raise EngineError(f"node {command.node} does not respond")
        return [state for state in known if state.is_up]
    reasons: dict[str, str] = {}
    able = [state for state in known if _is_able(command, state, reasons)]
    if not known:
        raise EngineError("the cluster has no nodes")
    if not able:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        raise PlacementError(f"no node can run it: {why}", is_infeasible=True)
    usable = [state for state in able if state.is_up and state.name not in command.placement.avoid]
    if not usable:
        names = ", ".join(sorted({state.name for state in able}))
        raise PlacementError(f"the nodes that can run it do not respond: {names}")
    order = {name: index for index, name in enumerate(command.placement.nodes)}
    return sorted(usable, key=lambda s: (order.get(s.name, 0), running.count(s.id), s.name))


def _latest(nodes: Iterable[NodeState]) -> list[NodeState]:
    """Return *nodes* without earlier lives of those that have joined anew.

    A node that has left the cluster may come back.
    """
    found = tuple(nodes)
    present = {state.name for state in found if not state.is_gone}
    return [state for state in found if not (state.is_gone and state.name in present)]


def _is_able(command: Command, state: NodeState, reasons: dict[str, str]) -> bool:
    """Return True if *state* can run *command* when nothing else does; else note the reason."""
    placement = command.placement
    if placement.nodes and state.name not in placement.nodes:
        reasons[state.name] = "it is not one of `nodes`"
    labels = state.facts["labels"]
    for name, value in placement.labels.items():
        if labels.get(name) != value:
            found = f"is {labels[name]}" if name in labels else "is not set"
            reasons[state.name] = f"label {name} {found}, not {value}"
    gpus = max(state.capacity.get("gpus", 0.0), float(len(state.devices)))
    if lack := missing(needs_of(command.resources), {**state.capacity, "gpus": gpus}):
        reasons[state.name] = f"it has less than needed: {lack}"
    return state.name not in reasons
