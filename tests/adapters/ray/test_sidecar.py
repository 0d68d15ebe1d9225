"""The sidecar of a proxy that was killed."""

from __future__ import annotations

import os

import pytest
from tools.ray_cluster import HAS_RAY, WHY_SKIPPED

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(not HAS_RAY, reason=WHY_SKIPPED),
]  # fmt: skip


def test_event_for_a_proxy_that_is_gone_does_not_end_the_sidecar() -> None:
    """It has to tell the agents that the proxy is gone first, or models outlive it."""
    from swapchart.adapters.ray.sidecar import Sidecar

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as output:
        sidecar = Sidecar(output)
        sidecar.emit({"event": "log"})
        sidecar.emit({"event": "log"})
