"""Routes below ``/ollama/``: rights, names, streams and their ends, loading, and wrong requests."""

from __future__ import annotations

import asyncio
import gzip
import json
from asyncio import StreamWriter
from typing import Any

import pytest
from tools.asgi import Answer, Bench, Received, proxied, run_proxied, say, say_events

from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.models.definitions import (
    BodyFilters,
    Capabilities,
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
)
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

CHAT, GENERATE = "/ollama/api/chat", "/ollama/api/generate"
TALK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
REFUSED = [
    ("POST", "/ollama/api/push"), ("POST", "/ollama/api/create"), ("POST", "/ollama/api/copy"),
    ("DELETE", "/ollama/api/delete"), ("POST", "/ollama/api/blobs/sha256:0"),
    ("HEAD", "/ollama/api/blobs/sha256:0"),
]  # fmt: skip
KEYED = ProxyOptions(
    keys=(
        ApiKey(key="sk-infer", scopes=frozenset({"infer"})),
        ApiKey(key="sk-admin", scopes=frozenset({"admin"})),
        ApiKey(key="sk-metrics", scopes=frozenset({"metrics"})),
        ApiKey(key="sk-b", models=("b",)),
    )
)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def delta(content: str, reason: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": content}, "finish_reason": reason}]})


STREAM = delta("hé€") + delta("y😀") + delta("", "stop") + b"data: [DONE]\n\n"


def lines(answer: Answer) -> list[Any]:
    return [json.loads(line) for line in answer.body.splitlines()]


async def stream(received: Received, writer: StreamWriter) -> None:
    await say_events(writer, STREAM)


async def vector(received: Received, writer: StreamWriter) -> None:
    await say(writer, b'{"data": [{"embedding": [1]}]}')


async def whole(received: Received, writer: StreamWriter) -> None:
    message = {"role": "assistant", "content": "hey"}
    value = {"choices": [{"message": message, "finish_reason": "stop"}]}
    await say(writer, json.dumps(value).encode())


async def chat(bench: Bench, name: str = "a", **more: Any) -> Answer:
    options = {key: more.pop(key) for key in ("headers",) if key in more}
    value = {"model": name, "messages": TALK, **more}
    return await bench.client.call("POST", CHAT, value=value, **options)


# ---- streams
def test_stream_in_pieces_of_any_size_has_the_same_records() -> None:
    """Events and characters may be split between two pieces anywhere."""

    async def one_byte_each(received: Received, writer: StreamWriter) -> None:
        await say_events(writer, *(bytes([byte]) for byte in STREAM))

    async def main(bench: Bench) -> None:
        for respond in (stream, one_byte_each):
            bench.server.respond = respond
            answer = await chat(bench)
            assert answer.status == 200
            assert answer.header("content-type") == "application/x-ndjson"
            found = lines(answer)
            assert [line["message"]["content"] for line in found] == ["hé€", "y😀", ""]
            assert [line["done"] for line in found] == [False, False, True]
            assert found[-1]["load_duration"] <= found[-1]["total_duration"]

    run_proxied(main)


def test_request_for_a_model_is_translated() -> None:
    """The server gets OpenAI's request, with headers of its own body, and no key of the proxy."""

    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        await chat(bench, headers={"accept": "application/x-ndjson", "x-mine": "1"})
        sent = bench.server.last
        assert (sent.method, sent.target) == ("POST", "/v1/chat/completions")
        assert sent.json()["model"] == "a"
        assert sent.json()["messages"] == TALK
        assert sent.header("content-type") == "application/json"
        assert sent.header("content-length") == str(len(sent.body))
        assert sent.header("accept") is None
        assert sent.header("x-mine") == "1"

    run_proxied(main)


def test_response_that_is_no_stream_is_one_object() -> None:
    """Without a stream there is one object, and a server that streams nothing is understood."""

    async def main(bench: Bench) -> None:
        bench.server.respond = whole
        for is_stream, kind in ((False, "application/json"), (True, "application/x-ndjson")):
            answer = await chat(bench, stream=is_stream)
            (record,) = lines(answer)
            assert (record["message"]["content"], record["done"]) == ("hey", True)
            assert answer.header("content-type") == kind

    run_proxied(main)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([delta("he"), event({"error": {"message": "out of memory"}}), delta("no")],
         "out of memory"),
        ([delta("he"), b"data: {nonsense\n\n"], "no JSON"),
        ([delta("he"), b"data: \xff\xfe\n\n"], "no JSON"),
        ([delta("he")], "ended its stream early"),
        ([delta("he") + b"data: [1]\n\n"], "no JSON"),
    ],
)  # fmt: skip
def test_error_in_a_stream_is_its_last_line(events: list[bytes], text: str) -> None:
    """An error in the middle of a stream is a line, and nothing follows, as Ollama does it."""

    async def respond(received: Received, writer: StreamWriter) -> None:
        await say_events(writer, *events)

    async def main(bench: Bench) -> None:
        answer = await chat(bench)
        first, last = lines(answer)
        assert (answer.status, first["message"]["content"]) == (200, "he")
        assert last.keys() == {"error"}
        assert text in last["error"]
        assert not bench.app.proxy.in_flight.open

    run_proxied(main, respond=respond)


