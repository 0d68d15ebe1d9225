"""Routes besides those of inference: errors, control, lists, logs and passthrough."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, Call, Received, run_proxied, say, say_events
from tools.net import wait_until_async
from tools.rows import row

from swapchart.adapters.app.log_buffer import keeping_log
from swapchart.adapters.proxy.api import model_listing
from swapchart.adapters.proxy.api.model_listing import models
from swapchart.adapters.proxy.app import clean_location
from swapchart.adapters.proxy.models.definitions import (
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
    UpstreamTimeouts,
)
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions
from swapchart.adapters.proxy.request import Request
from swapchart.adapters.proxy.routing import cleaned


async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
    """Begin a stream, and never end it."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"8\r\ndata: 1\n\r\n"
    )
    await writer.drain()
    await asyncio.Event().wait()


def chat(bench: Bench, model: str, **more: Any) -> Call:
    return bench.client.begin("POST", "/v1/chat/completions", value={"model": model, **more})


# ---- small ones
def test_health_version_and_redirects_respond() -> None:
    """The small routes answer as llama-swap's clients expect."""

    async def main(bench: Bench) -> None:
        call = bench.client.call
        assert (await call("GET", "/health")).body == b"OK"
        assert (await call("GET", "/wol-health")).body == b"OK"
        version = await call("GET", "/api/version")
        assert version.json() == {"version": "1.2", "commit": "c", "build_date": "d"}
        for path, status, location in (
            ("/", 302, "/ui"), ("/ui", 301, "/ui/"), ("/upstream", 302, "/ui/models"),
            ("/comfyui", 301, "/comfyui/"),
        ):  # fmt: skip
            answer = await call("GET", path)
            assert (answer.status, answer.header("location")) == (status, location)
        posted = await call("POST", "/comfyui?x=%20")
        assert (posted.status, posted.header("location")) == (308, "/comfyui/?x=%20")

    run_proxied(main, options=ProxyOptions(version="1.2", commit="c", build_date="d"))


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("text/plain", "text/plain; charset=utf-8", b"swapchart: no such route: /<x>\n"),
        ("text/html,*/*", "text/html; charset=utf-8", b"<p>no such route: /&lt;x&gt;</p>"),
        ("text/html, text/plain", "text/plain; charset=utf-8", b"swapchart: "),
        ("*/*", "application/json", b'"code":"not_found"'),
    ],
)
def test_errors_have_the_format_of_the_accept_header(accept: str, kind: str, body: bytes) -> None:
    """Text, HTML with what came escaped, or JSON: as the Accept field asks."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", "/%3Cx%3E", headers={"Accept": accept})

        assert (answer.status, answer.header("content-type")) == (404, kind)
        assert body in answer.body

    run_proxied(main)


@pytest.mark.parametrize("path", ["/v1/messages", "/v/messages/count_tokens"])
def test_errors_of_anthropic_routes_have_their_type(path: str) -> None:
    """Errors of Anthropic's routes have the member that its clients look for, too."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", path, value={"model": "nobody"})

        assert (answer.status, answer.json()["type"]) == (404, "error")
        assert answer.error()["code"] == "model_not_found"

    run_proxied(main)


# ---- running models and stopping
def test_running_endpoint_lists_processes() -> None:
    """What runs is listed with its command and state, and what does not is not."""
    card = ModelDefinition(
        id="a", name="A", description="d", command="serve --key ${env.KEY}", proxy="http://p",
        ttl_s=7,
    )  # fmt: skip

    async def main(bench: Bench) -> None:
        assert (await bench.client.call("GET", "/running")).json() == {"running": []}
        await bench.client.chat("a")
        rows = (await bench.client.call("GET", "/running")).json()["running"]

        row = {key: rows[0][key] for key in ("model", "state", "cmd", "proxy", "ttl", "name")}
        assert row == {
            "model": "a", "state": "ready", "cmd": "serve --key ${env.KEY}",
            "proxy": f"http://127.0.0.1:{bench.server.port}",
            "ttl": 7, "name": "A",
        }  # fmt: skip
        assert (len(rows), rows[0]["description"]) == (1, "d")

    run_proxied(main, card, "b")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/unload", b"OK"),
        ("POST", "/api/models/unload", b'{"msg":"ok"}'),
        ("POST", "/api/models/unload/a", b"OK"),
        ("POST", "/api/models/unload/the%20alias", b"OK"),
    ],
)
def test_unload_endpoint_stops_models(method: str, target: str, body: bytes) -> None:
    """Unloading answers when the process is gone; what does not run is unloaded already."""

    async def main(bench: Bench) -> None:
        await bench.client.chat("a")
        for _ in range(2):
            answer = await bench.client.call(method, target)

            assert (answer.status, answer.body) == (200, body)
            assert bench.supervisor["a"].state == "stopped"

    run_proxied(main, ModelDefinition(id="a", aliases=("the alias",)))


