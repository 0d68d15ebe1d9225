"""The listener of Ollama's API, and Ollama's own Python client, against demo models."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import StreamWriter
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import ollama
import pytest
from tools import raw
from tools.asgi import Received, say, say_events, serving
from tools.clients import openai_client
from tools.net import LONG_S, free_port, wait_until
from tools.swapchart_process import Edited, Proxies, Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

TALK: Any = [{"role": "user", "content": "hello there"}]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
KEYS = [
    {"name": "home", "key": "sk-home", "scopes": ["infer"], "models": ["a", "broken"]},
    "sk-all",
]


class Listening:
    """A proxy with a listener for clients of Ollama; a context manager that closes its clients."""

    def __init__(self, proxy: SwapchartProcess, port: int) -> None:
        self.proxy, self.port = proxy, port
        self._clients = ExitStack()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()

    def client(self, key: str = "") -> ollama.Client:
        headers = {"authorization": f"Bearer {key}"} if key else None
        client = ollama.Client(f"http://127.0.0.1:{self.port}", headers=headers, trust_env=False)
        self._clients.callback(client._client.close)
        return client


def models() -> dict[str, Any]:
    able = {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 8192}
    return {
        "a": demo_model("a", capabilities=able),
        "b:8b": demo_model("b"),
        "broken": demo_model("broken", "--fail-load"),
        "long": demo_model("long", rate=100, filters={"setParams": {"ignore_eos": True}}),
    }


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn", "hypercorn --stock"])
def listening(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Listening]:
    proxies = Proxies(tmp_path_factory.mktemp("ollama"))
    port = free_port()
    config = {"ollama": {"listen": f"127.0.0.1:{port}"}}
    try:
        proxy = proxies.serve(models(), server=request.param, config=config)
        proxy.may_log = "broken"
        proxy.wait_said(f"http://127.0.0.1:{port}")
        with Listening(proxy, port) as found:
            yield found
        proxies.end()
    finally:
        proxies.close()


# ---- Ollama's own client
def test_client_lists_and_describes_models(listening: Listening) -> None:
    client = listening.client()

    assert [model.model for model in client.list().models] == [
        "a:latest", "b:8b", "broken:latest", "long:latest",
    ]  # fmt: skip
    shown = client.show("a")
    assert shown.capabilities == ["completion", "tools", "vision"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["unknown.context_length"] == 8192


def test_client_chats_with_and_without_a_stream(listening: Listening) -> None:
    client = listening.client()
    whole = client.chat("a", TALK, options={"num_predict": 4})
    pieces = list(client.chat("b:8b", TALK, stream=True, options={"num_predict": 4}))

    assert whole.message.content
    assert (whole.done, whole.done_reason, whole.eval_count) == (True, "length", 4)
    assert whole.prompt_eval_count
    assert whole.total_duration
    assert whole.load_duration is not None
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.message.content or "" for piece in pieces).strip()
    assert pieces[-1].eval_count == 4
    assert [model.model for model in client.ps().models] == ["b:8b"]


def test_client_generates_in_each_mode(listening: Listening) -> None:
    client, short = listening.client(), {"num_predict": 3}
    for more in ({}, {"raw": True}, {"suffix": "return x"}, {"system": "be short"}):
        found = client.generate("a", "hello there", options=short, **more)
        assert found.response, more
        assert (found.done_reason, found.eval_count) == ("length", 3), more
        *pieces, last = client.generate("a", "hello", stream=True, options=short, **more)
        assert pieces
        assert (last.done, last.eval_count) == (True, 3), more


def test_client_embeds(listening: Listening) -> None:
    client = listening.client()

    found = client.embed("a", ["one", "two"])
    assert [len(vector) for vector in found.embeddings] == [64, 64]
    assert list(found.embeddings[0]) == list(client.embeddings("a", "one").embedding)


def test_client_loads_and_unloads(listening: Listening) -> None:
    client = listening.client()
    assert client.generate("a", keep_alive="5m").done_reason == "load"
    (row,) = client.ps().models
    assert row.expires_at is not None

    assert client.generate("a", keep_alive=0).done_reason == "unload"
    wait_until(lambda: not client.ps().models, LONG_S, what="no model loaded")
    assert client.chat("a", keep_alive=-1).done_reason == "load"
    (row,) = client.ps().models
    assert row.expires_at is not None
    assert row.expires_at.year == 2318


def test_client_pulls_what_is_there_and_changes_nothing(listening: Listening) -> None:
    client = listening.client()

    assert client.pull("a").status == "success"
    assert [part.status for part in client.pull("a:latest", stream=True)][-1] == "success"
    changes: list[Callable[[], object]] = [
        lambda: client.pull("none"), lambda: client.delete("a"), lambda: client.copy("a", "c"),
        lambda: client.push("a"), lambda: client.create("c", from_="a"),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ollama.ResponseError, match="swapchart") as caught:
            change()
        assert caught.value.status_code == 501


def test_client_gets_errors_with_their_status(listening: Listening) -> None:
    client = listening.client()
    with pytest.raises(ollama.ResponseError, match="model not found") as unknown:
        client.chat("none", TALK)
    with pytest.raises(ollama.ResponseError, match="broken") as broken:
        list(client.chat("broken", TALK, stream=True))

    assert (unknown.value.status_code, broken.value.status_code) == (404, 502)


def test_async_client_chats_and_cancels(listening: Listening) -> None:
    """A stream that the client leaves ends at the model too."""

    async def main() -> None:
        async with ollama.AsyncClient(
            f"http://127.0.0.1:{listening.port}", trust_env=False
        ) as client:
            found = await client.chat("a", TALK, options={"num_predict": 2})
            assert found.eval_count == 2
            stream = await client.chat("long", TALK, stream=True, options={"num_predict": 10**6})
            async for _ in stream:
                break
            await stream.aclose()

    asyncio.run(main())
    listening.proxy.wait_idle("long")


def test_death_of_a_model_in_a_stream_is_an_error(listening: Listening) -> None:
    client = listening.client()
    stream = client.chat("long", TALK, stream=True, options={"num_predict": 10**6})
    next(stream)
    for process in listening.proxy.find("--model long"):
        process.kill()

    with pytest.raises(ollama.ResponseError):
        list(stream)
    listening.proxy.may_log = "broken|broke|ended|exited|killed|aborted"


def test_requests_are_recorded_as_those_of_other_clients(listening: Listening) -> None:
    """The activity has the path at the model's server, and the tokens."""
    listening.client().chat("a", TALK, stream=False, options={"num_predict": 3})
    proxy = listening.proxy

    def row() -> dict[str, Any]:
        found: dict[str, Any] = proxy.get("/api/metrics/activity?limit=1")["data"][0]
        return found

    wait_until(lambda: row()["tokens"]["output_tokens"] == 3, LONG_S, what="the last request")
    assert (row()["model"], row()["req_path"]) == ("a", "/v1/chat/completions")
    metrics = proxy.call("GET", "/metrics").body.decode()
    assert 'model="a"' in metrics