@pytest.mark.parametrize("is_stream", [True, False])
def test_death_of_the_server_in_a_response_is_an_error(is_stream: bool) -> None:
    """A response that is cut off gets an error: a line in a stream, else a status."""

    async def respond(received: Received, writer: StreamWriter) -> None:
        kind = b"text/event-stream" if is_stream else b"application/json"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nContent-Length: 999\r\n\r\n"
        )
        writer.write(delta("he"))
        await writer.drain()
        writer.close()

    async def main(bench: Bench) -> None:
        answer = await chat(bench, stream=is_stream)
        *_, last = lines(answer)
        assert answer.status == (200 if is_stream else 502)
        assert last.keys() == {"error"}
        assert bench.supervisor["a"].in_flight == 0

    run_proxied(main, respond=respond)


def test_client_that_disconnects_ends_the_request_upstream() -> None:
    """The model's server stops generating, and the model is released."""

    async def endless(received: Received, writer: StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        writer.write(head)
        while True:
            writer.write(delta("x"))
            await writer.drain()
            await asyncio.sleep(0.001)

    async def main(bench: Bench) -> None:
        call = bench.client.begin("POST", CHAT, value={"model": "a", "messages": TALK})
        await call.until(lambda it: it.body.count(b"\n") > 2)
        call.leave()
        await call.task
        async with asyncio.timeout(10):
            while not bench.server.gone:  # noqa: ASYNC110 - a socket says so
                await asyncio.sleep(0.01)
        assert bench.supervisor["a"].in_flight == 0
        assert not bench.app.proxy.in_flight.open

    run_proxied(main, respond=endless)


def test_cancellation_by_the_api_is_an_error_in_the_stream() -> None:
    async def stuck(received: Received, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + delta("x"))
        await writer.drain()
        await asyncio.sleep(60)

    async def main(bench: Bench) -> None:
        call = bench.client.begin("POST", CHAT, value={"model": "a", "messages": TALK})
        await call.until(lambda it: b"\n" in it.body)
        (record,) = bench.app.proxy.in_flight.open.values()
        await bench.client.call("POST", f"/api/inflight/{record.id}/cancel", value={})
        assert "cancelled" in lines(await call.answer())[-1]["error"]

    run_proxied(main, respond=stuck)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_error_of_the_server_keeps_its_status(status: int) -> None:
    async def respond(received: Received, writer: StreamWriter) -> None:
        body = b'{"error": {"message": "no", "type": "x"}}'
        await say(writer, body, status=status)

    async def main(bench: Bench) -> None:
        for is_stream in (True, False):
            answer = await chat(bench, stream=is_stream)
            assert (answer.status, answer.json()) == (status, {"error": "no"})

    run_proxied(main, respond=respond)


# ---- names and filters
def test_names_with_and_without_their_tag_are_one_model() -> None:
    """`:latest` is the tag of names without one, in both directions."""

    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        for name, sent in (
            ("a", "a"), ("a:latest", "a"), ("b:latest", "b:latest"), ("b", "b:latest"),
            ("q:8b", "q:8b"), ("nick:latest", "nick"), ("pick:latest", "a"),
        ):  # fmt: skip
            answer = await chat(bench, name)
            assert answer.status == 200, name
            assert lines(answer)[0]["model"] == name
            assert bench.server.last.json()["model"] == sent
        for name in ("q", "q:latest", "a:8b", "none"):
            answer = await chat(bench, name)
            assert answer.status == 404, name
            assert answer.json().keys() == {"error"}
        tags = (await bench.client.call("GET", "/ollama/api/tags")).json()["models"]
        assert [model["model"] for model in tags] == [
            "a:latest", "b:latest", "pick:latest", "q:8b",
        ]  # fmt: skip

    pick = SelectorDefinition(id="pick", strategy="pin", targets=("a",))
    nick = ModelDefinition(id="a", aliases=("nick",))
    run_proxied(main, nick, "b:latest", "q:8b", selectors=[pick])


def test_filters_and_profiles_hold() -> None:
    """Filters change the translated body, and the active profile gives names their meaning."""
    filters = BodyFilters(strip=("temperature",), set_params={"seed": 5})

    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        await chat(bench, options={"temperature": 1, "seed": 1, "top_k": 2})
        sent = bench.server.last.json()
        assert (sent.get("temperature"), sent["seed"], sent["top_k"]) == (None, 5, 2)
        bench.app.proxy.activate_profile("day")
        await chat(bench, "main:latest")
        assert bench.server.last.json()["model"] == "b"
        assert (await chat(bench, "off")).status == 404

    day = ProfileDefinition(id="day", pins={"main": "b", "off": None})
    run_proxied(main, ModelDefinition(id="a", filters=filters), "b", profiles=[day])


def test_peer_gets_no_parameters_of_llama_server() -> None:
    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        peer = PeerDefinition(id="p", url=bench.server.url, models=("m",))
        async with proxied("a", peers=[peer]) as front:
            answer = await chat(front, "p/m", think=False)
            assert lines(answer)[-1]["done"] is True
            assert "chat_template_kwargs" not in bench.server.last.json()
            load = await front.client.call("POST", GENERATE, value={"model": "p/m"})
            assert load.json()["done_reason"] == "load"

    run_proxied(main, "x")


# ---- loading
def test_request_without_a_prompt_loads_and_unloads() -> None:
    """An empty prompt loads the model, and `keep_alive: 0` unloads it; it starts nothing."""

    async def main(bench: Bench) -> None:
        life = bench.supervisor["a"]
        for target, value in (
            (CHAT, {"messages": []}), (GENERATE, {"prompt": ""}), (GENERATE, {}),
            ("/ollama/api/embed", {"input": []}), ("/ollama/api/embeddings", {"prompt": ""}),
        ):  # fmt: skip
            gone = await bench.client.call("POST", target, value={"model": "a", "keep_alive": 0})
            assert gone.status == 200
            assert life.state == "stopped"
            answer = await bench.client.call("POST", target, value={"model": "a", **value})
            assert answer.status == 200, answer.body
            assert life.state == "ready"
            if target in (CHAT, GENERATE):
                assert (answer.json()["done"], answer.json()["done_reason"]) == (True, "load")
                assert gone.json()["done_reason"] == "unload"
            ps = (await bench.client.call("GET", "/ollama/api/ps")).json()["models"]
            assert [model["name"] for model in ps] == ["a:latest"]
            assert ps[0]["expires_at"].startswith("2318-")
            unload = {"model": "a", "keep_alive": "0s"}
            await bench.client.call("POST", target, value=unload)
            await life.wait_for("stopped")
        assert bench.server.received == []

    run_proxied(main)


def test_keep_alive_sets_the_idle_limit() -> None:
    """The limit of the last request counts, as with X-Keep-Alive."""

    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        life, now = bench.supervisor["a"], asyncio.get_running_loop().time
        for value, seconds in (("5m", 300), (60, 60), (-1, None), ("30s", 30)):
            await chat(bench, keep_alive=value)
            deadline = life.deadline("idle_limit")
            if seconds is None:
                assert deadline is None
            else:
                assert deadline is not None
                assert seconds - 5 < deadline - now() <= seconds
        await chat(bench, headers={"x-keep-alive": "20"})
        assert (life.deadline("idle_limit") or 0) - now() <= 20
        ps = (await bench.client.call("GET", "/ollama/api/ps")).json()["models"]
        assert not ps[0]["expires_at"].startswith("2318-")
        await chat(bench, keep_alive=0)
        await life.wait_for("stopped")

    run_proxied(main)


# ---- facts
def test_show_tells_what_is_configured() -> None:
    """VS Code reads capabilities, the name and the context length."""
    able = Capabilities(inputs=("text", "image"), has_tools=True, context=8192)

    async def main(bench: Bench) -> None:
        shown = await bench.client.call("POST", "/ollama/api/show", value={"model": "a:latest"})
        value = shown.json()
        assert value["capabilities"] == ["completion", "tools", "vision"]
        family = value["model_info"]["general.architecture"]
        assert value["model_info"]["general.basename"] == "a"
        assert value["model_info"][f"{family}.context_length"] == 8192
        plain = await bench.client.call("POST", "/ollama/api/show", value={"name": "b"})
        assert plain.json()["capabilities"] == ["completion", "tools"]
        unknown = await bench.client.call("POST", "/ollama/api/show", value={"model": "none"})
        assert (unknown.status, unknown.json().keys()) == (404, {"error"})

    run_proxied(main, ModelDefinition(id="a", capabilities=able), "b")


def test_server_is_recognized_as_ollama() -> None:
    """Clients look at the first page and at the version; GET routes answer HEAD too."""

    async def main(bench: Bench) -> None:
        for path in ("/ollama", "/ollama/"):
            for method in ("GET", "HEAD"):
                answer = await bench.client.call(method, path)
                assert (answer.status, answer.body) == (200, b"Ollama is running")
        version = (await bench.client.call("GET", "/ollama/api/version")).json()["version"]
        assert tuple(map(int, version.split("."))) >= (0, 6, 4)
        assert (await bench.client.call("HEAD", "/ollama/api/tags")).status == 200

    run_proxied(main)


def test_pull_of_a_known_model_succeeds_and_changes_are_refused() -> None:
    async def main(bench: Bench) -> None:
        for name in ("a", "a:latest"):
            answer = await bench.client.call("POST", "/ollama/api/pull", value={"model": name})
            assert [line["status"] for line in lines(answer)][-1] == "success"
        value = {"name": "a", "stream": False}
        answer = await bench.client.call("POST", "/ollama/api/pull", value=value)
        assert answer.json() == {"status": "success"}
        unknown = await bench.client.call("POST", "/ollama/api/pull", value={"model": "none"})
        assert (unknown.status, unknown.json().keys()) == (501, {"error"})
        for method, path in REFUSED:
            refused = await bench.client.call(method, path, value={"model": "a"})
            assert (refused.status, refused.json().keys()) == (501, {"error"}), path
        assert bench.supervisor["a"].state == "stopped"

    run_proxied(main)


# ---- rights
INFERRING = {CHAT, GENERATE, "/ollama/api/embed", "/ollama/api/embeddings"}


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-infer", "sk-admin", "sk-metrics", "sk-b"])
def test_rights_of_each_route(key: str) -> None:
    """Inference needs `infer`, the rest any key, and only the first page none."""
    routes = [route for route in ROUTES.routes if route.path.startswith("/ollama")]
    headers = {"authorization": f"Bearer {key}"} if key else {}

    async def main(bench: Bench) -> None:
        for route in routes:
            path = route.path.replace("*", "x")
            answer = await bench.client.call(
                route.method, path, value={"model": "a", "keep_alive": 0}, headers=headers
            )
            if route.access == "open":
                wanted = {200}
            elif key in ("", "sk-wrong"):
                wanted = {401}
            elif (
                key == "sk-metrics"
                or (key == "sk-admin" and route.path in INFERRING)
                or (key == "sk-b" and route.operation.body is not None)
            ):
                wanted = {403}
            else:
                wanted = {200, 501}
            assert answer.status in wanted, (route.method, path, answer.body)
            if answer.status >= 400:
                assert answer.json().keys() == {"error"}
        assert len(routes) > 15

    run_proxied(main, options=KEYED)


def test_key_for_some_models_sees_and_uses_its_own() -> None:
    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        mine = {"authorization": "Bearer sk-b"}
        tags = await bench.client.call("GET", "/ollama/api/tags", headers=mine)
        assert [model["model"] for model in tags.json()["models"]] == ["b:latest"]
        assert (await chat(bench, "b:latest", headers=mine)).status == 200
        assert bench.server.last.header("authorization") is None
        await chat(bench, "a", headers={"authorization": "Bearer sk-infer"})
        ps = await bench.client.call("GET", "/ollama/api/ps", headers=mine)
        assert ps.json()["models"] == []
        assert (await chat(bench, "a", headers=mine)).status == 403

    run_proxied(main, options=KEYED)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421), ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200), ({"sec-fetch-site": "cross-site"}, 403),
    ],
)  # fmt: skip
def test_host_and_origin_are_checked(headers: dict[str, str], status: int) -> None:
    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        answer = await chat(bench, headers=headers)
        assert answer.status == status
        if status != 200:
            assert answer.json().keys() == {"error"}

    run_proxied(main)