def test_unload_endpoint_of_unknown_models_is_404() -> None:
    """Unknown names and those of peers cannot be unloaded."""
    peer = PeerDefinition(id="p", url="http://127.0.0.1:9", models=("m",))

    async def main(bench: Bench) -> None:
        unknown = await bench.client.call("POST", "/api/models/unload/x")
        remote = await bench.client.call("POST", "/api/models/unload/p/m")

        assert (unknown.status, remote.status) == (404, 404)
        assert remote.error()["message"] == "no local server found for requested model"

    run_proxied(main, peers=[peer])


def test_load_endpoint_responds_when_the_model_is_ready() -> None:
    """By id or alias; unknown names and those of peers cannot be loaded."""
    peer = PeerDefinition(id="p", url="http://127.0.0.1:9", models=("m",))

    async def main(bench: Bench) -> None:
        for name in ("a", "the%20alias"):
            answer = await bench.client.call("POST", f"/api/models/load/{name}")

            assert (answer.status, answer.body) == (200, b"OK")
            assert bench.supervisor["a"].state == "ready"
        unknown = await bench.client.call("POST", "/api/models/load/x")
        remote = await bench.client.call("POST", "/api/models/load/p/m")
        assert (unknown.status, remote.status) == (404, 404)

    run_proxied(main, ModelDefinition(id="a", aliases=("the alias",)), peers=[peer])


def test_pin_endpoint_keeps_a_loaded_model_until_it_is_unpinned() -> None:
    """A model that is not loaded cannot be pinned; events show which one is."""

    async def main(bench: Bench) -> None:
        call = bench.client.begin("GET", "/api/events?logs=none")
        await call.until(lambda c: b"modelStatus" in c.body)
        early = await bench.client.call("POST", "/api/models/pin/a")
        unknown = await bench.client.call("POST", "/api/models/pin/x")
        await bench.client.chat("a")
        pinned = await bench.client.call("POST", "/api/models/pin/the%20alias")

        assert (early.status, unknown.status, pinned.status) == (409, 404, 200)
        assert bench.supervisor["a"].is_kept
        await call.until(lambda c: b"kept" in c.body)
        assert (await bench.client.call("POST", "/api/models/unpin/a")).status == 200
        assert not bench.supervisor["a"].is_kept
        call.leave()

    run_proxied(main, ModelDefinition(id="a", aliases=("the alias",), ttl_s=60))


