"""A Ray cluster of two nodes beside its head, and launchers on it; skipped where Ray is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tools.ray_cluster import RayCluster
from tools.ray_fixtures import cluster, own_cluster

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.port import http_probe
from swapchart.adapters.ray.launcher import RayLauncher

__all__ = ["cluster", "own_cluster"]

OpenLauncher = Callable[..., AbstractAsyncContextManager[RayLauncher]]


async def http_get(url: str, timeout_s: float) -> tuple[int | None, str]:
    """GET *url* as the application does."""
    response = await http_probe.get(url, timeout_s=timeout_s)
    return response.status, response.detail


@asynccontextmanager
async def opened(address: str, name: str) -> AsyncIterator[RayLauncher]:
    """Open a launcher of the cluster at *address*."""
    async with (
        LocalLauncher(guard=False) as local,
        RayLauncher(local, http_get, address=address, cluster=name) as launcher,
    ):
        yield launcher


@pytest.fixture
async def launcher(cluster: RayCluster) -> AsyncIterator[RayLauncher]:
    """A launcher; the agents are those of the test before, as after a restart of a proxy."""
    async with opened(cluster.address, "tests") as found:
        yield found
