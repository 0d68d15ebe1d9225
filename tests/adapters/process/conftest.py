"""Launchers, and groups of processes that the tests limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tools.fixtures import pids_cgroup

from swapchart.adapters.process import LocalLauncher

__all__ = ["pids_cgroup"]


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with LocalLauncher(guard=False, subreaper=True) as launcher:
        yield launcher
