"""Ports of tests that run beside each other."""

from __future__ import annotations

import pytest
from tools.net import port_block


@pytest.mark.parametrize("worker", ["", "gw0", "gw1"])
def test_port_block_of_two_runs_beside_each_other_differ(
    monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    """Each draws from its own part of the range, and so do the processes of one run."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    monkeypatch.setenv("SWAPCHART_TEST_PORTS", "0-25")
    low = [port_block(32) for _ in range(50)]
    monkeypatch.setenv("SWAPCHART_TEST_PORTS", "25-100")
    high = [port_block(32) for _ in range(50)]

    assert max(low) + 32 <= min(high)
