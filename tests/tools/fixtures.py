"""Fixtures that folders with whole proxies share: their ``conftest.py`` imports what they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .swapchart_process import Journal, Proxies, Serve


def _serving(folder: Path) -> Iterator[Serve]:
    proxies = Proxies(folder)
    try:
        yield proxies.serve
        proxies.end()
    finally:
        proxies.close()


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts proxies; after the test none of their processes may be left."""
    yield from _serving(tmp_path_factory.mktemp("proxies"))


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """As ``serve``, for a proxy that all tests of a module share."""
    yield from _serving(tmp_path_factory.mktemp("proxies"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """File where upstreams and hooks of one test write what happens to them."""
    return Journal(tmp_path / "journal")
