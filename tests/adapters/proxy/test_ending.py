"""Endless streams, such as events and logs, do not delay a shutdown."""

from __future__ import annotations

import time

import pytest
from tools import raw
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_shutdown_with_listeners_is_not_delayed(serve: Serve, server: str) -> None:
    """With logs and events being listened to, the proxy ends as fast as without, and cleanly."""
    proxy = serve({"a": demo_model("a")}, server=server)
    proxy.chat("a")
    listeners = []
    for target in ("/api/events", "/logs/stream", "/logs/stream/a"):
        listener = raw.Connection(proxy.port, timeout_s=20.0)
        listener.request("GET", target)
        listeners.append((listener, listener.read_head()))
    began = time.monotonic()
    code = proxy.stop()
    took = time.monotonic() - began

    assert code == 0
    assert took < 3.0  # the server's own limit for what does not end
    assert "cutting them off" not in proxy.output()
    for listener, head in listeners:
        assert listener.read_body(head).body  # with the last chunk, or this raises
        listener.close()
