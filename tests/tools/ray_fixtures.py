"""Ray clusters for tests; skipped where Ray is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .ray_cluster import HAS_RAY, WHY_SKIPPED, RayCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of two nodes that tests leave as it is: box1 has one GPU, box2 two."""
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
    """A cluster that a test may break; its only node has one GPU."""
    del cluster  # skips
    found = RayCluster()
    try:
        found.add("box1", vram=(24,))
        yield found
    finally:
        found.close()
