"""The machine of the proxy, as a node."""

from __future__ import annotations

import os
import socket
from functools import cache

from ...runtime.ports import Node


@cache
def own_node_name() -> str:
    """Return the host name of this machine."""
    return socket.gethostname() or "localhost"


def own_node() -> Node:
    """Return this machine as a node; its memory pools are read by the memory meter."""
    return Node(
        name=own_node_name(), address="127.0.0.1", capacity={"cpus": float(os.cpu_count() or 1)},
        is_own=True,
    )  # fmt: skip