# ---- wrong requests
BODIES: list[bytes] = [
    b"", b" ", b"{", b"[]", b"null", b'"x"', b"{}", b'{"model": 1}', b'{"model": ""}',
    b'{"model": "a", "messages": "x"}', b'{"model": "a", "messages": [1]}',
    b'{"model": "a", "messages": [{}]}', b'{"model": "a", "stream": "no"}', b"\xff\xfe",
    b'{"model": "a", "messages": [{"role": "user"}], "options": []}', b"[" * 100_000,
    b'{"model": "a", "messages": [{"role": "user", "images": ["!"]}]}',
    b'{"model": "a", "prompt": 1}', b'{"model": "a", "prompt": "x", "template": "t"}',
    b'{"model": "a", "keep_alive": "x"}', b'{"model": "a", "keep_alive": true}',
    b'{"model": "a", "input": 1}', b'{"model": "a", "input": ["x", 1]}',
    b'{"model": "' + b"a" * 5000 + b'", "messages": [{"role": "user"}], "prompt": "x"}',
    b'{"model": "\\u0000", "prompt": "x"}', b'{"model": "\\ud800", "prompt": "x"}',
]  # fmt: skip
POSTS = [
    route.path for route in ROUTES.routes
    if route.path.startswith("/ollama/api") and route.operation.body is not None
]  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
def test_wrong_bodies_are_errors_of_the_client(path: str) -> None:
    """Whatever is sent, the response is a status of its own, and an error in Ollama's form."""

    async def main(bench: Bench) -> None:
        bench.server.respond = vector
        for body in BODIES:
            answer = await bench.client.call("POST", path, body=body)
            assert answer.status in (200, 400, 404, 501), (body[:50], answer.body)
            if answer.status != 200:
                assert answer.json().keys() == {"error"}, body[:50]
        for coding, status in (("gzip", 400), ("br", 415)):
            headers = {"content-encoding": coding}
            answer = await bench.client.call("POST", path, body=b"nonsense", headers=headers)
            assert (answer.status, answer.json().keys()) == (status, {"error"})

    run_proxied(main)


