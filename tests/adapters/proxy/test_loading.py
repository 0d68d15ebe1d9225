"""Streams that begin before their model is ready (`sendLoadingState`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from tools.asgi import Bench, Call, Received, proxied, say, say_events
from tools.net import wait_until_async

from swapchart.adapters.proxy.api.inference_paths import POST_PATHS
from swapchart.adapters.proxy.forwarding.stream_formats import STREAM_FORMATS
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ProxyOptions
from swapchart.runtime import Command, Hook, RunAction, ServiceSpec, Timings

ANSWER = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
CARDS = [ModelDefinition(id=name, sends_loading_state=True) for name in ("a", "b")]
QUICK = ProxyOptions(loading_tick_s=0.02)


def slowly(spec: ServiceSpec) -> ServiceSpec:
    """Let the model take a while to be ready."""
    hook = Hook(action=RunAction(argv=("sleep", "0.4")))
    return replace(spec, hooks={"afterHealthy": (hook,)})


async def stream(received: Received, writer: asyncio.StreamWriter) -> None:
    await say_events(writer, ANSWER, b"data: [DONE]\n\n")


def run(main: Callable[[Bench], Awaitable[None]], *cards: ModelDefinition, **options: Any) -> None:
    given = {"specs": slowly, "respond": stream, "options": QUICK, **options}

    async def whole() -> None:
        async with proxied(*(cards or CARDS), **given) as bench:
            await main(bench)

    asyncio.run(whole())


def ask(bench: Bench, path: str, model: str = "a", **more: Any) -> Call:
    value = {"model": model, "stream": True, **more}
    return bench.client.begin("POST", path, value=value)


def values(body: bytes) -> list[Any]:
    """Return the JSON values of the events, after looking at each line."""
    found = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        for line in block.split("\n"):
            assert line.startswith((":", "data: ", "event: ")), line
            assert line != "event: "  # an event without a type has no such line
            if line.startswith("data: ") and line != "data: [DONE]":
                found.append(json.loads(line[6:]))
    return found


#: Routes with a format of streams, by the path at the model's server.
STREAMING = sorted(path for path, cut in POST_PATHS.items() if path[len(cut) :] in STREAM_FORMATS)


@pytest.mark.parametrize("path", STREAMING)
def test_loading_stream_begins_before_its_model_is_ready(path: str) -> None:
    """On every route with streams the client hears of the load, and then gets its answer whole."""

    async def main(bench: Bench) -> None:
        call = ask(bench, path)
        await call.until(lambda c: len(c.messages) > 3)
        assert bench.supervisor["a"].state != "ready"
        answer = await call.answer()

        assert answer.status == 200
        assert answer.header("content-type") == "text/event-stream"
        assert answer.header("x-accel-buffering") == "no"
        assert answer.header("connection") is None
        assert answer.body.endswith(ANSWER + b"data: [DONE]\n\n")
        assert b"Loading a" in answer.body
        assert b"Ready after" in answer.body
        assert bench.supervisor["a"].in_flight == 0

    run(main)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v/chat/completions"])
def test_loading_stream_text_stands_between_the_marks_of_llama_swap(path: str) -> None:
    """What is before the model's own reasoning can be cut out, as llama-swap's web page does."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, path).answer()
        chunks = values(answer.body.removesuffix(ANSWER + b"data: [DONE]\n\n"))
        text = "".join(chunk["choices"][0]["delta"]["reasoning_content"] for chunk in chunks)
        mark = "\u2501" * 5
        assert text.startswith(f"{mark}\nLoading a\n")
        loading, rest = text.removeprefix(mark).split(mark)
        assert "Ready after" in loading
        assert rest.strip() == ""

    run(main)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v/chat/completions"])
