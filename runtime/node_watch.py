"""Nodes of a supervisor: which there are, and what may still run on those that were lost.

A service whose process was lost with its node may still hold the resources there. Until the node is
back, or gone for certain, the service is not started there again, and its claim on memory of that
node stays held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from .memory_ledger import MemoryLedger
from .ports import (
    EngineDown,
    EngineUp,
    Launcher,
    Node,
    NodeChanged,
    NodeDown,
    NodeEvent,
    NodeLauncher,
    NodeUp,
    Placement,
)

log = logging.getLogger(__name__)


class NodeWatch:
    """The nodes of one launcher.

    Args:
        launcher: The launcher; one that knows no nodes has none.
        ledger: Claims on memory; None means that memory is no condition.
        review: Called when something that requests may wait for has come free; must not raise.

    Attributes:
        lost: Node -> services of which a process may still run there.
        engines_down: Launcher -> why its engine does not respond, in words.
    """

    def __init__(
        self, launcher: Launcher, ledger: MemoryLedger | None, review: Callable[[], None]
    ) -> None:
        self.lost: dict[str, set[str]] = {}
        self.engines_down: dict[str, str] = {}
        self._launcher, self._ledger, self._review = launcher, ledger, review
        self._down: dict[str, Node] = {}
        self._stop_listening: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin to listen to the launcher."""
        if isinstance(self._launcher, NodeLauncher):
            self._stop_listening = self._launcher.listen(self._on_event)

    def close(self) -> None:
        """Stop listening; a no-op before `open`."""
        if self._stop_listening is not None:
            self._stop_listening()

    async def nodes(self) -> Sequence[Node]:
        """Return all nodes, and lost ones that the launcher no longer lists.

        Raises:
            EngineError: The engine of the launcher does not respond.
        """
        if not isinstance(self._launcher, NodeLauncher):
            return ()
        found = {node.name: node for node in await self._launcher.nodes()}
        for name, node in self._down.items():
            found.setdefault(name, node)
        return tuple(found.values())

    def note_lost(self, service: str, node: str) -> None:
        """Record that a process of *service* may still run on *node*; empty is no node."""
        if not node:
            return
        log.warning(
            "%s: its process on node %s was lost and may still run there: nothing of it is started "
            "there again until the node is back", service, node,
        )  # fmt: skip
        self.lost.setdefault(node, set()).add(service)
        if self._ledger is not None:
            self._ledger.note_lost(service, node)

    def without_lost(self, service: str, placement: Placement) -> Placement:
        """Return *placement* without the nodes where a process of *service* may still run."""
        lost = frozenset(node for node, services in self.lost.items() if service in services)
        return replace(placement, avoid=placement.avoid | lost) if lost else placement

    def free(self, node: str) -> bool:
        """Take that nothing that was lost runs on *node* any more; return False if nothing was.

        A launcher says so by its events. An operator may know it before.
        """
        services = self.lost.pop(node, None)
        if services is None:
            return False
        if self._ledger is not None:
            self._ledger.free_lost(node)
        log.info("node %s: nothing of %s runs there any more", node, ", ".join(sorted(services)))
        self._review()
        return True

    def _on_event(self, event: NodeEvent) -> None:
        match event:
            case NodeUp(node=node):
                self._down.pop(node.name, None)
                log.info("node %s is up", node.name)
                self.free(node.name)
                self._review()
            case NodeDown(node=node, is_certain=is_certain):
                log.warning("node %s is %s", node.name, "gone" if is_certain else "down")
                self._down.pop(node.name, None)
                if is_certain:
                    self.free(node.name)
                else:
                    self._down[node.name] = replace(node, is_alive=False)
            case NodeChanged():
                self._review()
            case EngineDown(launcher=launcher, reason=reason):
                log.warning("the engine of launcher %s does not respond: %s", launcher, reason)
                self.engines_down[launcher] = reason
            case EngineUp(launcher=launcher):
                if self.engines_down.pop(launcher, None) is not None:
                    log.info("the engine of launcher %s responds again", launcher)
                self._review()