def test_loading_state_is_thinking_and_its_failure_an_error(serve: Serve) -> None:
    """A model with `sendLoadingState` tells its progress as thinking, unless that is unwanted."""
    slow, port = ("--load-seconds", "1"), free_port()
    given = {
        "slow": demo_model("slow", *slow, sendLoadingState=True),
        "broken": demo_model("broken", *slow, "--fail-load", sendLoadingState=True),
    }
    proxy = serve(given, config={"ollama": {"listen": f"127.0.0.1:{port}"}})
    proxy.may_log = "broken"
    with Listening(proxy, port) as listening:
        client = listening.client()
        for think in (None, False):
            client.generate("slow", keep_alive=0)
            wait_until(lambda: not client.ps().models, LONG_S, what="no model loaded")
            parts = list(client.chat("slow", TALK, stream=True, think=think))
            thinking = "".join(part.message.thinking or "" for part in parts)
            assert ("Loading slow" in thinking) is (think is None)
            assert "Loading" not in "".join(part.message.content or "" for part in parts)
            assert parts[-1].done
        with pytest.raises(ollama.ResponseError, match="broken failed"):
            list(client.chat("broken", TALK, stream=True))


# ---- what demo models do not do
THOUGHT = {"role": "assistant", "content": None, "reasoning_content": "hm"}
ASKED = {"index": 0, "id": "c1", "function": {"name": "pick", "arguments": '{"colour": "red"}'}}
ARRIVED: list[Any] = []