def test_unload_does_not_delay_other_models() -> None:
    """While one model drains, others are asked and the proxy answers."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        held = chat(bench, "a")
        await held.until(lambda call: call.messages)
        unload = bench.client.begin("POST", "/api/models/unload/a")
        await wait_until_async(lambda: bench.supervisor["a"].state == "draining")

        assert (await bench.client.call("GET", "/running")).json()["running"][0]["state"] == (
            "stopping"
        )
        assert (await bench.client.call("GET", "/health")).status == 200
        assert not unload.task.done()
        held.leave()
        assert (await unload.answer()).status == 200

    run_proxied(main)


# ---- llama-server's router
def test_router_dialect_models() -> None:
    """/models tells llama-server's own states and arguments beside llama-swap's fields."""
    card = ModelDefinition(id="a", command="llama-server -m 'x y.gguf' --port 1")

    async def main(bench: Bench) -> None:
        def status(answer: Any) -> Any:
            return answer.json()["data"][0]["status"]

        before = status(await bench.client.call("GET", "/models"))
        await bench.client.chat("a")
        after = status(await bench.client.call("GET", "/models"))

        arguments = ["llama-server", "-m", "x y.gguf", "--port", "1"]
        assert before == {"value": "unloaded", "args": arguments}
        assert after == {"value": "loaded", "args": arguments}
        listed = (await bench.client.call("GET", "/v1/models")).json()["data"][0]
        assert listed["status"] == {"value": "loaded"}

    run_proxied(main, card)


def test_router_dialect_load_and_unload() -> None:
    """/models/load and /models/unload answer at once; what makes no sense is refused."""

    async def main(bench: Bench) -> None:
        async def post(what: str, value: Any) -> Any:
            return await bench.client.call("POST", f"/models/{what}", value=value)

        loaded = await post("load", {"model": "a"})
        assert (loaded.status, loaded.json()) == (200, {"success": True})
        await wait_until_async(lambda: bench.supervisor["a"].state == "ready")
        again = await post("load", {"model": "a"})
        assert (again.status, again.error()["message"]) == (400, "model is already running")
        unloaded = await post("unload", {"model": "a"})
        assert (unloaded.status, unloaded.json()) == (200, {"success": True})
        await wait_until_async(lambda: bench.supervisor["a"].state == "stopped")
        assert (await post("unload", {"model": "a"})).status == 400
        assert (await post("load", {"model": "x"})).status == 404
        for bad in ({}, {"model": 1}, [1], {"model": ""}):
            assert (await post("load", bad)).status == 400
        broken = await bench.client.call("POST", "/models/load", body=b"{")
        assert broken.status == 400

    run_proxied(main)


# ---- profiles
PROFILES = [
    ProfileDefinition(id="work", description="d", pins={"chat": "b", "a": None}),
    ProfileDefinition(id="home", pins={"chat": "a"}),
]


def test_profiles_endpoint_switches_profiles() -> None:
    """At most one profile is active; its pins come first, and nothing is active at the start."""

    async def main(bench: Bench) -> None:
        async def activate(value: Any) -> Any:
            return await bench.client.call("PUT", "/api/profiles/active", value=value)

        listed = (await bench.client.call("GET", "/api/profiles")).json()
        assert listed["active"] is None
        assert [profile["id"] for profile in listed["profiles"]] == ["home", "work"]
        assert listed["profiles"][1]["pins"] == {"chat": "b", "a": ""}
        assert (await bench.client.chat("chat")).status == 404

        assert (await activate({"name": "work"})).json() == {"active": "work"}
        assert (await bench.client.chat("chat")).status == 200
        assert bench.server.last.json()["model"] == "b"
        assert (await bench.client.chat("a")).status == 404
        await bench.client.call("GET", "/upstream/chat/page")
        assert bench.server.last.target == "/page"
        assert (await bench.client.call("GET", "/upstream/a/page")).status == 404
        pinned = [record for record in models(bench.app.proxy) if record.id == "chat"]
        assert pinned[0].meta.llamaswap["type"] == "profile"
        assert pinned[0].status.value == "loaded"
        await bench.supervisor.unload("b")
        pinned = [record for record in models(bench.app.proxy) if record.id == "chat"]
        assert pinned[0].status.value == "unloaded"
        assert (await bench.client.call("POST", "/api/models/unload/a")).status == 200

        for nothing in (None, ""):
            assert (await activate({"name": "home"})).json() == {"active": "home"}
            assert (await activate({"name": nothing})).json() == {"active": None}
        bad: list[tuple[Any, int]] = [
            ({}, 400),
            ({"name": 1}, 400),
            ([], 400),
            ({"name": "x"}, 404),
        ]
        for value, status in bad:
            assert (await activate(value)).status == status
        assert (await bench.client.call("PUT", "/api/profiles/active", body=b"x")).status == 400

    run_proxied(main, profiles=PROFILES)


# ---- cancelling
def test_cancel_endpoint_ends_a_waiting_request() -> None:
    """A cancelled request that waits is told so; it is never an empty 200."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        held = chat(bench, "a")
        await held.until(lambda call: call.messages)
        waiting = chat(bench, "b")
        await wait_until_async(lambda: len(bench.app.proxy.in_flight.open) == 2)
        number = max(bench.app.proxy.in_flight.open)
        answer = await bench.client.call("POST", f"/api/inflight/{number}/cancel")

        assert answer.json() == {"msg": "ok"}
        refused = await waiting.answer()
        assert (refused.status, refused.error()["code"]) == (499, "request_cancelled")
        for unknown in (number, 999, "x", "-1", "%C2%B2"):
            gone = await bench.client.call("POST", f"/api/inflight/{unknown}/cancel")
            assert gone.status == 404
        held.leave()
        await held.task

    run_proxied(main)


