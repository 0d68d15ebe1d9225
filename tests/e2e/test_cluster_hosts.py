"""Nodes that lose their power or their network, behind a real proxy; see ``simulated_hosts``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tools import raw
from tools.net import LATE_S, wait_until
from tools.ray_cluster import HAS_RAY, WHY_SKIPPED
from tools.simulated_hosts import Site, why_not
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, error_of

from .test_cluster import remote

pytestmark = [pytest.mark.ray, pytest.mark.slow]

long = pytest.mark.skipif(
    not os.environ.get("SWAPCHART_LONG"), reason="NOT TESTED: takes more than half a minute"
)

NOTICED_S = 15.0  # bound of docs/cluster.md for a node of which no packet comes any more
FENCED_S = 40.0  # and for the end of its models when it runs on
ENGINE_DOWN_S = 10.0  # for a head of which no packet comes
HEAD_BACK_S = 90.0  # for the end of models that a new or absent head has given up
GIB = 1 << 30


@contextmanager
def started_site() -> Iterator[Site]:
    """Run a cluster of two nodes, its head and this machine, or skip the test."""
    if not HAS_RAY:
        if os.environ.get("REQUIRE_RAY") == "1":
            pytest.fail(WHY_SKIPPED, pytrace=False)
        pytest.skip(WHY_SKIPPED)
    if why := why_not():
        pytest.skip(why)
    with Site() as site:
        site.add("head", "box1", "box2")
        site.start_head("head")
        with ThreadPoolExecutor() as threads:
            joining = [
                threads.submit(site.start_node, name, vram=(24,)) for name in ("box1", "box2")
            ]
            joining.append(threads.submit(site.join))
            for each in joining:
                each.result()
        yield site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A cluster that tests leave as it was."""
    with started_site() as found:
        yield found


@pytest.fixture
def own_site() -> Iterator[Site]:
    """A cluster that a test may break."""
    with started_site() as found:
        yield found


def serve_at(
    serve: Serve, site: Site, name: str, models: dict[str, Any], **keys: Any
) -> SwapchartProcess:
    """Start a proxy on this machine."""
    cluster = {"engine": "ray", "address": site.address, "name": name}
    return serve(models, config={"cluster": cluster, "memory": "auto", **keys})


def big(label: str, *nodes: str) -> dict[str, Any]:
    """Return a model of which a node can hold one, with streams that last."""
    options = ("--slots", "4")
    return remote(label, *options, nodes=[*nodes], memory="20GiB", unloadTimeout=2, rate=10)


def models_on(site: Site, host: str, name: str) -> list[int]:
    """Return the processes of models that run on a host, for a proxy with *name*."""
    return site.hosts[host].processes(f"SWAPCHART_CLUSTER={name}\0")


def is_alive(proxy: SwapchartProcess, node: str) -> bool:
    """Return True if the proxy uses *node*."""
    return any(row["name"] == node and row["alive"] for row in proxy.get("/api/nodes")["nodes"])


def free_of(proxy: SwapchartProcess, node: str) -> float:
    """Return what Ray has free of the GPU of *node*, in GiB."""
    (row,) = [row for row in proxy.get("/api/nodes")["nodes"] if row["name"] == node]
    return float(row["free"]["GPU0"]) / GIB


class Timer:
    """Measures from its making, and prints what it has measured."""

    def __init__(self, fault: str) -> None:
        self._fault, self._began = fault, time.monotonic()

    def took(self, what: str) -> float:
        """Return the seconds until now."""
        took_s = time.monotonic() - self._began
        print(f"{self._fault}: {what} after {took_s:.1f} s")
        return took_s


@contextmanager
def streaming(proxy: SwapchartProcess, model: str) -> Iterator[raw.Connection]:
    """Open a stream that says something ten times a second."""
    stream = proxy.open_stream(model)
    try:
        yield stream
    finally:
        stream.close()


def until_end(stream: raw.Connection) -> None:
    """Read *stream* until it is aborted."""
    with suppress(EOFError, ConnectionResetError):
        while stream.read_chunk():
            pass


def catch_up(stream: raw.Connection) -> None:
    """Read *stream* until it says what is new."""
    while not stream.is_silent_for(0.02):
        stream.read_chunk()
    stream.read_chunk()


