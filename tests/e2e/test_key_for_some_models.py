"""A key for some models: every route is asked with one, and nothing tells of another model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from tools import raw
from tools.net import LONG_S, free_port, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, demo_model

from swapchart.adapters.proxy.api.inference_paths import GET_PATHS, SERVER_GET_PATHS
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.routing import Route

pytestmark = pytest.mark.slow

OWN, OTHER = "alpha", "omega-hidden"
CANARY = b"omega"  # in every name of the other model
WHOLE, SOME, INFER = "sk-whole", "sk-some", "sk-infer"
STREAMS = ("/api/events", "/logs/stream", "/logs/stream/*", "/models/sse")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
#: Stops or starts a model; asked last, when nothing streams.
CONTROLS = (
    "/api/models/unload/*", "/api/models/load/*", "/models/load", "/models/unload",
    "/ollama/api/chat", "/ollama/api/generate", "/ollama/api/embed", "/ollama/api/embeddings",
)  # fmt: skip


def keyed(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Scene:
    """A proxy with two models that evict each other, peers, a selector and an active profile."""

    proxy: SwapchartProcess

    def call(self, key: str, method: str, target: str, value: object = None) -> raw.Answer:
        return self.proxy.call(method, target, value=value, headers=keyed(key))

    def whole(self, target: str) -> Any:
        answer = self.call(WHOLE, "GET", target)
        assert answer.status == 200, answer
        return answer.json()

    def chat(self, key: str, model: str) -> raw.Answer:
        return self.call(key, "POST", CHAT, chat_body(model))

    def wait_flights(self, count: int) -> None:
        wait_until(
            lambda: len(self.flights()) == count, what=lambda: f"{count} of {self.flights()}"
        )

    def flights(self) -> dict[str, str]:
        """Return the number of a request in flight by model."""
        with raw.Connection(self.proxy.port, timeout_s=LONG_S) as connection:
            connection.request("GET", "/api/events", headers=keyed(WHOLE))
            connection.read_head()
            text = b""
            while b'"snapshot' not in text.replace(b"\\", b""):
                text += connection.read_chunk()
        (line,) = [part for part in text.split(b"\n") if b"snapshot" in part]
        found = json.loads(json.loads(line.partition(b":")[2])["data"])
        return {row["model"]: row["id"] for row in found["requests"]}

    def captures(self) -> dict[str, int]:
        rows = self.whole("/api/metrics/activity")["data"]
        return {row["model"]: row["id"] for row in rows if row["has_capture"]}


@pytest.fixture(scope="module")
def scene(serve_module: Serve) -> Scene:
    proxy = serve_module(
        {
            OWN: demo_model(OWN, rate=20, aliases=["alpha-too"]),
            OTHER: demo_model("demo", rate=20, aliases=["omega-alias"], name="omega name"),
        },
        config={
            "captureBuffer": 5,
            "includeAliasesInList": True,
            "apiKeys": [
                WHOLE,
                {"key": SOME, "scopes": ["infer", "admin"], "models": [OWN]},
                {"key": INFER, "models": [OWN]},
            ],
            "peers": {
                "omega-peer": {
                    "proxy": f"http://127.0.0.1:{free_port()}", "models": ["omega-remote"],
                }
            },
            "selectors": {"pick": {"strategy": "warm", "targets": [OTHER, OWN]}},
            "profiles": {"day": {"pins": {"pinned": OWN, "alpha-pin": OTHER}}},
        },
    )  # fmt: skip
    scene = Scene(proxy)
    pinned = scene.call(WHOLE, "PUT", "/api/profiles/active", {"name": "day"})
    assert pinned.status == 200
    for model in (OTHER, OWN, OTHER, OWN):  # each start evicts the other: causes name it
        assert scene.chat(WHOLE, model).status == 200
    wait_until(lambda: len(scene.captures()) == 2, LONG_S, what="both captures")
    return scene


def targets(route: Route, names: dict[str, str]) -> list[str]:
    """Return the targets to ask *route* at, with each of *names* in place of its star."""
    if "*" not in route.path:
        return [route.path, f"{route.path}?model={OWN}", f"{route.path}?model=mega-hidden"]
    if route.path == "/ui/*":
        return ["/ui/app.js"]
    if route.path == "/upstream/*":
        paths = ("/", "/v1/models", "/props", "/slots", CHAT)
        return [f"/upstream/{name}{path}" for name in names["models"].split() for path in paths]
    kind = (
        "captures" if "captures" in route.path else "inflight" if "inflight" in route.path else ""
    )
    found = names[kind or "models"].split()
    return [route.path.replace("*", quote(name, safe="")) for name in found]


def bodies(route: Route, method: str, names: str) -> list[object]:
    if method not in ("POST", "PUT", "PATCH"):
        return [None]
    return [*({"model": name, "name": name, "messages": []} for name in names.split()), {}]


def stream_of(scene: Scene, key: str, target: str) -> bytes:
    """Return what comes from an endless stream in a while."""
    with raw.Connection(scene.proxy.port, timeout_s=LONG_S) as connection:
        connection.request("GET", target, headers=keyed(key))
        head = connection.read_head()
        data = repr(head).encode()
        if head.status != 200:
            return data + connection.read_body(head).body
        connection.socket.settimeout(0.4)  # for the stream only: a busy machine is slow to begin
        until = time.monotonic() + 0.5
        with suppress(TimeoutError, EOFError):
            while time.monotonic() < until:
                data += connection.read_chunk()
    return data


def walk(scene: Scene, names: dict[str, str], wants: Callable[[Route], bool]) -> dict[str, bytes]:
    """Ask the routes that *wants* picks in every way; returns what came back by request."""
    found: dict[str, bytes] = {}
    for route in ROUTES.routes:
        if not wants(route):
            continue
        for method in METHODS if route.method == "*" else (route.method,):
            for target in targets(route, names):
                for body in bodies(route, method, names["models"]):
                    asked = f"{method} {target} {body}"
                    if route.path in STREAMS:
                        found[asked] = stream_of(scene, SOME, target)
                        continue
                    with raw.Connection(scene.proxy.port, timeout_s=LONG_S) as connection:
                        headers = keyed(SOME)
                        connection.request(method, target, value=body, headers=headers)
                        head = connection.read_head()
                        data = b"" if method == "HEAD" else connection.read_body(head).body
                        if route.subject == "whole":
                            assert head.status == 403, asked
                        found[asked] = repr(head).encode() + data
    return found


def is_quiet(route: Route) -> bool:
    return (
        route.path not in CONTROLS
        and route.kind != "inference"
        and route.path not in (*GET_PATHS, *SERVER_GET_PATHS, "/upstream/*")
    )


@pytest.mark.parametrize(("busy", "waiting"), [(OWN, OTHER), (OTHER, OWN)])
def test_every_route_key_for_one_model_reveals_no_other(
    scene: Scene, busy: str, waiting: str
) -> None:
    """Lists, streams and errors of every route hold no name of a model that the key is not for."""
    with ExitStack() as stack:
        for model in (busy, waiting):
            connection = raw.Connection(scene.proxy.port, timeout_s=LONG_S)
            stack.enter_context(connection)
            value = chat_body(model, 100_000, stream=True, ignore_eos=True)
            connection.request("POST", CHAT, value=value, headers=keyed(WHOLE))
            scene.wait_flights(1 if model == busy else 2)
        numbers = scene.flights()
        names = {
            "models": f"{OWN} alpha-too mega-hidden alpho", "inflight": "0 77",
            "captures": " ".join(map(str, scene.captures().values())),
        }  # fmt: skip
        found = walk(scene, names, is_quiet)
        seen = scene.call(SOME, "POST", f"/api/inflight/{numbers[OTHER]}/cancel")
        queue = scene.call(SOME, "GET", "/api/queue").json()
        whole = scene.call(WHOLE, "GET", "/api/queue").json()

    assert len(found) > 45
    assert {asked: data for asked, data in found.items() if CANARY in data} == {}
    assert seen.status == 404
    assert [row["model"] for row in whole["queue"]] == [waiting]
    assert [row["model"] for row in queue["queue"]] == [m for m in [waiting] if m == OWN]
    if waiting == OWN:
        assert "(another model)" in queue["queue"][0]["why"]
    wait_until(lambda: not scene.flights(), LONG_S, what="no request in flight")


def test_every_route_key_for_one_model_shows_that_model(scene: Scene) -> None:
    """The key sees its own model as other keys do."""
    assert scene.chat(WHOLE, OWN).status == 200
    running = scene.call(SOME, "GET", "/running").json()["running"]
    listed = scene.call(SOME, "GET", "/v1/models").json()["data"]
    rows = scene.call(SOME, "GET", "/api/metrics/activity").json()
    stats = scene.call(SOME, "GET", "/api/metrics/stats").json()
    history = scene.call(SOME, "GET", f"/api/models/{OWN}/history").json()["data"]
    own = scene.captures()
    events = stream_of(scene, SOME, "/api/events")

    assert [row["model"] for row in running] == [OWN]
    assert {row["id"] for row in listed} == {OWN, "alpha-too", "pick", "pinned"}
    assert [row["meta"]["llamaswap"]["targets"] for row in listed if row["id"] == "pick"] == [[OWN]]
    assert {row["model"] for row in rows["data"]} == {OWN}
    assert rows["total"] == stats["total_requests"] > 0
    assert any(row["cause"] == "evicted for (another model)" for row in history)
    assert scene.call(SOME, "GET", f"/api/captures/{own[OWN]}").status == 200
    assert scene.call(SOME, "GET", f"/api/captures/{own[OTHER]}").status == 404
    assert scene.call(SOME, "GET", f"/api/models/{OWN}/explain").json()["outcome"] == "serve"
    assert b"model loaded" in events
    assert b"modelStatus" in events


def test_every_route_key_for_one_model_touches_no_other(scene: Scene) -> None:
    """A request for another model, by any route and any of its names, is 403 and has no effect."""
    assert scene.chat(WHOLE, OTHER).status == 200
    before = scene.whole("/running")
    names = {"models": f"{OTHER} omega-alias", "inflight": "77", "captures": "77"}
    about = ("/api/models/*", "/v1/models/*", "/upstream/*", "/logs/stream/*")
    statuses = {}
    for route in ROUTES.routes:
        is_named = "*" in route.path and route.path.startswith(tuple(p[:-1] for p in about))
        is_body = route.kind == "inference" or route.path in CONTROLS
        if not (is_named or is_body or route.path in (*GET_PATHS, *SERVER_GET_PATHS)):
            continue
        for method in METHODS if route.method == "*" else (route.method,):
            path = route.path.replace("*", "0")
            asked = targets(route, names) if is_named else [f"{path}?model={OTHER}"]
            for target in asked:
                value = {"model": OTHER, "messages": []} if method in ("POST", "PUT") else None
                with raw.Connection(scene.proxy.port, timeout_s=LONG_S) as connection:
                    connection.request(method, target, value=value, headers=keyed(SOME))
                    statuses[method, target] = connection.read_head().status

    assert {key: status for key, status in statuses.items() if status != 403} == {}
    assert len(statuses) > 60
    assert scene.whole("/running") == before


def test_every_route_key_for_one_model_controls_it(scene: Scene) -> None:
    """Loads, unloads and requests of the key's own model work while other models run."""
    assert scene.chat(SOME, OWN).status == 200
    for name, status in (("pinned", 200), ("alpha-pin", 403)):  # a pin is what it means
        assert scene.chat(SOME, name).status == status
        below = scene.call(SOME, "POST", f"/upstream/{name}{CHAT}", chat_body(OWN))
        assert below.status == status
    assert scene.call(SOME, "GET", f"/upstream/{OWN}/props").status == 200
    names = {"models": OWN, "inflight": "77", "captures": "77"}
    found = walk(scene, names, lambda route: route.path in CONTROLS)
    assert {asked: data for asked, data in found.items() if CANARY in data} == {}
    assert scene.call(SOME, "POST", f"/api/models/unload/{OWN}").status == 200
    assert scene.proxy.call("GET", "/running", headers=keyed(SOME)).json() == {"running": []}


def test_key_with_models_and_no_scopes_may_infer_only(scene: Scene) -> None:
    """A key with `models` and no `scopes` administers nothing, its own models neither."""
    assert scene.chat(INFER, OWN).status == 200
    for route in ROUTES.routes:
        if route.access == "admin":
            target = route.path.replace("*", OWN)
            answer = scene.call(INFER, route.method, target, {} if route.method != "GET" else None)
            assert answer.status == 403, target
            assert CANARY not in answer.body
    assert CANARY not in scene.call(INFER, "GET", "/models").body
    assert b'"args"' not in scene.call(INFER, "GET", "/models").body
    assert b'"args"' in scene.call(SOME, "GET", "/models").body