def test_cancel_endpoint_ends_a_stream() -> None:
    """A cancelled stream breaks off: its end is no clean one, and its server sees the close."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        held = chat(bench, "a")
        await held.until(lambda call: call.messages)
        (number,) = bench.app.proxy.in_flight.open
        await bench.client.call("POST", f"/api/inflight/{number}/cancel")
        with pytest.raises(Exception, match="cancelled by the API"):
            await held.task

        assert not held.is_complete
        assert bench.supervisor["a"].in_flight == 0
        assert bench.app.proxy.in_flight.open == {}

    run_proxied(main)


# ---- paths that are not clean
@pytest.mark.parametrize(
    ("method", "target", "status", "location"),
    [
        ("GET", "//v1/models", 301, "/v1/models"),
        ("HEAD", "/v1//models", 301, "/v1/models"),
        ("GET", "/v1/./models?a=//x&b", 301, "/v1/models?a=//x&b"),
        ("GET", "/x/../running", 301, "/running"),
        ("GET", "/../../health", 301, "/health"),
        ("GET", "//", 301, "/"),
        ("GET", "//ui/", 301, "/ui/"),
        ("POST", "/v1//chat/completions", 308, "/v1/chat/completions"),
        ("POST", "//v1/audio/../chat/completions?x=1", 308, "/v1/chat/completions?x=1"),
        ("GET", "//upstream/a/b%2Fc%20d", 301, "/upstream/a/b%2Fc%20d"),
        ("DELETE", "/./upstream/a/x", 308, "/upstream/a/x"),
        ("GET", "//api/models/sp%20ace/history", 301, "/api/models/sp%20ace/history"),
        ("GET", '//logs/stream/\\\t"<', 301, "/logs/stream/%5C%09%22%3C"),
        ("GET", '//api/captures/1?\\\t"<', 301, "/api/captures/1?%5C%09%22%3C"),
    ],
)
def test_unclean_path_is_redirected_to_the_clean_one(
    method: str, target: str, status: int, location: str
) -> None:
    """Empty segments and dots go, the query stays; what changes something keeps its method."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(method, target)

        assert (answer.status, answer.header("location")) == (status, location)
        assert bench.supervisor["a"].incarnation == 0

    run_proxied(main)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/x", "/\\evil.example", "//\\evil.example/../..//x", "/x/..//evil.example",
        "/v1//modelz", "//upstream/a//b", "//upstream/a/../b", "/x/%2e%2e/health", "//v1/%zz",
    ],
)  # fmt: skip
def test_unclean_path_of_no_route_is_404(target: str) -> None:
    """Other hosts, unknown paths, and what would change the bytes for a model: 404."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", target)

        assert (answer.status, answer.header("location")) == (404, None)

    run_proxied(main)


def test_unclean_path_without_a_key_is_401() -> None:
    """Without a key an unclean path is 401, like any other."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", "//running")

        assert (answer.status, answer.header("location")) == (401, None)

    run_proxied(main, options=ProxyOptions(keys=(ApiKey(key="sk"),)))


SEGMENTS = [
    b"", b".", b"..", b"...", b"evil.example", b"\\evil.example", b"@evil", b"a:b", b"%2e%2e",
    b"%2F", b"\t", b"\\", b"ui", b"running", b"x\r\nSet-Cookie: a", b"\xff", b"http:",
]  # fmt: skip


@given(st.lists(st.sampled_from(SEGMENTS), max_size=6), st.sampled_from(SEGMENTS))
def test_redirect_never_leaves_this_host(segments: list[bytes], query: bytes) -> None:
    """Whatever a path is made of: where it leads to is a path here, as browsers read it too."""
    raw = b"/" + b"/".join(segments)
    path = unquote_to_bytes(raw).decode("latin-1")
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": raw, "query_string": query,
        "headers": [],
    }  # fmt: skip
    location = clean_location(Request(scope, receive_nothing))

    if location is not None:
        assert re.fullmatch(rb"/([A-Za-z0-9%._~!$&'()*+,;=:@?-][ -~]*)?", location)
        assert not re.search(rb"[\\\s\"<>]", location)
        assert urljoin("http://here/x", location.decode()).startswith("http://here/")
    assert cleaned(cleaned(raw)) == cleaned(raw)


async def receive_nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


