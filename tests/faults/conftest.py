"""Real proxies, as in tests/e2e; each test's end proves that nothing of them is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.swapchart_process import Journal, Proxies, Serve


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    proxies = Proxies(tmp_path_factory.mktemp("proxies"))
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


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Where upstreams and hooks of one test write what happens to them."""
    return Journal(tmp_path / "journal")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
