"""Models on nodes: requests reach them there, and a lost node is seen and replaced."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from tools.asgi import Bench, Client, proxied
from tools.loopback_nodes import LoopbackEngine
from tools.net import LONG_S

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.proxy.api.views import model_status_views
from swapchart.adapters.proxy.app import ProxyApp
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions
from swapchart.adapters.system.own_node import own_node_name
from swapchart.runtime import Command, Launchers, ServiceSpec, Supervisor, Timings

pytestmark = pytest.mark.slow

#: Answers each request with the address that it listens on.
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"host":"%s"}' % sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
_URL = "http://127.0.0.1:9"  # of the specification; nothing listens there


@dataclass
class Cluster:
    """A proxy for models ``a`` and ``b`` on nodes ``h1`` and ``h2``."""

    engine: LoopbackEngine
    client: Client
    app: ProxyApp
    supervisor: Supervisor


def on_node(name: str) -> ServiceSpec:
    argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(SERVER), "${HOST}", "${PORT}")
    return ServiceSpec(
        name=name, command=Command(argv=argv, label=name, launcher="loopback"), endpoint=_URL,
        check_url=f"{_URL}/health", timings=Timings(grace=0.2, backoff=0.0, stable=None),
    )  # fmt: skip


@asynccontextmanager
async def cluster(options: ProxyOptions | None = None) -> AsyncIterator[Cluster]:
    names = ("a", "b")
    async with LocalLauncher() as local, LoopbackEngine(["h1", "h2"]) as engine:
        launcher = Launchers(local, [engine.connect()])
        async with Supervisor(launcher, map(on_node, names), stop_limit_s=10.0) as supervisor:
            models = ModelCatalog([ModelDefinition(id=name) for name in names])
            app = ProxyApp(supervisor, models, options)
            try:
                yield Cluster(engine, Client(app), app, supervisor)
            finally:
                await app.aclose()


def run(main: Callable[[Cluster], Awaitable[None]], options: ProxyOptions | None = None) -> None:
    async def whole() -> None:
        async with cluster(options) as found:
            await main(found)

    asyncio.run(asyncio.wait_for(whole(), 2 * LONG_S))


def test_requests_go_to_the_endpoint_of_the_running_process() -> None:
    """A later run at another port is reached too, and views show node and address."""

    async def main(cluster: Cluster) -> None:
        seen = []
        for _ in range(2):
            for _ in range(2):
                answer = await cluster.client.chat("a")
                assert (answer.status, answer.json()) == (200, {"host": "127.0.0.10"})
            seen.append(cluster.supervisor["a"].endpoint)
            (row,) = (await cluster.client.call("GET", "/running")).json()["running"]
            assert (row["node"], row["proxy"]) == ("h1", seen[-1])
            await cluster.supervisor.unload("a")

        assert seen[0] != seen[1]
        assert (await cluster.client.call("GET", "/running")).json()["running"] == []

    run(main)


def test_request_that_finds_its_node_without_power_has_the_model_started_elsewhere() -> None:
    """It gets a clear error at once; the next one is served, and the model is not started twice."""

    async def main(cluster: Cluster) -> None:
        assert (await cluster.client.chat("a")).status == 200
        cluster.engine.lose("h1", is_power_cut=True)
        began = time.monotonic()
        failed = await cluster.client.chat("a")
        assert failed.status == 502
        assert "the server of a failed" in failed.error()["message"]

        answer = await cluster.client.chat("a")
        assert (answer.status, answer.json()) == (200, {"host": "127.0.0.11"})
        assert time.monotonic() - began < LONG_S
        assert cluster.supervisor["a"].node == "h2"
        nodes = (await cluster.client.call("GET", "/api/nodes")).json()["nodes"]
        lost = {node["name"]: [row["model"] for row in node["lost"]] for node in nodes}
        assert lost == {own_node_name(): [], "h1": ["a"], "h2": []}
        metrics = (await cluster.client.call("GET", "/metrics")).body.decode()
        assert 'swapchart_node_lost_models{node="h1"} 1.0' in metrics
        assert 'swapchart_node_up{node="h1"} 0.0' in metrics
        assert 'swapchart_model_node{model="a",node="h2"} 1.0' in metrics

        (status,) = (row for row in model_status_views(cluster.app.proxy) if row.id == "a")
        assert status.node == "h2"
        await cluster.engine.restore("h1")
        nodes = (await cluster.client.call("GET", "/api/nodes")).json()["nodes"]
        assert [row for node in nodes for row in node["lost"]] == []

    run(main)


def test_administrator_frees_a_node_that_is_off() -> None:
    """Until then the model is not started there, although its node is the only one with room."""

    async def main(cluster: Cluster) -> None:
        cluster.engine.lose("h2")
        assert (await cluster.client.chat("a")).status == 200
        cluster.engine.lose("h1")
        cluster.engine.notice("h1")
        cluster.engine.lost.clear()  # the machines are up again, with an engine that forgot
        cluster.engine.lost.add("h2")
        refused = await cluster.client.chat("a")
        assert (refused.status, refused.error()["code"]) == (503, "no_room")

        freed = await cluster.client.call("POST", "/api/nodes/free/h1")
        assert freed.json() == {"node": "h1", "models": [{"model": "a"}]}
        again = await cluster.client.call("POST", "/api/nodes/free/h1")
        assert again.json() == {"node": "h1", "models": []}
        assert (await cluster.client.chat("a")).json() == {"host": "127.0.0.10"}

    run(main)


def test_nodes_show_resources_devices_labels_and_models() -> None:
    async def main(cluster: Cluster) -> None:
        assert (await cluster.client.chat("b")).status == 200
        answer = (await cluster.client.call("GET", "/api/nodes")).json()
        own, first, second = answer["nodes"]

        assert (own["name"], own["own"], own["alive"]) == (own_node_name(), True, True)
        assert own["capacity"]["cpus"] >= 1
        life = cluster.supervisor["b"]
        assert life.process is not None
        (row,) = first["models"]
        assert (row["model"], row["state"], row["devices"]) == ("b", "ready", [])
        assert (row["pid"], row["proxy"]) == (life.process.pid, life.endpoint)
        assert (first["address"], first["capacity"], first["free"], first["labels"]) == (
            "127.0.0.10", {"slots": 2.0}, {"slots": 2.0}, {"name": "h1"},
        )  # fmt: skip
        assert (second["models"], second["lost"], answer["engines_down"]) == ([], [], {})
        cluster.engine.set_down(is_down=True)
        answer = (await cluster.client.call("GET", "/api/nodes")).json()
        assert answer["engines_down"] == {"loopback": "not reachable"}
        assert [node["name"] for node in answer["nodes"]] == [own_node_name()]
        cluster.engine.set_down(is_down=False)

    run(main)


def test_nodes_show_a_key_its_own_models_only() -> None:
    keys = [
        ApiKey(key="sk-all", scopes=frozenset({"infer", "admin"})),
        ApiKey(key="sk-b", scopes=frozenset({"infer", "admin"}), models=("b",)),
    ]

    async def main(cluster: Cluster) -> None:
        def auth(key: str) -> dict[str, str]:
            return {"authorization": f"Bearer {key}"}

        assert (await cluster.client.chat("a", headers=auth("sk-all"))).status == 200
        seen = {}
        for key in ("sk-all", "sk-b"):
            answer = await cluster.client.call("GET", "/api/nodes", headers=auth(key))
            seen[key] = [row["model"] for node in answer.json()["nodes"] for row in node["models"]]

        assert seen == {"sk-all": ["a"], "sk-b": []}

    run(main, ProxyOptions(keys=tuple(keys)))


def test_one_machine_is_one_node_with_its_models() -> None:
    """Without a cluster the machine of the proxy is the only node, and models run on it."""

    async def whole() -> None:
        async with proxied() as bench:
            await one_machine(bench)

    async def one_machine(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 200
        (node,) = (await bench.client.call("GET", "/api/nodes")).json()["nodes"]
        process = bench.supervisor["a"].process
        assert process is not None

        assert (node["name"], node["own"]) == (own_node_name(), True)
        assert [(row["model"], row["pid"]) for row in node["models"]] == [("a", process.pid)]
        assert node["capacity"]["RAM"] > 0
        (row,) = (await bench.client.call("GET", "/running")).json()["running"]
        assert row["node"] == own_node_name()

    asyncio.run(asyncio.wait_for(whole(), LONG_S))