# ---- passthrough
TRAVERSALS = [
    "/a/%2e%2e/b", "/..%2f..", "//x//", "/%2F", "/{}", "/%22", "/caf%C3%A9", "/%FF", "/a%20b",
    "/;x=1", "/~u", "/a?b=%2F&c", "/%252F",
]  # fmt: skip


@pytest.mark.parametrize("rest", TRAVERSALS)
@row("C28")
def test_upstream_path_bytes_are_unchanged(rest: str) -> None:
    """Whatever stands after the model, its server gets the very bytes."""

    async def main(bench: Bench) -> None:
        await bench.client.call("GET", f"/upstream/a{rest}")

        assert bench.server.last.target == rest

    run_proxied(main)


@pytest.mark.parametrize("rest", ["/%00", "/%zz", "/%", "/a%2"])
@row("C28")
def test_upstream_path_with_bad_escapes_is_400(rest: str) -> None:
    """An escape that is malformed, or stands for NUL, is refused."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", f"/upstream/a{rest}")

        assert answer.status == 400
        assert bench.supervisor["a"].incarnation == 0

    run_proxied(main)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("org/model", "org/model"), ("org/model", "org%2Fmodel"), ("sp ace", "sp%20ace"),
        ("m\u00fc", "m%C3%BC"), ("a", "a"), ("a/b", "a/b"), ("..", "%2e%2e"),
        ("org%2Fmodel", "org%252Fmodel"),
    ],
)  # fmt: skip
@row("C29")
def test_upstream_path_with_encoded_model_names_is_resolved(name: str, spelled: str) -> None:
    """A model is found by the longest prefix, decoded once; the rest begins after it."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", f"/upstream/{spelled}/v1/x?q=1", body=b"{}")

        assert answer.status == 200
        assert bench.server.last.target == "/v1/x?q=1"
        assert bench.supervisor[name].incarnation == 1

    run_proxied(main, "a", *{"org/model", "sp ace", "m\u00fc", "a/b", "..", "org%2Fmodel"})


def test_upstream_path_redirects_and_unknown_models() -> None:
    """Without a slash the client is sent to where relative links work; strangers are unknown."""

    async def main(bench: Bench) -> None:
        got = await bench.client.call("GET", "/upstream/a?x=%2F")
        posted = await bench.client.call("POST", "/upstream/a")
        unknown = await bench.client.call("GET", "/upstream/nobody/x")

        assert (got.status, got.header("location")) == (301, "/upstream/a/?x=%2F")
        assert (posted.status, posted.header("location")) == (308, "/upstream/a/")
        assert (unknown.status, unknown.error()["code"]) == (404, "model_not_found")
        assert bench.supervisor["a"].incarnation == 0

    run_proxied(main)


def test_upstream_path_that_is_ignored_starts_no_model() -> None:
    """A path that is ignored is 409 while the model is not ready, and passes once it is."""

    async def main(bench: Bench) -> None:
        refused = await bench.client.call("GET", "/upstream/a/style.css")
        assert refused.status == 409
        assert "path matches upstream.ignorePaths" in refused.error()["message"]
        assert bench.supervisor["a"].incarnation == 0
        await bench.client.call("GET", "/upstream/a/")
        assert (await bench.client.call("GET", "/upstream/a/style.css")).status == 200

    run_proxied(main, ignored=[re.compile(r".*\.(js|css)$")])


def test_upstream_path_bodies_are_not_filtered() -> None:
    """Bodies below /upstream are passed on unread, in pieces too."""
    card = ModelDefinition(id="a", use_model_name="other")

    async def main(bench: Bench) -> None:
        pieces = [b'{"model":', b'"a"}']
        await bench.client.call("PUT", "/upstream/a/v1/chat/completions", pieces=pieces)

        assert (bench.server.last.method, bench.server.last.body) == ("PUT", b'{"model":"a"}')

    run_proxied(main, card)


def test_comfyui_path_reaches_its_model() -> None:
    """Only ComfyUI's first page starts it; all else is 409 until it runs."""

    async def main(bench: Bench) -> None:
        early = await bench.client.call("GET", "/comfyui/queue")
        first = await bench.client.call("GET", "/comfyui/?x=1")
        late = await bench.client.call("POST", "/comfyui/api/%2F", body=b"x")

        assert early.status == 409
        assert "only /comfyui/ can start it" in early.error()["message"]
        assert (first.status, late.status) == (200, 200)
        assert [r.target for r in bench.server.received] == ["/?x=1", "/api/%2F"]
        assert (await bench.client.call("GET", "/comfyui/%00")).status == 400

    run_proxied(main, "comfyui_auto")


