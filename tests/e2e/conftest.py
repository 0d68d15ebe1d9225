"""Real proxies on real processes; after each test none of them may be left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tools.browser import launched
from tools.fixtures import journal, pids_cgroup, place, serve, serve_module
from tools.ray_fixtures import cluster, own_cluster

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["cluster", "journal", "own_cluster", "pids_cgroup", "place", "serve", "serve_module"]


@pytest.fixture(params=["hypercorn", "uvicorn"])
def server(request: pytest.FixtureRequest) -> str:
    """Server in front, where it matters."""
    name: str = request.param
    return name


@pytest.fixture(params=["hypercorn", "hypercorn --stock", "uvicorn", "uvicorn --stock"])
def layer(request: pytest.FixtureRequest) -> str:
    """HTTP layer, where it matters: under each server ours and its own."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; see `chromium_path`."""
    with launched() as found:
        yield found
