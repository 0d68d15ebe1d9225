"""A Ray cluster of two nodes beside its head, and launchers on it; skipped where Ray is missing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tools.ray_cluster import HAS_RAY, WHY_SKIPPED, RayCluster

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.port import http_probe
from swapchart.adapters.ray.launcher import RayLauncher

OpenLauncher = Callable[..., AbstractAsyncContextManager[RayLauncher]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster that tests leave as it is."""
    if not HAS_RAY:
        if os.environ.get("REQUIRE_RAY") == "1":
            pytest.fail(WHY_SKIPPED, pytrace=False)
        pytest.skip(WHY_SKIPPED)
    found = RayCluster()
    try:
        found.add("box1", vram=(24,), labels={"weights": "all"})
        found.add("box2", vram=(24, 24))
        yield found
    finally:
        found.close()


@pytest.fixture
def own_cluster(cluster: RayCluster) -> Iterator[RayCluster]:
    """A cluster that a test may break."""
    del cluster  # skips
    found = RayCluster()
    try:
        found.add("box1", vram=(24,))
        yield found
    finally:
        found.close()


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
