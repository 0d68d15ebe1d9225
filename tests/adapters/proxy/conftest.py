"""Real proxies for what needs a real server in front."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tools.swapchart_process import Proxies, Serve


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
