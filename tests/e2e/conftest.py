"""Real proxies on real processes; each test's end proves that none of them is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.swapchart_process import Journal, Proxies, Serve


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    proxies = Proxies(tmp_path)
    try:
        yield proxies.serve
        proxies.end()
    finally:
        proxies.close()


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """As ``serve``, for a proxy that all tests of a module share."""
    proxies = Proxies(tmp_path_factory.mktemp("proxies"))
    try:
        yield proxies.serve
        proxies.end()
    finally:
        proxies.close()


@pytest.fixture(params=["hypercorn", "uvicorn"])
def server(request: pytest.FixtureRequest) -> str:
    """Where the server in front matters, both are tried."""
    name: str = request.param
    return name


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Where upstreams and hooks of one test write what happens to them."""
    return Journal(tmp_path / "journal")


@pytest.fixture(params=["hypercorn", "hypercorn --stock", "uvicorn", "uvicorn --stock"])
def layer(request: pytest.FixtureRequest) -> str:
    """Where the HTTP layer matters: under each server ours and its own."""
    name: str = request.param
    return name