def test_node_cut_off_for_six_seconds_loses_nothing(serve: Serve, site: Site) -> None:
    """A response that has begun goes on, and a request that is sent meanwhile is answered."""
    proxy = serve_at(serve, site, "six", {"a": big("a", "box1", "box2")})
    with streaming(proxy, "a") as stream, ThreadPoolExecutor() as threads:
        pids = models_on(site, "box1", "six")
        site.hosts["box1"].cut_off()
        timer = Timer("node cut off for 6 s")
        sent = threads.submit(proxy.chat, "a")
        time.sleep(6.0)
        site.hosts["box1"].reconnect()
        assert sent.result().status == 200
        timer.took("response to a request that was sent meanwhile")
        catch_up(stream)
        timer.took("stream goes on")

    assert models_on(site, "box1", "six") == pids
    assert "node box1 is down" not in proxy.output()
    assert proxy.unload("a").status == 200
    wait_until(lambda: free_of(proxy, "box1") == 24.0, what="no reservation")


def test_node_without_power_is_noticed_and_its_models_run_elsewhere(
    serve: Serve, site: Site
) -> None:
    models = {"a": big("a", "box1", "box2"), "b": big("b", "box1")}
    proxy = serve_at(serve, site, "power", models)
    with streaming(proxy, "a") as stream, ThreadPoolExecutor() as threads:
        site.hosts["box1"].power_off()
        timer = Timer("node without power")
        ending = threads.submit(until_end, stream)
        sent = threads.submit(proxy.chat, "a")
        wait_until(lambda: not is_alive(proxy, "box1"), what="node lost")
        assert timer.took("noticed") < NOTICED_S
        ending.result()
        assert error_of(sent.result())["code"] == "upstream_connect"
        assert timer.took("end of requests in flight") < NOTICED_S
    assert proxy.chat("a").status == 200
    timer.took("served by another node")
    assert proxy.running()["a"]["node"] == "box2"
    refused = error_of(proxy.chat("b"))
    assert refused["message"].endswith("the nodes that can run it do not respond: box1")
    timer.took("request for a model that may run nowhere else refused")

    site.hosts["box1"].boot()
    site.start_node("box1", vram=(24,))
    timer = Timer("node with power again")
    assert proxy.call("POST", CHAT, value=chat_body("b", 3)).status == 200  # nothing is held
    timer.took("served there")
    assert models_on(site, "box1", "power")


@long
def test_node_cut_off_for_ever_is_fenced(serve: Serve, site: Site) -> None:
    """Its models end there before anything of them may start there again."""
    proxy = serve_at(serve, site, "cut", {"a": big("a", "box1", "box2"), "b": big("b", "box1")})
    host = site.hosts["box1"]
    assert proxy.chat("a").status == 200
    pids = models_on(site, "box1", "cut")
    host.cut_off()
    timer = Timer("node cut off for ever")
    wait_until(lambda: not is_alive(proxy, "box1"), what="node lost")
    assert timer.took("noticed") < NOTICED_S
    assert proxy.chat("a").status == 200
    timer.took("served by another node")
    assert "do not respond: box1" in error_of(proxy.chat("b"))["message"]
    assert models_on(site, "box1", "cut") == pids
    wait_until(lambda: not models_on(site, "box1", "cut"), FENCED_S, what="no orphan")
    assert timer.took("no orphan") < FENCED_S

    host.reconnect()
    timer = Timer("node that was cut off is back")
    wait_until(lambda: not site.has_node("box1"), what="its raylet has ended")
    timer.took("its raylet has ended")
    site.start_node("box1", vram=(24,))
    assert proxy.call("POST", CHAT, value=chat_body("b", 3)).status == 200
    timer.took("served there")
    assert free_of(proxy, "box1") == 4.0


