"""Events of llama-server's router, on a real proxy with real models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tools import raw
from tools.net import LONG_S
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def proxy(serve_module: Serve, request: pytest.FixtureRequest) -> SwapchartProcess:
    """A proxy with a model that loads, and one that cannot."""
    models = {"good": demo_model("good"), "bad": demo_model("bad", "--fail-load")}
    proxy = serve_module(models, server=request.param)
    proxy.may_log = "bad"
    return proxy


def read_until(connection: raw.Connection, count: int) -> list[Any]:
    """Return the next *count* events of a stream."""
    text = b""
    while text.count(b"data: ") < count or not text.endswith(b"\n\n"):
        text += connection.read_chunk()
    return [json.loads(block[6:]) for block in text.split(b"\n\n") if block.startswith(b"data: ")]


def test_router_events_report_each_status_of_a_real_model(proxy: SwapchartProcess) -> None:
    """A client sees a model load and unload, and another one fail, which is never `loaded`."""
    assert proxy.unload().status == 200
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.request("GET", "/models/sse")
        head = connection.read_head()
        assert (head.status, head.header("content-type")) == (200, "text/event-stream")
        assert connection.read_chunk().startswith(b":")
        assert proxy.call("POST", "/models/load", value={"model": "good"}).status == 200
        loading, loaded = read_until(connection, 2)
        listed = {each["id"]: each["status"]["value"] for each in proxy.get("/models")["data"]}
        assert proxy.call("POST", "/models/unload", value={"model": "good"}).status == 200
        (unloaded,) = read_until(connection, 1)
        assert proxy.call("POST", "/models/load", value={"model": "bad"}).status == 200
        begins, fails = read_until(connection, 2)

    change = {"model": "good", "event": "status_change"}
    assert loading == {**change, "data": {"status": "loading"}}
    assert loaded == {**change, "data": {"status": "loaded"}}
    assert listed["good"] == "loaded"
    assert unloaded == {**change, "data": {"status": "unloaded", "exit_code": 0}}
    assert (begins["model"], begins["data"]) == ("bad", {"status": "loading"})
    assert (fails["model"], fails["data"]["status"]) == ("bad", "unloaded")
    assert fails["data"]["exit_code"] > 0


def test_router_dialect_of_a_real_proxy_keeps_its_configuration(proxy: SwapchartProcess) -> None:
    """Neither a download nor a deletion changes what is there."""
    config = (proxy.folder / "config.yaml").read_text()
    assert proxy.call("POST", "/models", value={"model": "good"}).json() == {"success": True}
    assert proxy.call("POST", "/models", value={"model": "org/new:Q4"}).status == 501
    assert proxy.call("DELETE", "/models?model=good").status == 501
    assert [each["id"] for each in proxy.get("/v1/models")["data"]] == ["bad", "good"]
    assert (proxy.folder / "config.yaml").read_text() == config