def test_comfyui_path_without_comfyui_is_404() -> None:
    """Where no such model is configured there is nothing."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.call("GET", "/comfyui/")).status == 404

    run_proxied(main)


# ---- UI files
def test_ui_files_are_served(tmp_path: Path) -> None:
    """Files come from one folder; pages of the application are its index, the rest is 404."""
    (tmp_path / "ui").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "ui"
    (root / "index.html").write_text("<!doctype html>")
    (root / "app.js").write_text("plain " * 500)
    (root / "favicon.ico").write_bytes(b"icon")

    async def main(bench: Bench) -> None:
        call = bench.client.call
        index = await call("GET", "/ui/")
        assert (index.status, index.body) == (200, b"<!doctype html>")
        assert index.header("content-type") == "text/html; charset=utf-8"
        assert "default-src 'self'" in (index.header("content-security-policy") or "")
        assert index.header("x-content-type-options") == "nosniff"
        assert (await call("GET", "/ui/models")).body == b"<!doctype html>"
        for path, location in (
            ("models/", "../models"),
            ("models/x", "../models"),
            ("a%0d%0aX:%20y/b/c", "../../a%0D%0AX%3A%20y"),
            ("/evil.example/x", "../../"),
        ):
            moved = await call("GET", f"/ui/{path}")
            assert (moved.status, moved.header("location")) == (302, location)
        assert (await call("GET", "/ui/missing.js")).status == 404
        plain = await call("GET", "/ui/app.js")
        assert (plain.body, plain.header("content-encoding")) == (b"plain " * 500, None)
        packed = await call("GET", "/ui/app.js", headers={"Accept-Encoding": "gzip, br"})
        assert packed.header("content-encoding") == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        small = await call("GET", "/ui/", headers={"Accept-Encoding": "gzip"})
        assert small.header("content-encoding") is None
        again = await call("GET", "/ui/app.js", headers={"If-None-Match": plain.header("etag")})
        assert (again.status, again.body) == (304, b"")
        assert (await call("GET", "/favicon.ico")).body == b"icon"
        for path in ("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "%00.x", "x" * 5000):
            answer = await call("GET", f"/ui/{path}")
            assert b"secret" not in answer.body.replace(b"secret.txt", b"")

    run_proxied(main, options=ProxyOptions(ui_root=root))


def test_ui_that_is_missing_is_404() -> None:
    """Without a UI its paths are 404, not an error of ours."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.call("GET", "/ui/")).status == 404

    run_proxied(main)


# ---- logs
def test_logs_endpoint_returns_history() -> None:
    """Logs are shown together or apart, with their history or without, until the client leaves."""

    async def main(bench: Bench) -> None:
        bench.app.proxy.own_log.line("from the proxy")
        bench.supervisor["org/m"].log.write(b"from the model\n")
        call = bench.client.call
        both = await call("GET", "/logs")
        assert both.body == b"from the proxy\nfrom the model\n"
        assert both.header("content-type") == "text/plain; charset=utf-8"
        browser = await call("GET", "/logs", headers={"Accept": "text/html"})
        assert (browser.status, browser.header("location")) == (302, "/ui/")
        assert (await call("GET", "/logs/stream/nobody")).status == 400
        expected = {
            "/logs/stream": b"from the model\nfrom the proxy\n",
            "/logs/stream/proxy": b"from the proxy\n",
            "/logs/stream/upstream": b"from the model\n",
            "/logs/stream/org/m": b"from the model\n",
            "/logs/stream/alias": b"from the model\n",
        }
        for target, history in expected.items():
            stream = bench.client.begin("GET", target)
            await stream.until(lambda c, h=history: len(c.body) == len(h))  # type: ignore[misc]
            assert b"".join(sorted(stream.body.splitlines(keepends=True))) == history
            assert dict(stream.headers)["x-accel-buffering"] == "no"
            stream.leave()
            await stream.task
        fresh = bench.client.begin("GET", "/logs/stream/org/m?no-history")
        await fresh.until(lambda c: c.messages)
        await wait_until_async(lambda: _write_until(bench, fresh))
        assert b"from the model" not in fresh.body
        fresh.leave()
        await fresh.task

    run_proxied(main, ModelDefinition(id="org/m", aliases=("alias",)))


