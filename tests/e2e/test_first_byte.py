"""`liveness.firstByte` with a real server that stops responding before the first byte."""

from __future__ import annotations

from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow

RESTART = {"policy": "transient", "backoff": 0.1}


def test_first_byte_of_a_hung_server_restarts_it(serve: Serve, server: str) -> None:
    """The client gets 504, the process is replaced, and the next request is served."""
    liveness = {"firstByte": 1}
    model = demo_model("a", "--hang-after-seconds", "2", liveness=liveness, restart=RESTART)
    proxy = serve({"a": model}, server=server)
    assert proxy.chat("a").status == 200
    pid = proxy.running()["a"]["pid"]
    wait_until(lambda: "hang: as requested" in proxy.call("GET", "/logs").body.decode())

    answer = proxy.chat("a")

    assert answer.status == 504
    assert b"no response" in answer.body
    proxy.wait_state("a", "ready")
    wait_until(lambda: proxy.running().get("a", {}).get("incarnation") == 2)
    proxy.wait_state("a", "ready")
    assert proxy.running()["a"]["pid"] != pid
    assert proxy.chat("a").status == 200
    history = proxy.get("/api/models/a/history")
    assert "a response had not begun after 1 s" in str(history)


def test_response_header_timeout_alone_restarts_nothing(serve: Serve) -> None:
    """`timeouts.responseHeader` ends the request, and so does the shorter one of both."""
    limits: dict[str, Any] = {"timeouts": {"responseHeader": 1}, "liveness": {"firstByte": 60}}
    proxy = serve({"a": demo_model("a", "--hang-after-seconds", "1", restart=RESTART, **limits)})
    assert proxy.chat("a").status == 200
    wait_until(lambda: "hang: as requested" in proxy.call("GET", "/logs").body.decode())

    assert proxy.chat("a").status == 504
    assert proxy.running()["a"]["incarnation"] == 1
    assert proxy.state("a") == "ready"


def test_first_byte_limits_no_response_that_has_begun(serve: Serve) -> None:
    """A stream that goes on for longer than the limit is not cut."""
    proxy = serve({"a": demo_model("a", rate=20, liveness={"firstByte": 1}, restart=RESTART)})

    with proxy.open_stream("a", 40) as stream:
        pieces = 0
        while stream.read_chunk():
            pieces += 1

    assert pieces >= 40
    assert proxy.running()["a"]["incarnation"] == 1