@long
def test_node_back_before_its_models_have_ended_is_fenced(serve: Serve, site: Site) -> None:
    """It was lost, and is back while they run: they end before it is used."""
    proxy = serve_at(serve, site, "back", {"a": big("a", "box1")})
    host = site.hosts["box1"]
    assert proxy.chat("a").status == 200
    host.cut_off()
    wait_until(lambda: not is_alive(proxy, "box1"), what="node lost")
    pids = models_on(site, "box1", "back")
    host.reconnect()
    timer = Timer("node is back while its models run")
    assert pids
    wait_until(lambda: not models_on(site, "box1", "back"), what="no orphan")
    timer.took("no orphan")
    wait_until(lambda: not site.has_node("box1"), what="its raylet has ended")
    site.start_node("box1", vram=(24,))
    assert proxy.call("POST", CHAT, value=chat_body("a", 3)).status == 200
    assert free_of(proxy, "box1") == 4.0


@long
def test_head_cut_off_for_six_seconds_loses_nothing(serve: Serve, site: Site) -> None:
    proxy = serve_at(serve, site, "head", {"a": big("a", "box1"), "b": big("b", "box2")})
    with streaming(proxy, "a") as stream:
        pids = models_on(site, "box1", "head")
        site.hosts["head"].cut_off()
        timer = Timer("head cut off for 6 s")
        assert proxy.chat("a").status == 200
        assert timer.took("response of a model that runs") < LATE_S
        time.sleep(6.0)
        site.hosts["head"].reconnect()
        catch_up(stream)
    wait_until(lambda: not proxy.get("/api/nodes")["engines_down"], what="engine up")
    assert proxy.chat("b").status == 200
    timer.took("another model started")
    assert models_on(site, "box1", "head") == pids


def restart_nodes(proxy: SwapchartProcess, site: Site, name: str, timer: Timer) -> None:
    """Wait until the nodes have given up, with their models, and let them join again."""
    wait_until(lambda: not models_on(site, "box1", name), HEAD_BACK_S, what="no orphan")
    assert timer.took("no orphan") < HEAD_BACK_S
    wait_until(lambda: not (site.has_node("box1") or site.has_node("box2")), what="no raylet")
    for node in ("box1", "box2"):
        site.start_node(node, vram=(24,))
    site.join()
    timer.took("nodes have joined again")
    wait_until(lambda: not proxy.get("/api/nodes")["engines_down"], 90.0, what="engine up")
    wait_until(lambda: is_alive(proxy, "box1"), what="node up")
    timer.took("nodes used")


@long
def test_head_cut_off_for_longer_ends_all_models_when_it_is_back(
    own_site: Site, serve: Serve
) -> None:
    """It has given up the nodes meanwhile; until it is back what runs is served."""
    proxy = serve_at(serve, own_site, "head", {"a": big("a", "box1"), "b": big("b", "box2")})
    assert proxy.chat("a").status == 200
    pids = models_on(own_site, "box1", "head")
    own_site.hosts["head"].cut_off()
    timer = Timer("head cut off for 20 s")
    wait_until(lambda: proxy.get("/api/nodes")["engines_down"], what="engine down")
    assert timer.took("noticed") < ENGINE_DOWN_S
    message = error_of(proxy.chat("b"))["message"]
    assert message == "b failed: the head of the cluster does not respond"
    time.sleep(14.0)
    assert proxy.chat("a").status == 200
    assert models_on(own_site, "box1", "head") == pids
    own_site.hosts["head"].reconnect()
    timer = Timer("head is back after 20 s")
    restart_nodes(proxy, own_site, "head", timer)
    assert proxy.call("POST", CHAT, value=chat_body("a", 3)).status == 200
    assert free_of(proxy, "box1") == 4.0


@long
def test_head_without_power_ends_no_model_until_there_is_another_one(
    own_site: Site, serve: Serve
) -> None:
    proxy = serve_at(serve, own_site, "lost", {"a": big("a", "box1"), "b": big("b", "box2")})
    assert proxy.chat("a").status == 200
    own_site.hosts["head"].power_off()
    timer = Timer("head without power")
    wait_until(lambda: proxy.get("/api/nodes")["engines_down"], what="engine down")
    assert timer.took("noticed") < ENGINE_DOWN_S
    time.sleep(20.0)
    assert proxy.chat("a").status == 200
    own_site.hosts["head"].boot()
    own_site.start_head("head")
    timer = Timer("another head after 20 s")
    restart_nodes(proxy, own_site, "lost", timer)
    assert proxy.call("POST", CHAT, value=chat_body("a", 3)).status == 200
    assert free_of(proxy, "box1") == 4.0
