"""Errors of clusters that end the proxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runtime.errors import EngineError


class ClusterInUseError(EngineError):
    """Another proxy with the same name uses the nodes."""

    def __init__(self, cluster: str, other: Mapping[str, Any]) -> None:
        super().__init__(
            f"another proxy ({other['host']}, pid {other['pid']}) uses the cluster as "
            f"{cluster!r}: stop it, or set `cluster.name` to another name"
        )