async def calling(received: Received, writer: StreamWriter) -> None:
    """Think and call a function, in a stream if one is asked for."""
    body = received.json()
    ARRIVED.append(body)
    if not body["stream"]:
        message = {**THOUGHT, "tool_calls": [ASKED]}
        choices = [{"message": message, "finish_reason": "tool_calls"}]
        await say(writer, json.dumps({"choices": choices}).encode())
        return
    deltas = [THOUGHT, {"tool_calls": [ASKED]}, {}]
    reasons = [None, None, "tool_calls"]
    values = [
        {"choices": [{"delta": delta, "finish_reason": reason}]}
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    events = [f"data: {json.dumps(value)}\n\n".encode() for value in values]
    await say_events(writer, *events, b"data: [DONE]\n\n")


def test_client_gets_calls_and_thinking_and_sends_images(serve: Serve) -> None:
    """Python functions are tools; calls come as objects, and their results go back with ids."""

    def pick(colour: str) -> str:
        """Pick a colour.

        Args:
            colour: The colour.
        """
        return colour

    async def main() -> None:
        async with serving(calling) as server:
            given = {"cmd": "sleep 1000", "proxy": server.url, "checkEndpoint": "none"}
            port = free_port()
            config = {"ollama": {"listen": f"127.0.0.1:{port}"}}
            await asyncio.to_thread(serve, {"m": given}, config=config)
            async with ollama.AsyncClient(f"http://127.0.0.1:{port}", trust_env=False) as client:
                talk: list[Any] = [{"role": "user", "content": "which?", "images": [PNG]}]
                whole = await client.chat("m", talk, tools=[pick], think=True)
                message = whole.message
                parts = await client.chat("m", talk, tools=[pick], think="low", stream=True)
                streamed = [part.message async for part in parts]
                for found in (message, streamed[1]):
                    assert found.tool_calls is not None
                    (call,) = found.tool_calls
                    assert (call.function.name, call.function.arguments) == (
                        "pick", {"colour": "red"},
                    )  # fmt: skip
                assert message.thinking == streamed[0].thinking == "hm"
                talk += [message, {"role": "tool", "content": "ok", "tool_name": "pick"}]
                quiet = await client.chat("m", talk, think=False)
                assert quiet.message.thinking is None

    ARRIVED.clear()
    asyncio.run(main())
    first, second, third = ARRIVED
    assert first["tools"][0]["function"]["name"] == "pick"
    url = first["messages"][0]["content"][1]["image_url"]["url"]
    assert url == f"data:image/png;base64,{b64encode(PNG).decode()}"
    assert first["chat_template_kwargs"] == {"enable_thinking": True}
    assert second["reasoning_effort"] == "low"
    _, asked, result = third["messages"]
    assert result["tool_call_id"] == asked["tool_calls"][0]["id"]
    assert asked["tool_calls"][0]["function"]["arguments"] == '{"colour": "red"}'
    assert asked["reasoning_content"] == "hm"
    assert third["chat_template_kwargs"] == {"enable_thinking": False}


# ---- other programs at the same listener
def test_home_assistant_sequence_works(listening: Listening) -> None:
    """Home Assistant: list, pull of what is missing, then chats with tools, `think` and `num_ctx`.

    Source: home-assistant/core, homeassistant/components/ollama.
    """
    tool = {
        "type": "function",
        "function": {
            "name": "HassTurnOn", "description": "Turns on a device",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }  # fmt: skip
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You control a home."},
        {"role": "user", "content": "Turn on the light"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "HassTurnOn", "arguments": {"name": "light"}}},
        ]},
        {"role": "tool", "content": '{"data": {}, "error": null}'},
    ]  # fmt: skip

    async def main() -> None:
        async with ollama.AsyncClient(
            f"http://127.0.0.1:{listening.port}", trust_env=False
        ) as client:
            names = [model["model"] for model in (await client.list())["models"]]
            assert "a:latest" in names
            await client.pull("a:latest")
            stream = await client.chat(
                model="a:latest", messages=history, tools=[tool], stream=True, keep_alive="60s",
                options={"num_ctx": 8192, "num_predict": 4}, think=False, format=None,
            )  # fmt: skip
            parts = [part async for part in stream]
            assert "".join(part["message"].get("content") or "" for part in parts)
            assert parts[-1]["done"] is True
            stream = await client.chat(
                model="a:latest", messages=history[:2], stream=True, keep_alive=-1,
                options={"num_ctx": 8192, "num_predict": 4}, format={"type": "object"},
            )  # fmt: skip
            assert [part async for part in stream][-1]["done"] is True

    asyncio.run(main())


