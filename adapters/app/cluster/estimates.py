"""Estimates of memory of models on nodes, made there, where their files are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from ....runtime import EngineError
from ....runtime.ports import Node
from ...config import ModelConfig
from ...memory.elsewhere import MODULES
from .memory import NodeEstimate, gpus_of, is_allowed, is_declared

log = logging.getLogger(__name__)


class NodeFunctions(Protocol):
    """Calls functions on nodes; see `RayLauncher.apply`."""

    async def apply(
        self, node: str, modules: Sequence[str], function: str, arguments: Sequence[object]
    ) -> Any:
        """Call a function on a node.

        Raises:
            EngineError: The node does not respond, or the function has raised an exception.
        """
        ...


#: Model, command, variables and node.
_Key: TypeAlias = tuple[str, tuple[str, ...], tuple[tuple[str, str], ...], str]


class NodeEstimates:
    """Estimates of all models on all nodes; each is made once, and again when a node is back."""

    def __init__(self, functions: NodeFunctions) -> None:
        self._functions = functions
        self._found: dict[_Key, NodeEstimate] = {}

    def of(self, model: ModelConfig) -> dict[str, NodeEstimate]:
        """Return what is known of *model*, by node."""
        own = _key(model, "")[:-1]
        return {key[-1]: found for key, found in self._found.items() if key[:-1] == own}

    def forget(self, node: str) -> None:
        """Forget what was estimated on *node*, where files may have changed."""
        self._found = {key: found for key, found in self._found.items() if key[-1] != node}

    async def make(self, models: Iterable[ModelConfig], nodes: Sequence[Node]) -> bool:
        """Make the estimates that are missing; return True if there is a new one."""
        is_new = False
        for model in models:
            if model.nodes is None or is_declared(model):
                continue
            for node in nodes:
                if is_allowed(model.nodes, node) and _key(model, node.name) not in self._found:
                    made = await self._make(model, node)
                    if made is not None:
                        self._found[_key(model, node.name)] = made
                        is_new = True
        return is_new

    async def _make(self, model: ModelConfig, node: Node) -> NodeEstimate | None:
        """Return the estimate of *model* on *node*; None if it does not respond."""
        gpus = {name: int(node.capacity[name]) for name in gpus_of(node)}
        places: list[dict[str, int]] = [{name: size} for name, size in gpus.items()]
        if len(gpus) != 1:
            places.append(gpus)
        arguments = [[*model.argv], dict(model.environment), places]
        try:
            answer = await self._functions.apply(node.name, MODULES, "estimates", arguments)
        except EngineError as error:
            log.info("node %s: no estimate of %s: %s", node.name, model.id, error)
            return None
        found = [each for each in answer["found"] if each is not None]
        if not found:
            why = answer["problem"] or "its command does not say it"
            log.info(
                "node %s: the memory of %s cannot be estimated there: %s", node.name, model.id, why
            )
            return NodeEstimate()
        first = found[0]
        return NodeEstimate(
            places=tuple({name: int(n) for name, n in each["amounts"].items()} for each in found),
            note=first["note"], files=first["files"], advice=first["advice"],
        )  # fmt: skip


def _key(model: ModelConfig, node: str) -> _Key:
    return model.id, model.argv, tuple(sorted(model.environment.items())), node