def test_loading_stream_chunks_are_valid(path: str) -> None:
    """What is said to a chat client has everything that a chunk must have."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, path).answer()
        chunks = values(answer.body.removesuffix(ANSWER + b"data: [DONE]\n\n"))
        assert chunks
        for chunk in chunks:
            assert chunk["object"] == "chat.completion.chunk"
            assert chunk["id"] == chunks[0]["id"]
            assert chunk["id"].startswith("chatcmpl-")
            assert (chunk["model"], isinstance(chunk["created"], int)) == ("a", True)
            (choice,) = chunk["choices"]
            assert (choice["index"], choice["finish_reason"]) == (0, None)
            assert list(choice["delta"]) == ["reasoning_content"]

    run(main)


@pytest.mark.parametrize("path", ["/v1/completions", "/completion", "/infill", "/v1/responses"])
def test_loading_stream_without_a_text_format_sends_comments(path: str) -> None:
    """Nothing that could be taken for content is said where there is no place for it."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, path).answer()

        assert values(answer.body.removesuffix(ANSWER + b"data: [DONE]\n\n")) == []
        assert answer.body.count(b": loading\n\n") > 3

    run(main)


def test_loading_stream_of_anthropic_sends_pings() -> None:
    """What Anthropic's clients know as a sign of life is what they get."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, "/v1/messages").answer()

        pings = values(answer.body.removesuffix(ANSWER + b"data: [DONE]\n\n"))
        assert len(pings) > 3
        assert all(ping == {"type": "ping"} for ping in pings)
        assert b'event: ping\ndata: {"type":"ping"}\n\n' in answer.body

    run(main)


@pytest.mark.parametrize(
    ("path", "more", "card"),
    [
        ("/v1/chat/completions", {"stream": False}, CARDS[0]),
        ("/v1/embeddings", {}, CARDS[0]),
        ("/v1/chat/completions", {}, ModelDefinition(id="a")),
    ],
)
def test_loading_stream_is_off_by_default(
    path: str, more: dict[str, Any], card: ModelDefinition
) -> None:
    """Without a stream, on routes without streams, and where it is off, only the answer comes."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, path, **more).answer()

        assert answer.body == ANSWER + b"data: [DONE]\n\n"

    run(main, card)


def test_loading_stream_of_a_ready_model_is_plain() -> None:
    """A model that is ready answers by itself."""

    async def main(bench: Bench) -> None:
        await ask(bench, "/v1/embeddings").answer()
        answer = await ask(bench, "/v1/chat/completions").answer()

        assert answer.body == ANSWER + b"data: [DONE]\n\n"

    run(main)


def test_loading_stream_reports_the_queue_position() -> None:
    """Who waits for another model's requests is told its place, and why."""

    async def main(bench: Bench) -> None:
        async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await writer.drain()
            await asyncio.Event().wait()

        bench.server.respond = hold
        held = ask(bench, "/v1/chat/completions", "b")
        await held.until(lambda c: b"data: 1" in c.body)
        bench.server.respond = stream
        first = ask(bench, "/v1/chat/completions")
        await first.until(lambda c: b"Queue position: #1: b has 1 request" in c.body)
        second = ask(bench, "/v1/chat/completions")
        await second.until(lambda c: b"Queue position: #2" in c.body)
        first.leave()
        await first.task
        await second.until(lambda c: b"Queue position: #1" in c.body)
        held.leave()
        assert (await second.answer()).body.endswith(ANSWER + b"data: [DONE]\n\n")
        assert bench.supervisor["a"].in_flight == 0
        assert bench.supervisor.scheduler.queue == []

    run(main)


# ---- failures
def fails(spec: ServiceSpec) -> ServiceSpec:
    """Let the model's process end while it loads."""
    return replace(
        slowly(spec), command=Command(argv=("sh", "-c", "sleep 0.2; echo no memory; exit 3"))
    )