def test_vscode_sequence_works(listening: Listening) -> None:
    """VS Code: version, tags, show of each model; then OpenAI's API at the same address.

    Source: microsoft/vscode-copilot-chat, src/extension/byok/vscode-node/ollamaProvider.ts.
    """
    port = listening.port
    version = raw.call(port, "GET", "/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)
    for model in raw.call(port, "GET", "/api/tags").json()["models"]:
        shown = raw.call(port, "POST", "/api/show", value={"model": model["model"]}).json()
        info = shown["model_info"]
        assert info["general.basename"]
        assert isinstance(info.get(f"{info['general.architecture']}.context_length", 0), int)
        assert "tools" in shown["capabilities"]
    with openai_client(port, "ollama") as client:
        for name in ("a:latest", "a"):
            stream = client.chat.completions.create(
                model=name, messages=TALK, max_tokens=4, stream=True
            )
            assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert "a" in [model.id for model in client.models.list()]


def test_listener_serves_nothing_but_ollama(listening: Listening) -> None:
    """The web UI, the logs and the API of the proxy are at the main listener alone."""
    port = listening.port
    with raw.Connection(port) as connection:
        connection.request("HEAD", "/")
        assert connection.read_head().status == 200
    assert raw.call(port, "GET", "/").body == b"Ollama is running"
    assert raw.call(port, "GET", "//api/tags").status == 200
    for method, target in (
        ("GET", "/ui/"), ("GET", "/logs"), ("GET", "/metrics"), ("GET", "/running"),
        ("GET", "/upstream/a/"), ("POST", "/api/models/unload"), ("GET", "/health"),
        ("POST", "/props"), ("GET", "/v1"),
    ):  # fmt: skip
        answer = raw.call(port, method, target, value={} if method == "POST" else None)
        assert answer.status == 404, target
        assert answer.json().keys() == {"error"}
    evil = raw.call(port, "GET", "/api/tags", headers={"host": "evil.example"})
    assert evil.status == 421


# ---- keys, reload, and an address that is taken
def test_client_without_a_key_has_the_rights_of_the_named_one(serve: Serve) -> None:
    """Only this listener lets a client without a valid key in, and no page of another site."""
    port = free_port()
    config = {"apiKeys": KEYS, "ollama": {"listen": f"127.0.0.1:{port}", "key": "home"}}
    proxy = serve(models(), config=config)
    short = {"num_predict": 1}

    with Listening(proxy, port) as listening:
        for key in ("", "ollama", "sk-home"):
            client = listening.client(key)
            assert [model.model for model in client.list().models] == ["a:latest", "broken:latest"]
            assert client.chat("a", TALK, options=short).done
            with pytest.raises(ollama.ResponseError, match="forbidden"):
                client.chat("b:8b", TALK, options=short)
        assert listening.client("sk-all").chat("b:8b", TALK, options=short).done
    with openai_client(port, "ollama") as other:
        assert other.chat.completions.create(model="a", messages=TALK, max_tokens=1).choices
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        value = {"model": "a", "messages": TALK}
        answer = raw.call(port, "POST", "/api/chat", value=value, headers=headers)
        assert answer.status == 403
    assert proxy.call("GET", "/ollama/api/tags").status == 401
    assert proxy.chat("a").status == 401


def test_client_without_a_key_is_refused_where_none_is_named(serve: Serve) -> None:
    port = free_port()
    config = {"apiKeys": ["sk-all"], "ollama": {"listen": f"127.0.0.1:{port}"}}
    with Listening(serve(models(), config=config), port) as listening:
        with pytest.raises(ollama.ResponseError) as caught:
            listening.client().list()

        assert caught.value.status_code == 401
        assert listening.client("sk-all").list().models


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_reload_opens_moves_and_closes_the_listener(serve: Serve, server: str) -> None:
    """The address follows the configuration; a stream that runs meanwhile goes on."""
    first, second = free_port(), free_port()

    def started(*, config: dict[str, Any], options: tuple[str, ...]) -> SwapchartProcess:
        return serve(config=config, options=options, server=server)

    edited = Edited(started, models())  # type: ignore[arg-type]
    with ExitStack() as stack:
        for port in (first, second):
            edited.value["ollama"] = {"listen": f"127.0.0.1:{port}"}
            report = edited.reload()
            assert report["plan"]["settings"] == [{"key": "ollama", "applies": "now"}]
            edited.proxy.wait_said(f"served at http://127.0.0.1:{port}")
            listening = stack.enter_context(Listening(edited.proxy, port))
            limit = {"num_predict": 300}
            stream = listening.client().chat("long", TALK, stream=True, options=limit)
            next(stream)
        del edited.value["ollama"]
        edited.reload()
        wait_until(lambda: _is_refused(second), LONG_S, what="closed")

        assert _is_refused(first)
        *_, last = stream
        assert last.done


def _is_refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_address_that_is_taken_is_a_warning_that_names_ollama(serve: Serve) -> None:
    """The main listener serves, and a reload tries again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        edited = Edited(serve, models(), ollama={"listen": address})
        proxy = edited.proxy
        proxy.wait_said(f"clients of Ollama are not served at {address}")
        assert "Address already in use" in proxy.output()
        assert proxy.chat("a").status == 200
    edited.reload()
    proxy.wait_said(f"served at http://{address}")
    assert raw.call(int(address.split(":")[1]), "GET", "/").status == 200