def _write_until(bench: Bench, call: Call) -> bool:
    bench.supervisor["org/m"].log.write(b"news\n")
    return b"news" in call.body


@row("C38")
def test_proxy_log_entry_is_one_line() -> None:
    """What clients send cannot break or paint the lines of the log."""
    with keeping_log() as ring:
        logging.getLogger("swapchart.x").warning("a\x1b[31m%s", "b\rc\nd\x00")

    lines = ring.history().decode().split("\n")
    assert lines[0].endswith("[WARNING] a\\x1b[31mb\\x0dc")
    assert lines[1:] == ["    d\\x00", ""]


# ---- lists of models
def test_models_endpoint_has_a_constant_creation_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of a running proxy is the same an hour later."""

    async def main(bench: Bench) -> None:
        before = (await bench.client.call("GET", "/v1/models")).json()
        monkeypatch.setattr(model_listing, "time", lambda: 2e9)
        after = (await bench.client.call("GET", "/v1/models")).json()

        assert before == after
        assert before["data"][0]["created"] > 1.6e9

    run_proxied(main)


def test_models_endpoint_returns_records() -> None:
    """Models, aliases, peers and selectors are told apart, sorted, and the unlisted left out."""
    from swapchart.adapters.proxy.models.definitions import Capabilities

    cards = [
        ModelDefinition(
            id="m", aliases=("m2",), name=" M ", description=" d ",
            capabilities=Capabilities(
                inputs=("text", "image"), outputs=("text",), has_tools=True, context=4096
            ),
            metadata={"own": 1, "capabilities": "lost", "type": "lost"},
        ),
        ModelDefinition(id="hidden", is_unlisted=True),
        ModelDefinition(id="plain", metadata={"capabilities": "kept"}),
        ModelDefinition(id="ears", capabilities=Capabilities(inputs=("audio",), outputs=("text",))),
        ModelDefinition(id="rank", capabilities=Capabilities(is_reranker=True)),
    ]  # fmt: skip
    options = ProxyOptions(include_aliases=True)
    extra: dict[str, Any] = {
        "peers": [PeerDefinition(id="p", url="http://127.0.0.1:9", models=("x/y",))],
        "selectors": [
            SelectorDefinition(id="s", strategy="spillover", targets=("m", "plain"), spillover=3),
            SelectorDefinition(id="s-pin", strategy="pin", targets=("plain", "m"), name="S"),
            SelectorDefinition(id="s-hidden", strategy="pin", targets=("m",), is_unlisted=True),
        ],
    }

    async def main(bench: Bench) -> None:
        await bench.client.chat("m")
        answer = await bench.client.call("GET", "/v1/models")
        assert answer.json()["object"] == "list"
        data = {record["id"]: record for record in answer.json()["data"]}

        assert list(data) == ["ears", "m", "m2", "p/x/y", "plain", "rank", "s", "s-pin"]
        m = data["m"]
        assert (m["object"], m["owned_by"], m["name"], m["description"]) == (
            "model", "swapchart", "M", "d",
        )  # fmt: skip
        assert m["architecture"] == {
            "input_modalities": ["text", "image"], "output_modalities": ["text"],
            "modality": "text+image->text",
        }  # fmt: skip
        assert m["capabilities"] == {"vision": True, "function_calling": True}
        assert m["supported_parameters"] == ["tools", "tool_choice"]
        assert m["context_length"] == 4096
        assert m["meta"] == {
            "llamaswap": {"own": 1, "type": "model", "aliases": ["m2"]}, "n_ctx": 4096,
        }  # fmt: skip
        assert m["status"] == {"value": "loaded"}
        assert data["m2"]["meta"]["llamaswap"]["modelID"] == "m"
        assert data["m2"]["meta"]["llamaswap"]["type"] == "alias"
        assert data["plain"]["meta"]["llamaswap"] == {"type": "model", "capabilities": "kept"}
        assert data["plain"]["status"] == {"value": "unloaded"}
        assert data["ears"]["capabilities"] == {"audio_transcriptions": True}
        assert data["rank"]["capabilities"] == {"reranker": True}
        assert data["p/x/y"]["name"] == "p: x/y"
        assert data["p/x/y"]["meta"]["llamaswap"] == {"type": "peer", "peerID": "p"}
        assert data["s"]["meta"]["llamaswap"] == {
            "type": "selector", "strategy": "spillover", "targets": ["m", "plain"], "spillover": 3,
        }  # fmt: skip
        assert (data["s"]["status"], data["s-pin"]["status"]) == (
            {"value": "loaded"}, {"value": "unloaded"},
        )  # fmt: skip
        assert data["s-pin"]["name"] == "S"

    run_proxied(main, *cards, options=options, **extra)


# ---- failures of upstreams
def test_upstream_failures_are_502_with_the_reason() -> None:
    """A server that is not there, or hangs up, is a 502 that says so, and never an empty one."""

    async def main(bench: Bench) -> None:
        async def hang_up(received: Received, writer: asyncio.StreamWriter) -> None:
            writer.close()

        bench.server.respond = hang_up
        answer = await bench.client.chat("a")
        assert (answer.status, answer.error()["code"]) == (502, "upstream_head")

        async def nonsense(received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")
            await writer.drain()

        bench.server.respond = nonsense
        assert (await bench.client.chat("a")).status == 502

    run_proxied(main)


@row("C43")
def test_upstream_headers_that_are_invalid_are_502() -> None:
    """A header field that would end early is refused before it reaches anybody."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.chat("a", headers={"X-Bad": "a\rb"})

        assert answer.status == 400
        assert bench.server.received == []

    run_proxied(main)