@pytest.mark.parametrize("path", STREAMING)
def test_loading_stream_of_a_failed_load_ends_with_an_error(path: str) -> None:
    """A load that fails is told as the error event of the API, and the stream ends cleanly."""

    async def main(bench: Bench) -> None:
        answer = await ask(bench, path).answer()
        error = values(answer.body)[-1]["error"]

        assert answer.status == 200
        assert error["code"] == "exited"
        assert "exit code 3" in error["message"]
        if "messages" in path:
            assert b'event: error\ndata: {"type":"error","error":{' in answer.body
        elif "responses" in path:
            assert b'event: error\ndata: {"type":"error","code":"exited",' in answer.body
        assert bench.supervisor["a"].in_flight == 0

    run(main, specs=fails)


@pytest.mark.parametrize("limit", [1])
def test_loading_stream_refusal_has_its_own_status(limit: int) -> None:
    """What is refused at once is refused by its status."""

    async def main(bench: Bench) -> None:
        bench.supervisor.close()
        answer = await ask(bench, "/v1/chat/completions").answer()

        assert (answer.status, answer.error()["code"]) == (503, "shutting_down")

    run(main)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","type":"x","code":400}}', "too long"),
        (b"plain text", "the model's server answered 400: plain text"),
        (b"[" * 100_000, "the model's server answered 400: [[["),
    ],
)
def test_loading_stream_plain_response_becomes_an_event(body: bytes, message: str) -> None:
    """An error of the model's server cannot have its status any more; its text is told."""

    async def refuse(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(writer, body, status=400)

    async def main(bench: Bench) -> None:
        answer = await ask(bench, "/v1/chat/completions").answer()

        assert values(answer.body)[-1]["error"]["message"].startswith(message)

    run(main, respond=refuse)


def test_loading_stream_upstream_failure_becomes_an_error_event() -> None:
    """A server that hangs up before its answer is told in the stream."""

    async def hang_up(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main(bench: Bench) -> None:
        answer = await ask(bench, "/v1/chat/completions").answer()

        assert values(answer.body)[-1]["error"]["code"] == "upstream_head"

    run(main, respond=hang_up)


def test_loading_stream_aborted_response_aborts_the_client() -> None:
    """Once the model's own answer has begun, its breaking off is no clean end."""

    async def break_off(received: Received, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nda")
        await writer.drain()
        writer.close()

    async def main(bench: Bench) -> None:
        call = ask(bench, "/v1/chat/completions")
        with pytest.raises(Exception, match="closed"):
            await call.task

        assert not call.is_complete

    run(main, respond=break_off)


def test_loading_stream_that_is_cancelled_ends() -> None:
    """A request that is cancelled while its model loads is told so in its stream."""

    async def main(bench: Bench) -> None:
        call = ask(bench, "/v1/chat/completions")
        await call.until(lambda c: c.messages)
        (number,) = bench.app.proxy.in_flight.open
        await bench.client.call("POST", f"/api/inflight/{number}/cancel")
        answer = await call.answer()

        assert values(answer.body)[-1]["error"]["code"] == "request_cancelled"
        await wait_until_async(lambda: bench.supervisor["a"].waiting == 0)

    run(main)


def test_loading_stream_client_that_leaves_frees_the_model() -> None:
    """A client that leaves while its model loads leaves nothing behind."""

    async def main(bench: Bench) -> None:
        call = ask(bench, "/v1/chat/completions")
        await call.until(lambda c: c.messages)
        call.leave()
        await call.task

        assert (bench.supervisor["a"].waiting, bench.app.proxy.in_flight.open) == (0, {})
        await wait_until_async(lambda: bench.supervisor["a"].state == "ready")
        assert bench.supervisor["a"].in_flight == 0
        assert bench.supervisor.scheduler.services["a"].granted == 0

    run(main, specs=lambda s: replace(slowly(s), timings=Timings(drain_limit=1.0, grace=1.0)))


def test_loading_stream_requests_no_compression() -> None:
    """What follows our own events must be readable like them."""

    async def main(bench: Bench) -> None:
        value = {"model": "a", "stream": True}
        call = bench.client.begin(
            "POST", "/v1/chat/completions", value=value, headers={"Accept-Encoding": "gzip"}
        )
        await call.answer()
        assert bench.server.last.header("accept-encoding") is None

    run(main)
