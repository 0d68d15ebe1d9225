"""The demo server keeps llama-server's manners: what tests of the proxy rely on."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from tools import raw
from tools.children import Child, demo_argv, demo_server
from tools.net import free_port, is_listening, wait_until

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
LONG = "one two three four five six seven eight nine ten"
ENDLESS = ("--tokens-per-second", "200")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("demo")
    with demo_server("--slots", "2", "--slot-save-path", ".", cwd=folder, model="parrot") as child:
        yield child.wait_healthy()


def ask(text: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], **more}


def endless(**more: object) -> dict[str, object]:
    return ask("go on", ignore_eos=True, max_tokens=100_000, stream=True, **more)


def chat(child: Child, text: str, **more: object) -> Any:
    return raw.call(child.port, "POST", CHAT, value=ask(text, **more)).json()


def open_stream(child: Child, **more: object) -> raw.Connection:
    connection = raw.Connection(child.port)
    connection.request("POST", CHAT, value=endless(**more))
    assert connection.read_head().status == 200
    connection.read_chunk()
    return connection


def is_busy(child: Child) -> bool:
    slots = raw.call(child.port, "GET", "/slots").json()
    return any(slot["is_processing"] for slot in slots)


# ---- what it answers -------------------------------------------------------------


def test_chat_reply_names_the_model_and_repeats_the_question(server: Child) -> None:
    value = chat(server, "what time is it")

    assert value["choices"][0]["message"]["content"] == (
        "This is parrot. You asked: what time is it"
    )
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["model"] == "parrot"


def test_stream_chunks_are_those_of_llama_server(server: Child) -> None:
    body = ask("hello", stream=True, max_tokens=3)
    answer = raw.call(server.port, "POST", CHAT, value=body)
    events = answer.events()

    assert answer.header("content-type") == "text/event-stream"
    assert answer.header("transfer-encoding") == "chunked"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [e["choices"][0]["delta"].get("content") for e in events[1:4]] == [
        "This", " is", " parrot.",
    ]  # fmt: skip
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["timings"]["predicted_n"] == 3
    assert len(answer.chunks) == 6
    assert answer.chunks[-1] == b"data: [DONE]\n\n"


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(server: Child) -> None:
    body = ask("hello", stream=True, stream_options={"include_usage": True})
    events = raw.call(server.port, "POST", CHAT, value=body).events()

    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == events[-1]["timings"]["predicted_n"]
    assert "timings" not in events[-2]


def test_chat_next_turn_is_cached_except_new_tokens(server: Child) -> None:
    first = chat(server, LONG)
    turns = [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "and then"},
    ]
    second = raw.call(server.port, "POST", CHAT, value={"messages": turns}).json()

    # new: the end of the reply, begin, role, two words, end, begin, assistant
    assert second["timings"]["prompt_n"] == 8
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == (
        second["usage"]["prompt_tokens"] - 8
    )


def test_cached_prompt_evaluates_one_token(server: Child) -> None:
    chat(server, LONG, id_slot=0)
    again = chat(server, LONG, id_slot=0)

    assert again["timings"]["prompt_n"] == 1
    assert chat(server, LONG, id_slot=0, cache_prompt=False)["timings"]["cache_n"] == 0


def test_unlike_prompts_go_to_unlike_slots(server: Child) -> None:
    alpha, beta = "alpha " * 40, "beta " * 40
    chat(server, alpha)
    chat(server, beta)

    assert chat(server, alpha)["timings"]["prompt_n"] == 1
    assert chat(server, beta)["timings"]["prompt_n"] == 1


def test_prompt_that_does_not_fit_is_refused(server: Child) -> None:
    body = {"prompt": "word " * 5000, "stream": True}
    answer = raw.call(server.port, "POST", "/v1/completions", value=body)

    assert answer.status == 400
    assert answer.json()["error"]["type"] == "exceed_context_size_error"
    assert answer.json()["error"]["n_prompt_tokens"] == 5000
    assert answer.json()["error"]["n_ctx"] == 4096  # half of it each


def test_completions_messages_and_responses_return_the_same_text(server: Child) -> None:
    want = "This is parrot. You asked: so so"
    text = raw.call(server.port, "POST", "/v1/completions", value={"prompt": "so so"}).json()
    native = raw.call(server.port, "POST", "/completion", value={"prompt": "so so"}).json()
    message = raw.call(server.port, "POST", "/v1/messages", value=ask("so so")).json()
    response = raw.call(server.port, "POST", "/v1/responses", value={"input": "so so"}).json()

    assert text["choices"][0]["text"] == want
    assert native["content"] == want
    assert message["content"][0]["text"] == want
    assert message["stop_reason"] == "end_turn"
    assert response["output"][0]["content"][0]["text"] == want


@pytest.mark.parametrize(
    ("path", "body", "kinds"),
    [
        (
            "/v1/messages",
            ask("a", max_tokens=1),
            ["message_start", "content_block_start", "content_block_delta", "content_block_stop",
             "message_delta", "message_stop"],
        ),
        (
            "/v1/responses",
            {"input": "a", "max_output_tokens": 1},
            ["response.created", "response.in_progress", "response.output_item.added",
             "response.content_part.added", "response.output_text.delta",
             "response.output_text.done", "response.content_part.done",
             "response.output_item.done", "response.completed"],
        ),
    ],
)  # fmt: skip
def test_named_events_come_in_order(
    server: Child, path: str, body: dict[str, object], kinds: list[str]
) -> None:
    answer = raw.call(server.port, "POST", path, value={**body, "stream": True})
    names = [line[7:].decode() for line in answer.body.split(b"\n") if line[:7] == b"event: "]

    assert names == kinds
    assert [event["type"] for event in answer.events()] == kinds


def test_responses_stream_is_one_of_the_openai_library(server: Child) -> None:
    """Each event has all fields of its type, they are numbered, and the pieces are the text."""
    kinds: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    body = {"input": "so so", "stream": True}
    events = raw.call(server.port, "POST", "/v1/responses", value=body).events()
    parsed = [kinds.validate_python(event) for event in events]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    last = parsed[-1]

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert last.type == "response.completed"
    assert last.response.output_text == "".join(deltas) == "This is parrot. You asked: so so"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == len(deltas)
    done = next(event for event in parsed if event.type == "response.output_item.done")
    assert done.item == last.response.output[0]


def test_embeddings_are_unit_vectors_that_follow_from_the_text(server: Child) -> None:
    body = {"input": ["red tree", "red river", "stone"]}
    value = raw.call(server.port, "POST", "/v1/embeddings", value=body).json()
    one, two, three = (item["embedding"] for item in value["data"])

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(one, one) == pytest.approx(1.0)
    assert dot(one, two) > dot(one, three)
    packed = {**body, "encoding_format": "base64"}
    again = raw.call(server.port, "POST", "/v1/embeddings", value=packed).json()
    assert len(base64.b64decode(again["data"][0]["embedding"])) == 4 * 64


def test_rerank_puts_the_best_document_first(server: Child) -> None:
    body = {"query": "red tree", "documents": ["stone", "a red tree", "a tree"], "top_n": 2}
    value = raw.call(server.port, "POST", "/v1/rerank", value=body).json()

    assert [(r["index"], r["relevance_score"]) for r in value["results"]] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
def test_form_upload_returns_its_parts(server: Child, path: str) -> None:
    sound = bytes(range(256)) + b"\r\n--not the boundary\r\n"
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + sound + b"\r\n--xyz--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    value = raw.call(server.port, "POST", path, body=body, headers=headers).json()

    assert value["fields"] == {"model": "whisper"}
    assert value["parts"][1]["size"] == len(sound)
    assert value["parts"][1]["content_type"] == "audio/wav"
    cut = raw.call(server.port, "POST", path, body=body[:-10], headers=headers)
    assert cut.status == 400


def test_speech_is_a_wav_file(server: Child) -> None:
    answer = raw.call(server.port, "POST", "/v1/audio/speech", value={"input": "hello there"})

    assert answer.header("content-type") == "audio/wav"
    assert answer.body[:4] == b"RIFF"
    assert len(answer.body) == 44 + 2 * 2 * 400


def test_echo_returns_the_request_unchanged(server: Child) -> None:
    chunked = b"4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\nTrailer: t\r\n\r\n"
    headers = [("X-B", "2"), ("x-a", "1"), ("X-B", "3"), ("Transfer-Encoding", "chunked")]
    target = "/echo/a%2Fb?status=418&q=%20"
    answer = raw.call(server.port, "PATCH", target, body=chunked, headers=headers)
    value = answer.json()

    assert answer.status == 418
    assert (value["method"], value["target"], value["pid"]) == ("PATCH", target, server.pid)
    assert [tuple(pair) for pair in value["headers"]][1:] == headers
    assert value["body"]["length"] == 7


def test_websocket_sends_back_what_it_gets(server: Child) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with raw.Connection(server.port) as connection:
        connection.request("GET", "/ws", headers=upgrade)
        head = connection.read_head()
        text, mask = b"x" * 300, b"\1\2\3\4"
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        connection.send(b"\x81\xfe\x01\x2c" + mask + masked)

        assert head.status == 101
        assert head.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455
        assert connection.read_exactly(4 + 300) == b"\x81\x7e\x01\x2c" + text
        connection.send(b"\x88\x82" + mask + bytes([3 ^ 1, 232 ^ 2]))
        assert connection.read_all() == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, b'{"messages": [', 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b"{}", 400),
        ("POST", CHAT, b'{"messages": [], "max_tokens": "x"}', 400),
        ("POST", CHAT, b'{"messages": ["x"]}', 400),
        ("POST", "/v1/rerank", b'{"query": "x", "documents": [], "top_n": {}}', 400),
        ("POST", "/v1/embeddings", b'{"input": []}', 400),
        ("POST", "/echo?status=99", b"", 400),
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", CHAT, None, 404),
    ],
)
def test_errors_have_the_openai_format(
    server: Child, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = raw.call(server.port, method, path, body=body)

    assert answer.status == status
    assert answer.json()["error"]["code"] == status
    assert answer.json()["error"]["message"]


def test_connection_serves_many_requests_and_then_closes(server: Child) -> None:
    with raw.Connection(server.port) as connection:
        kept = 0
        while True:
            connection.request("GET", "/health")
            answer = connection.read_answer()
            kept += 1
            if answer.header("connection") == "close":
                break

        assert kept == 100
        assert connection.read_all() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_request_that_is_not_http_is_refused_and_closed(server: Child, head: bytes) -> None:
    with raw.Connection(server.port) as connection:
        connection.send(head)
        answer = connection.read_answer()

        assert answer.status == 400
        assert connection.read_all() == b""


@pytest.mark.parametrize(
    ("path", "body", "key", "value"),
    [
        ("/infill", {"input_prefix": "a b"}, "content", "This is parrot. You asked: a b"),
        ("/v1/messages/count_tokens", ask("a b"), "input_tokens", 7),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 0}, "object", "text_completion"),
    ],
)
def test_minor_endpoints_respond(
    server: Child, path: str, body: dict[str, object], key: str, value: object
) -> None:
    assert raw.call(server.port, "POST", path, value=body).json()[key] == value


def test_token_has_one_number(server: Child) -> None:
    body = {"content": "red tree red"}
    one, two, three = raw.call(server.port, "POST", "/tokenize", value=body).json()["tokens"]

    assert one == three != two


def test_images_come_in_the_number_asked_for(server: Child) -> None:
    body = {"prompt": "a tree", "n": 2}
    value = raw.call(server.port, "POST", "/v1/images/generations", value=body).json()

    assert [base64.b64decode(image["b64_json"])[1:4] for image in value["data"]] == [b"PNG"] * 2


def test_http_1_0_client_gets_its_stream_unchunked(server: Child) -> None:
    request = raw.encode_request("POST", CHAT, value=ask("a", stream=True))
    with raw.Connection(server.port) as connection:
        connection.send(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        answer = connection.read_answer()

    assert answer.header("transfer-encoding") is None
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_expect_continue_is_honored(server: Child) -> None:
    headers = {"Expect": "100-continue", "Content-Length": "3"}
    with raw.Connection(server.port) as connection:
        connection.request("POST", "/echo", headers=headers)

        assert connection.read_exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"abc")
        assert connection.read_answer().json()["body"]["length"] == 3


def test_refusal_with_unread_body_reaches_the_client(server: Child) -> None:
    """A refusal is not lost to the reset that closing on unread bytes would cause."""
    answer = raw.call(
        server.port, "POST", "/nowhere", body=bytes(3 << 20), headers={"Connection": "close"}
    )

    assert answer.status == 404


def test_large_body_passes_in_pieces(server: Child) -> None:
    answer = raw.call(server.port, "POST", "/echo", body=bytes(8 << 20))

    assert answer.json()["body"]["length"] == 8 << 20


def test_head_and_options_requests_have_no_body(server: Child) -> None:
    with raw.Connection(server.port) as connection:
        connection.request("HEAD", "/health")
        head = connection.read_head()
        connection.request("OPTIONS", CHAT)
        options = connection.read_answer()

    assert (head.status, head.header("content-length")) == (200, "15")
    assert (options.status, options.body) == (200, b"")


# ---- slots -------------------------------------------------------------------------


def act(child: Child, slot: object, action: str, filename: str | None = None) -> raw.Answer:
    value = {} if filename is None else {"filename": filename}
    return raw.call(child.port, "POST", f"/slots/{slot}?action={action}", value=value)


def test_saved_slot_survives_a_restart(tmp_path: Path) -> None:
    options = ("--slot-save-path", str(tmp_path))
    with demo_server(*options, cwd=tmp_path) as before:
        chat(before.wait_healthy(), LONG)
        saved = act(before, 0, "save", "s.bin").json()
    with demo_server(*options, cwd=tmp_path) as after:
        after.wait_healthy()
        restored = act(after, 0, "restore", "s.bin").json()
        timings = chat(after, LONG)["timings"]

    assert saved["n_saved"] == restored["n_restored"] > 10
    assert saved["n_written"] == restored["n_read"] == (tmp_path / "s.bin").stat().st_size
    assert timings["prompt_n"] == 1


def test_slot_numbers_wrap(server: Child) -> None:
    n_prompt = chat(server, LONG, id_slot=1)["usage"]["prompt_tokens"]
    erased = act(server, 99, "erase").json()

    assert erased["n_erased"] > n_prompt
    assert erased["id_slot"] == 99
    assert act(server, 1, "erase").json()["n_erased"] == 0
    assert act(server, -1, "erase").status == 200
    assert act(server, "x", "erase").status == 400


def test_slot_that_is_empty_saves_a_file_that_restores_zero_tokens(server: Child) -> None:
    act(server, 0, "erase")

    assert act(server, 0, "save", "empty.bin").json()["n_saved"] == 0
    assert act(server, 1, "restore", "empty.bin").json()["n_restored"] == 0


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 256, "\0"])
def test_filename_stays_in_its_folder(server: Child, name: str) -> None:
    answer = act(server, 0, "save", name)

    assert (answer.status, answer.json()["error"]["message"]) == (400, "Invalid filename")


def test_slot_file_of_unknown_format_is_refused_and_leaves_the_slot_empty(server: Child) -> None:
    chat(server, LONG, id_slot=0)

    assert act(server, 0, "restore", "missing.bin").status == 400
    assert act(server, 0, "erase").json()["n_erased"] == 0


def test_slot_files_without_a_folder_are_refused(tmp_path: Path) -> None:
    with demo_server(cwd=tmp_path) as child:
        assert act(child.wait_healthy(), 0, "save", "a.bin").status == 501


def test_truncated_file_aborts_the_process_unless_it_is_robust(tmp_path: Path) -> None:
    options = ("--slot-save-path", str(tmp_path))
    with demo_server(*options, cwd=tmp_path) as child:
        chat(child.wait_healthy(), LONG)
        act(child, 0, "save", "s.bin")
        whole = (tmp_path / "s.bin").read_bytes()
        (tmp_path / "s.bin").write_bytes(whole[:-5])
        with pytest.raises((EOFError, OSError)):
            act(child, 0, "restore", "s.bin")

        assert child.wait() == -signal.SIGABRT
    with demo_server(*options, "--robust", cwd=tmp_path) as child:
        assert act(child.wait_healthy(), 0, "restore", "s.bin").status == 400


def test_busy_slot_is_saved_once_it_is_idle(tmp_path: Path) -> None:
    options = ("--slot-save-path", str(tmp_path), "--tokens-per-second", "50")
    with (
        demo_server(*options, cwd=tmp_path) as child,
        raw.Connection(child.wait_healthy().port) as stream,
    ):
        stream.request("POST", CHAT, value={**endless(), "max_tokens": 10})
        stream.read_head()
        saved = act(child, 0, "save", "s.bin").json()

    assert saved["n_saved"] == 7 + 10


# ---- time and manners ----------------------------------------------------------------


def test_server_that_loads_returns_503(tmp_path: Path) -> None:
    port = free_port()
    with demo_server("--load-seconds", "0.5", cwd=tmp_path, port=port) as child:
        wait_until(lambda: is_listening(port), what="listening")
        health = raw.call(port, "GET", "/health")
        models = raw.call(port, "GET", "/v1/models")
        page = raw.call(port, "GET", "/")
        child.wait_healthy()

    want = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
    assert (health.status, health.json()) == (503, want)
    assert (models.status, page.status) == (503, 404)


def test_sigterm_while_loading_kills_at_once(tmp_path: Path) -> None:
    port = free_port()
    with demo_server("--load-seconds", "60", cwd=tmp_path, port=port) as child:
        wait_until(lambda: is_listening(port), what="listening")
        child.signal()

        assert child.wait() == -signal.SIGTERM


def test_sigterm_ends_an_idle_server_with_kept_connections(tmp_path: Path) -> None:
    with demo_server(cwd=tmp_path) as child, raw.Connection(child.wait_healthy().port) as kept:
        kept.request("GET", "/health")
        kept.read_answer()
        child.signal()

        assert child.wait() == 0
        assert kept.read_all() == b""


def test_sigterm_pauses_a_stream_and_waits_for_its_client_to_leave(tmp_path: Path) -> None:
    with demo_server(*ENDLESS, cwd=tmp_path) as child:
        stream = open_stream(child.wait_healthy())
        child.signal()
        wait_until(lambda: not is_listening(child.port), what="deaf")
        wait_until(lambda: stream.is_silent_for(0.1), what="silent")

        assert stream.is_silent_for(0.3)
        assert child.process.poll() is None
        stream.close()
        assert child.wait() == 0


def test_sigterm_twice_ends_with_code_1(tmp_path: Path) -> None:
    with demo_server(*ENDLESS, cwd=tmp_path) as child, open_stream(child.wait_healthy()):
        child.signal()
        wait_until(lambda: not is_listening(child.port), what="deaf")
        child.signal()

        assert child.wait() == 1


def test_ignored_sigterm_leaves_it_serving(tmp_path: Path) -> None:
    with demo_server("--ignore-term", cwd=tmp_path) as child:
        child.wait_healthy()
        child.signal()
        wait_until(lambda: "SIGTERM ignored" in child.output(), what="ignored")

        assert raw.status(child.port) == 200


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_client_that_leaves_frees_the_slot(tmp_path: Path, leave: str) -> None:
    with demo_server(*ENDLESS, cwd=tmp_path) as child:
        stream = open_stream(child.wait_healthy())
        assert is_busy(child)
        getattr(stream, leave)()

        wait_until(lambda: not is_busy(child), what="idle slot")


def test_client_that_leaves_the_queue_is_removed(tmp_path: Path) -> None:
    with demo_server(*ENDLESS, cwd=tmp_path) as child:
        first = open_stream(child.wait_healthy())
        with raw.Connection(child.port) as waiting:
            waiting.request("POST", CHAT, value=ask("second"))
            assert waiting.is_silent_for(0.2)
        first.close()

        assert chat(child, "third")["timings"]["predicted_n"] == 6


def predicted(child: Child) -> int:
    text = raw.call(child.port, "GET", "/metrics").body.decode()
    return int(text.split("llamacpp:tokens_predicted_total ")[-1].split("\n")[0])


def test_slow_reader_holds_the_generation_not_the_memory(tmp_path: Path) -> None:
    limit = 1_000_000
    with demo_server("--ctx", str(2 * limit), "--quiet", cwd=tmp_path) as child:
        with raw.Connection(child.wait_healthy().port) as stream:
            stream.request("POST", CHAT, value={**endless(), "max_tokens": limit})
            stream.read_head()
            counts = [-1]

            def has_stopped() -> bool:
                counts.append(predicted(child))
                return counts[-1] == counts[-2] > 0

            wait_until(has_stopped, 30.0, what="no more tokens")

        assert counts[-1] < limit


def test_generation_time_follows_the_rates(tmp_path: Path) -> None:
    rates = ("--prefill-tokens-per-second", "100", "--tokens-per-second", "50")
    with demo_server(*rates, cwd=tmp_path) as child:
        cold = chat(child.wait_healthy(), LONG, max_tokens=5)["timings"]
        warm = chat(child, LONG, max_tokens=5)["timings"]

    assert cold["prompt_ms"] >= 10 * cold["prompt_n"] >= 150
    assert cold["predicted_ms"] >= 100
    assert 10 <= warm["prompt_ms"] < cold["prompt_ms"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--fail-load",), 1),
        (("--crash-after-seconds", "0.2"), 1),
        (("--crash-after-seconds", "0.2", "--exit-code", "42"), 42),
        (("--crash-after-seconds", "0.2", "--exit-code", "-11"), -11),
        (("--slot-save-path", "missing"), 1),
        (("--no-such-option",), 2),
    ],
)
def test_server_ends_as_configured(tmp_path: Path, options: tuple[str, ...], code: int) -> None:
    with demo_server(*options, cwd=tmp_path) as child:
        assert child.wait() == code


def test_stop_can_have_a_code(tmp_path: Path) -> None:
    with demo_server("--exit-code", "7", cwd=tmp_path) as child:
        child.wait_healthy()
        child.signal()

        assert child.wait() == 7


def test_port_in_use_ends_it_before_it_loads(server: Child, tmp_path: Path) -> None:
    with demo_server("--load-seconds", "60", cwd=tmp_path, port=server.port) as child:
        assert child.wait() == 1
        assert "couldn't bind" in child.output()


def test_server_can_die_during_a_stream(tmp_path: Path) -> None:
    with demo_server("--crash-after-tokens", "5", cwd=tmp_path) as child:
        with raw.Connection(child.wait_healthy().port) as stream:
            stream.request("POST", CHAT, value=endless())
            stream.read_head()
            rest = stream.read_all()

        assert child.wait() == 1
        assert len(raw.parse_events(b"\n".join(rest.split(b"\r\n")))) == 1 + 5


def test_server_can_hang(tmp_path: Path) -> None:
    with demo_server("--hang-after-seconds", "0.3", cwd=tmp_path) as child:
        wait_until(lambda: "hang: as requested" in child.output(), what="hung")
        wait_until(lambda: "listening on" in child.output())
        port = int(child.output().split("listening on http://127.0.0.1:")[1].split("\n")[0])
        with raw.Connection(port) as connection:
            connection.request("GET", "/health")

            assert connection.is_silent_for(0.3)


def test_sleep_loses_the_cache_and_wakes(tmp_path: Path) -> None:
    with demo_server(cwd=tmp_path) as child:
        chat(child.wait_healthy(), LONG)
        raw.call(child.port, "POST", "/sleep?level=1")

        assert raw.call(child.port, "GET", "/is_sleeping").json() == {"is_sleeping": True}
        assert raw.call(child.port, "POST", CHAT, value=ask(LONG)).status == 503
        raw.call(child.port, "POST", "/wake_up")
        assert chat(child, LONG)["timings"]["cache_n"] == 0


def test_server_imports_only_the_standard_library(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import swapchart.adapters.demo.server;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names)));"
        "print(*sorted(m for m in sys.modules if m.startswith('swapchart.')))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True
    ).stdout.splitlines()

    assert out[0] == "swapchart"
    assert {name.split(".")[1] for name in out[1].split()} == {"adapters"}
    assert all("demo" in name for name in out[1].split() if name != "swapchart.adapters")


def test_command_line_matches_its_help() -> None:
    argv = demo_argv("--help")
    text = subprocess.run(argv, check=True, capture_output=True, text=True, env=dict(os.environ))

    assert text.stdout.startswith("usage: swapchart demo-server")
