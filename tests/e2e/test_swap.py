"""The main job: a request makes its model ready, whatever runs, and gets its answer unharmed."""

from __future__ import annotations

import pytest
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow


def test_a_request_swaps_models(serve: Serve, server: str) -> None:
    """A request for a stopped model evicts the running one, starts its own, and is answered."""
    proxy = serve({name: demo_model(name) for name in "ab"}, server=server)

    for name in "abab":
        answer = proxy.chat(name)

        assert answer.status == 200
        assert answer.json()["model"] == name
        assert [*proxy.running()] == [name]
    assert proxy.running()["b"]["incarnation"] == 2


def test_a_second_request_joins_the_start(serve: Serve) -> None:
    """Requests for a model that loads wait for the one start."""
    proxy = serve({"a": demo_model("a", "--load-seconds", "0.5")})

    with proxy.open_chat("a") as first:
        proxy.wait_state("a", "health_checking")
        second = proxy.chat("a")

        assert second.status == 200
        assert first.read_answer().status == 200
    assert proxy.running()["a"]["incarnation"] == 1