def test_upstream_that_sends_no_headers_times_out() -> None:
    """A server that does not begin to answer in time is a 504."""
    card = ModelDefinition(id="a", limits=UpstreamTimeouts(header_s=0.1))

    async def never(received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main(bench: Bench) -> None:
        answer = await bench.client.chat("a")

        assert (answer.status, answer.error()["code"]) == (504, "upstream_head")

    run_proxied(main, card, respond=never)


def test_stream_that_stalls_counts_as_a_failure_of_its_model() -> None:
    """A pause within an answer beyond the limit breaks it off and is noted."""
    card = ModelDefinition(id="a", limits=UpstreamTimeouts(stall_s=0.1))

    async def main(bench: Bench) -> None:
        stall = bench.supervisor["a"]._driver.activities.liveness.stall
        held = chat(bench, "a")
        with pytest.raises(Exception, match="no more of the response"):
            await held.task

        assert stall.is_set()
        assert held.body == b"data: 1\n"

    run_proxied(main, card, respond=hold)


@row("C44")
def test_forwarded_headers_of_untrusted_clients_are_dropped() -> None:
    """A client's word about addresses counts only if the client is a proxy of ours."""
    fields = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}

    async def main(bench: Bench) -> None:
        await bench.client.chat("a", headers=fields)
        assert bench.server.last.header("x-forwarded-for") == "127.0.0.1"
        assert bench.server.last.header("x-forwarded-proto") is None

    async def trusted(bench: Bench) -> None:
        await bench.client.chat("a", headers=fields)
        assert bench.server.last.header("x-forwarded-for") == "6.6.6.6, 127.0.0.1"
        assert bench.server.last.header("x-forwarded-proto") == "https"

    run_proxied(main)
    run_proxied(trusted, options=ProxyOptions(trusted_proxies=("127.0.0.0/8",)))


@row("C24")
def test_events_are_relayed_without_delay() -> None:
    """Each event reaches the client by itself, and is not joined to the next."""

    async def main(bench: Bench) -> None:
        go = asyncio.Event()

        async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
            await say_events(writer, b"data: 1\n\n")

        async def slowly(received: Received, writer: asyncio.StreamWriter) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
            await writer.drain()
            await go.wait()
            writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
            await writer.drain()

        bench.server.respond = slowly
        stream = chat(bench, "a", stream=True)
        await stream.until(lambda call: call.body == b"data: 1\n\n")
        go.set()
        assert (await stream.answer()).body == b"data: 1\n\ndata: 2\n\n"
        assert dict(stream.headers)["x-accel-buffering"] == "no"

    run_proxied(main)


def test_body_gets_one_response() -> None:
    """What the server says is what the client gets: status, fields and bytes."""

    async def teapot(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(writer, b"short and stout", status=418, kind="text/x-tea")

    async def main(bench: Bench) -> None:
        answer = await bench.client.chat("a")

        assert (answer.status, answer.body) == (418, b"short and stout")
        assert answer.header("content-type") == "text/x-tea"
        assert answer.header("content-length") == "15"

    run_proxied(main, respond=teapot)
