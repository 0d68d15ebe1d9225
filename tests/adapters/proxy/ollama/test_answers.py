"""Responses of a model's server become records of Ollama's API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.adapters.proxy.api.ollama.answers import Answer, Times, embedded, embedding
from swapchart.adapters.proxy.api.ollama.event_lines import EventLines, EventTooLargeError
from swapchart.adapters.proxy.api.ollama.responder import error_in

TIMES = Times(started=10.0, admitted=12.0, first=12.5, ended=14.5)
TIMINGS = {"prompt_n": 3, "cache_n": 4, "prompt_ms": 100.0, "predicted_n": 9, "predicted_ms": 250.5}
USAGE = {"prompt_tokens": 7, "completion_tokens": 9}


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(index: int, name: str | None = None, arguments: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "function": function, **more}


def records(answer: Answer, *values: dict[str, Any]) -> list[dict[str, Any]]:
    found = [record for value in values if (record := answer.piece(value))]
    return [*found, *answer.end(TIMES)]


def messages(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["message"] for record in found]


def test_chat_stream_has_pieces_and_totals() -> None:
    """Pieces without content are left out; the last record has counts and times of the server."""
    found = records(
        Answer("chat", "m"), chunk(role="assistant", content=None), chunk(content="he"),
        chunk(content="y"), chunk("stop"), {"choices": [], "usage": USAGE, "timings": TIMINGS},
    )  # fmt: skip

    assert [message["content"] for message in messages(found)] == ["he", "y", ""]
    assert [record["done"] for record in found] == [False, False, True]
    assert {record["model"] for record in found} == {"m"}
    last = {key: value for key, value in found[-1].items() if key != "created_at"}
    assert last == {
        "model": "m", "message": {"role": "assistant", "content": ""}, "done": True,
        "done_reason": "stop", "total_duration": 4_500_000_000, "load_duration": 2_000_000_000,
        "prompt_eval_count": 7, "prompt_eval_duration": 100_000_000, "eval_count": 9,
        "eval_duration": 250_500_000,
    }  # fmt: skip


def test_totals_without_timings_are_measured() -> None:
    """Another server than llama-server reports no times: those of the proxy count."""
    *_, last = records(Answer("chat", "m"), chunk("length", content="x"), {"usage": USAGE})

    assert last["done_reason"] == "length"
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (500_000_000, 2_000_000_000)
    *_, bare = records(Answer("chat", "m"), chunk("stop", content="x"), {"timings": TIMINGS})
    assert (bare["prompt_eval_count"], bare["eval_count"]) == (7, 9)


def test_reasoning_becomes_thinking_unless_it_is_unwanted() -> None:
    values = (chunk(reasoning_content="hm"), chunk(reasoning="so"), chunk("stop", content="yes"))
    shown = messages(records(Answer("chat", "m"), *values))
    hidden = messages(records(Answer("chat", "m", shows_thinking=False), *values))

    assert [message.get("thinking") for message in shown] == ["hm", "so", None, None]
    assert [message["content"] for message in hidden] == ["yes", ""]
    assert not any("thinking" in message for message in hidden)


def test_calls_in_pieces_become_one_record() -> None:
    """Names and arguments arrive in pieces, and are complete for the client."""
    found = records(
        Answer("chat", "m"), chunk(content="ok"),
        chunk(tool_calls=[call(0, "light", id="c1")]), chunk(tool_calls=[call(0, None, '{"on"')]),
        chunk(tool_calls=[call(0, None, ": true}"), call(1, "heat", "{}")]), chunk("tool_calls"),
    )  # fmt: skip
    first, calls, last = messages(found)

    assert first["content"] == "ok"
    assert calls == {
        "role": "assistant", "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"index": 0, "name": "light", "arguments": {"on": True}}},
            {"function": {"index": 1, "name": "heat", "arguments": {}}},
        ],
    }  # fmt: skip
    assert found[-1]["done_reason"] == "stop"
    assert "tool_calls" not in last


@pytest.mark.parametrize("arguments", ['{"on": tr', "[1]", "on"])
def test_call_without_valid_arguments_is_text(arguments: str) -> None:
    """A call that was cut off is shown as the model wrote it."""
    piece, _ = messages(
        records(Answer("chat", "m"), chunk("length", tool_calls=[call(0, "x", arguments)]))
    )

    assert json.loads(piece["content"]) == {"name": "x", "arguments": arguments}


def test_calls_without_a_reason_are_not_lost() -> None:
    found = messages(records(Answer("chat", "m"), chunk(tool_calls=[call(0, "x", "{}")])))

    assert [len(message.get("tool_calls", ())) for message in found] == [1, 0]


def test_whole_response_is_one_record() -> None:
    calls = [{"id": "c", "function": {"name": "x", "arguments": '{"a": 1}'}}]
    message = {
        "role": "assistant", "content": "hey", "reasoning_content": "hm", "tool_calls": calls,
    }  # fmt: skip
    value = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    found = Answer("chat", "m").whole(value, TIMES)

    assert found["message"]["content"] == "hey"
    assert found["message"]["thinking"] == "hm"
    assert found["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert (found["done"], found["eval_count"]) == (True, 9)


def test_generate_records_of_each_server_format() -> None:
    """Chat, completions and `/infill` have the same records."""
    formats = (
        (chunk(content="hey"), chunk("length"), {"usage": USAGE}),
        ({"choices": [{"text": "hey", "finish_reason": None}]},
         {"choices": [{"text": "", "finish_reason": "length"}], "usage": USAGE}),
        ({"content": "hey", "stop": False},
         {"content": "", "stop": True, "stop_type": "limit", "tokens_evaluated": 7,
          "tokens_predicted": 9}),
    )  # fmt: skip
    for values in formats:
        answer = Answer("generate", "m")
        first, last = records(answer, *values)

        assert answer.has_ended
        assert (first["response"], last["response"]) == ("hey", "")
        assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == (
            "length", 7, 9,
        )  # fmt: skip


def test_embeddings_are_lists_of_vectors() -> None:
    value = {"data": [{"embedding": [0.5]}, {"embedding": [1]}], "usage": {"prompt_tokens": 3}}

    found = embedded("m", value, TIMES)
    assert (found["embeddings"], found["prompt_eval_count"]) == ([[0.5], [1]], 3)
    assert found["load_duration"] == 2_000_000_000
    assert embedding(value) == {"embedding": [0.5]}
    broken: list[dict[str, Any]] = [{}, {"data": []}, {"data": [{"embedding": "AA"}]}, {"data": 1}]
    for each in broken:
        with pytest.raises(ValueError, match="no embeddings"):
            embedding(each)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "message", "tool_calls", "function", "arguments", "content",
             "index", "finish_reason", "usage", "timings", "prompt_ms", "prompt_tokens", "stop"]
        ),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.sampled_from(["choices", "usage", "timings", "stop"]), JSON)))
def test_any_value_of_a_server_has_records(values: list[dict[str, Any]]) -> None:
    """A server that sends something else than expected breaks nothing."""
    for kind in ("chat", "generate"):
        found = records(Answer(kind, "m"), *values)
        assert found[-1]["done"] is True
        json.dumps(found)


EVENTS = 'data: {"a": "é€😀"}\n\n: loading\n\ndata: one\r\ndata:two\r\n\r\nid: 7\ndata: [DONE]\n\n'


@given(st.lists(st.integers(1, 9)))
def test_events_in_pieces_of_any_size_are_the_same(sizes: list[int]) -> None:
    """Pieces end anywhere: between two lines, and inside of a character."""
    data, lines, found = EVENTS.encode(), EventLines(), []
    for size in sizes:
        found += lines.feed(data[:size])
        data = data[size:]
    found += lines.feed(data) + lines.end()

    assert [each.decode() for each in found] == ['{"a": "é€😀"}', "", "one\ntwo", "[DONE]"]


def test_event_without_an_empty_line_behind_it_counts_at_the_end() -> None:
    lines = EventLines()

    assert lines.feed(b"data: x") == []
    assert lines.end() == [b"x"]
    assert lines.end() == []


@pytest.mark.parametrize("piece", [b"x" * (1 << 20), b"data: " + b"x" * 1000 + b"\n"])
def test_event_without_an_end_is_an_error(piece: bytes) -> None:
    """A server that never ends an event takes no more than 16 MiB."""
    lines = EventLines()

    def feed_all() -> None:
        for _ in range((20 << 20) // len(piece)):
            lines.feed(piece)

    with pytest.raises(EventTooLargeError):
        feed_all()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"error": "busy"}', "busy"), (b"<html>", "<html>"), (b"", "the model's server"),
        (b'{"detail": "no"}', '{"detail": "no"}'), (b"[1]", "[1]"), (b"\xff", "\ufffd"),
    ],
)  # fmt: skip
def test_error_of_any_form_has_a_text(body: bytes, text: str) -> None:
    assert error_in(body, 500).startswith(text)
