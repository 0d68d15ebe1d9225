"""Keys of the cluster, and of models that run on its nodes."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from .section import AfterValidator, BeforeValidator, Field, Section, refuse

#: Value of `nodes` for all nodes of the cluster.
ANY_NODE = "any"

_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})")


def _as_address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if text != "auto" and (match is None or not 0 < int(match[1]) < 65536):
        raise refuse("expected auto, or HOST:PORT of the cluster's head such as box1:6379")
    return text


class ClusterSection(Section):
    """The cluster on whose nodes models may run."""

    engine: Literal["ray"]
    """Engine of the nodes; it needs the extra of that name. Example: `engine: ray`"""
    address: Annotated[str, AfterValidator(_as_address)] = "auto"
    """Address of its head; `auto` is the cluster that this machine is part of.

    Example: `engine: ray, address: "box1:6379"`
    """
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "swapchart"
    """Name of this proxy in the cluster; two proxies that run at a time need different ones.

    Example: `engine: ray, name: lab`
    """


def _as_nodes(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _check_nodes(nodes: tuple[str, ...]) -> tuple[str, ...]:
    if not nodes or not all(nodes):
        raise refuse("expected any, or the names of nodes")
    if ANY_NODE in nodes and len(nodes) > 1:
        raise refuse("expected any alone, or the names of nodes")
    return nodes


#: Names of nodes, the preferred one first, or `any`.
Nodes: TypeAlias = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_nodes, json_schema_input_type=str | tuple[str, ...]),
    AfterValidator(_check_nodes),
]
