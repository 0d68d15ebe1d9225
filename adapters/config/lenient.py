"""Models that a lenient loader refuses, so that the others can be served."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .document.nodes import Mapping, Node, Scalar, Sequence, mapping_at, sequence_at
from .problems import Problem
from .values import Config

_GROUPS = ("groups",), ("routing", "router", "settings", "groups")


def model_at_fault(problem: Problem, config: Config, ids: Iterable[str]) -> str | None:
    """Return the model that has *problem*, or None if it concerns more than one model.

    Args:
        problem: An error.
        config: The configuration as far as it could be read.
        ids: Ids of all models, also of those that could not be read.
    """
    found = [name for name in ids if f"{problem.path}.".startswith(f"models.{name}.")]
    if found:
        return max(found, key=len)
    for group in config.routing.groups.values():
        for index, member in enumerate(group.members):
            if problem.path.endswith(f"groups.{group.id}.members[{index}]"):
                return config.aliases.get(member)
    return None


def without_models(root: Mapping, refused: Collection[str]) -> Mapping:
    """Return the document *root* without the models *refused*, also as members of groups."""
    models = root.items.get("models")
    if not refused or not isinstance(models, Mapping):
        return root
    kept = {name: node for name, node in models.items.items() if name not in refused}
    root = mapping_at(root, {**root.items, "models": mapping_at(models, kept)})
    aliases = {
        scalar.value
        for name in refused
        for scalar in _items(models.items[name], "aliases")
        if isinstance(scalar, Scalar)
    }
    for path in _GROUPS:
        root = _changed(root, path, {*refused, *aliases})
    return root


def _changed(node: Mapping, path: tuple[str, ...], gone: Collection[object]) -> Mapping:
    """Return *node* without the members *gone* of the groups at *path*."""
    below = node.items.get(path[0])
    if not isinstance(below, Mapping):
        return node
    if len(path) > 1:
        return mapping_at(node, {**node.items, path[0]: _changed(below, path[1:], gone)})
    groups = {name: _without_members(group, gone) for name, group in below.items.items()}
    return mapping_at(node, {**node.items, path[0]: mapping_at(below, groups)})


def _without_members(group: Node, gone: Collection[object]) -> Node:
    members = group.items.get("members") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(members, Sequence):
        return group
    kept = [
        item for item in members.items if not isinstance(item, Scalar) or item.value not in gone
    ]
    return mapping_at(group, {**group.items, "members": sequence_at(members, kept)})


def _items(model: Node, key: str) -> list[Node]:
    found = model.items.get(key) if isinstance(model, Mapping) else None
    return found.items if isinstance(found, Sequence) else []
