"""X-Keep-Alive with real processes: unloading, staying, and giving way."""

from __future__ import annotations

import pytest
from tools.net import wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, demo_model

pytestmark = pytest.mark.slow


def ask(proxy: SwapchartProcess, model: str, keep_alive: str) -> int:
    """Return the status of a request for *model* with that header."""
    headers = {"X-Keep-Alive": keep_alive}
    return proxy.call("POST", CHAT, value=chat_body(model, 2), headers=headers).status


def test_keep_alive_of_a_request_decides_when_its_process_ends(serve: Serve, server: str) -> None:
    """0 ends it after the response; a longer time outlasts `ttl`, but not `maxKeepAlive`."""
    models = {"a": demo_model("a", ttl=1), "b": demo_model("b", ttl=60, maxKeepAlive=1)}
    groups = {"both": {"swap": False, "members": ["a", "b"]}}
    proxy = serve(models, server=server, config={"groups": groups})

    assert ask(proxy, "a", "0") == 200
    wait_until(lambda: "a" not in proxy.running())
    assert ask(proxy, "a", "-1") == 200
    assert ask(proxy, "b", "1h") == 200
    wait_until(lambda: "b" not in proxy.running())
    assert proxy.running()["a"]["incarnation"] == 2
    assert ask(proxy, "a", "soon") == 400
    assert ask(proxy, "a", "10ms") == 200
    wait_until(lambda: not proxy.running())


def test_keep_alive_without_end_gives_way_to_another_model(serve: Serve) -> None:
    """A model that a request wants to keep for good is evicted all the same."""
    proxy = serve({name: demo_model(name) for name in "ab"})

    assert ask(proxy, "a", "-1") == 200
    assert ask(proxy, "b", "-1") == 200
    assert [*proxy.running()] == ["b"]