def test_body_that_is_packed_or_marked_is_read() -> None:
    async def main(bench: Bench) -> None:
        bench.server.respond = stream
        body = json.dumps({"model": "a", "messages": TALK}).encode()
        packed = gzip.compress(body)
        for sent, headers in ((packed, {"content-encoding": "gzip"}), (b"\xef\xbb\xbf" + body, {})):
            answer = await bench.client.call("POST", CHAT, body=sent, headers=headers)
            assert lines(answer)[-1]["done"] is True
            assert bench.server.last.header("content-encoding") is None

    run_proxied(main)


def test_body_that_is_too_large_is_refused() -> None:
    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", CHAT, body=b"x" * 200)
        assert (answer.status, answer.json().keys()) == (413, {"error"})

    run_proxied(main, options=ProxyOptions(json_limit_bytes=100))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405), ("POST", "/ollama/api/tags", 405), ("POST", "/ollama/api/none", 404),
        ("GET", "/ollama/x", 404), ("POST", "/ollama/v1/chat/completions", 404),
        ("POST", "/ollama/", 405),
    ],
)  # fmt: skip
def test_other_paths_are_not_forwarded(method: str, path: str, status: int) -> None:
    """No path below /ollama/ goes to the server of a model unless it is a route."""

    async def main(bench: Bench) -> None:
        value = {"model": "a"} if method == "POST" else None
        answer = await bench.client.call(method, path, value=value)
        assert (answer.status, answer.json().keys()) == (status, {"error"})
        assert bench.server.received == []

    run_proxied(main)
