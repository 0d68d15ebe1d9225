"""Requests of Ollama's API become requests of OpenAI's API."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.adapters.proxy.api.ollama import translation
from swapchart.adapters.proxy.api.ollama.bodies import (
    ChatBody,
    EmbedBody,
    GenerateBody,
    idle_limit_in,
    name_in,
)
from swapchart.adapters.proxy.api.ollama.options import parameters
from swapchart.adapters.proxy.responses import ApiError

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(80)).decode()
IMAGES = {
    PNG: "png",
    b64encode(b"\xff\xd8\xff\xe0" + bytes(9)).decode(): "jpeg",
    b64encode(b"GIF89a" + bytes(9)).decode(): "gif",
    b64encode(b"RIFF\0\0\0\0WEBPVP8 ").decode(): "webp",
    b64encode(b"BM" + bytes(30)).decode(): "bmp",
}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}


def chat(**value: Any) -> translation.Translated:
    given = {"messages": [{"role": "user", "content": "hi"}], **value}
    return translation.chat(msgspec.convert(given, ChatBody))


def generate(**value: Any) -> translation.Translated:
    return translation.generate(msgspec.convert(value, GenerateBody))


def test_chat_stream_is_the_default() -> None:
    """Only `stream: false` asks for one object."""
    found = chat()

    assert (found.path, found.is_stream) == ("/v1/chat/completions", True)
    assert found.body == {
        "messages": [{"role": "user", "content": "hi"}], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    whole = chat(stream=False)
    assert (whole.is_stream, whole.body["stream"]) == (False, False)
    assert "stream_options" not in whole.body


def test_chat_calls_and_results_of_functions_get_matching_ids() -> None:
    """Ollama's calls have no ids, and OpenAI's need them; results are matched by name, or order."""
    calls = [
        {"function": {"name": "light", "arguments": {"on": True}}},
        {"function": {"name": "heat", "arguments": {"to": 20}}},
    ]
    found = chat(
        messages=[
            {"role": "user", "content": "both"},
            {"role": "assistant", "tool_calls": calls, "thinking": "hm"},
            {"role": "tool", "content": "warm", "tool_name": "heat"},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "", "tool_calls": calls[:1]},
            {"role": "tool", "content": "again", "tool_name": "light"},
        ],
        tools=[TOOL],
    ).body
    _, first, heat, light, second, again = found["messages"]

    assert found["tools"] == [TOOL]
    assert first["reasoning_content"] == "hm"
    assert [call["function"]["arguments"] for call in first["tool_calls"]] == [
        '{"on": true}', '{"to": 20}',
    ]  # fmt: skip
    assert [call["id"] for call in first["tool_calls"]] == ["call_0", "call_1"]
    assert (heat["tool_call_id"], light["tool_call_id"]) == ("call_1", "call_0")
    assert second["tool_calls"][0]["id"] == again["tool_call_id"] == "call_2"


def test_chat_results_with_ids_or_without_calls_are_kept() -> None:
    """Ids that the client sends stay, and a result without a call is no error."""
    call = {"id": "mine", "function": {"name": "light"}}
    found = chat(
        messages=[
            {"role": "tool", "content": "first"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "x", "tool_call_id": "mine"},
        ]
    ).body["messages"]

    assert found[0]["tool_call_id"] == "call_0"
    assert found[1]["tool_calls"][0]["id"] == found[2]["tool_call_id"] == "mine"
    assert found[1]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("image", IMAGES)
def test_chat_images_become_data_urls_of_their_type(image: str) -> None:
    """The type of an image follows from its first bytes."""
    message = {"role": "user", "content": "what?", "images": [image]}
    (found,) = chat(messages=[message]).body["messages"]

    url = f"data:image/{IMAGES[image]};base64,{image}"
    assert found["content"] == [
        {"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}},
    ]  # fmt: skip
    (again,) = chat(messages=[{**message, "content": "", "images": [url]}]).body["messages"]
    assert again["content"] == [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize("image", ["", "not base64", "é", "AAAA", b64encode(b"%PDF-1").decode()])
def test_chat_image_of_unknown_type_is_an_error(image: str) -> None:
    with pytest.raises(ApiError, match="expected images in base64"):
        chat(messages=[{"role": "user", "images": [image]}])


def test_format_becomes_a_response_format() -> None:
    """`json` and a JSON schema are OpenAI's two formats; nothing else is one."""
    schema = {"name": "response", "schema": SCHEMA, "strict": True}

    assert chat(format="json").body["response_format"] == {"type": "json_object"}
    assert chat(format=SCHEMA).body["response_format"] == {
        "type": "json_schema", "json_schema": schema,
    }  # fmt: skip
    nothing: tuple[Any, ...] = ("", None, {})
    for empty in nothing:
        assert "response_format" not in chat(format=empty).body
    with pytest.raises(ApiError, match="`format`: expected json or a JSON schema, got 'xml'"):
        chat(format="xml")


def test_think_becomes_parameters_of_the_template() -> None:
    """The template of the model decides whether it thinks; levels are OpenAI's efforts."""
    assert chat(think=False).body["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(think=True).body["chat_template_kwargs"] == {"enable_thinking": True}
    high = chat(think="high").body
    assert high["reasoning_effort"] == "high"
    assert high["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "high"}
    assert "chat_template_kwargs" not in chat().body
    with pytest.raises(ApiError, match="`think`: expected"):
        chat(think="very")


def test_options_become_parameters() -> None:
    """Options of the sampling are passed on; those of the load have no effect."""
    given = {
        "num_predict": 5, "temperature": 0.5, "top_p": 1, "top_k": 40.0, "seed": 7, "stop": "end",
        "num_keep": 3, "repeat_penalty": 1.1, "num_ctx": 8192, "num_gpu": 99, "unknown": [],
        "min_p": None,
    }  # fmt: skip

    assert parameters(given) == {
        "max_tokens": 5, "temperature": 0.5, "top_p": 1, "top_k": 40, "seed": 7, "stop": ["end"],
        "n_keep": 3, "repeat_penalty": 1.1,
    }  # fmt: skip
    assert parameters({"num_predict": -1, "stop": []}) == parameters(None) == {}
    assert parameters({"num_predict": 0}) == {"max_tokens": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"), ("temperature", True), ("top_k", 1.5), ("seed", "1"),
        ("stop", [1]), ("stop", {}), ("num_predict", []), ("top_p", 1e300),
    ],
)  # fmt: skip
def test_options_of_a_wrong_type_are_an_error(name: str, value: object) -> None:
    with pytest.raises(ApiError, match=f"option `{name}`: expected"):
        parameters({name: value})


def test_generate_becomes_a_conversation() -> None:
    """The model's server applies the template, with a system prompt and images."""
    found = generate(prompt="hi", system="be short", images=[PNG], options={"seed": 1})

    assert found.path == "/v1/chat/completions"
    system, user = found.body["messages"]
    assert system == {"role": "system", "content": "be short"}
    assert user["content"][0] == {"type": "text", "text": "hi"}
    assert found.body["seed"] == 1


def test_generate_raw_and_suffix_have_paths_of_their_own() -> None:
    raw = generate(prompt="[INST]", raw=True, stream=False, options={"num_predict": 2})
    infill = generate(prompt="def f", suffix="return", options={"num_predict": 2})

    assert (raw.path, raw.body) == (
        "/v1/completions", {"prompt": "[INST]", "max_tokens": 2, "stream": False},
    )  # fmt: skip
    assert (infill.path, infill.body) == (
        "/infill",
        {"input_prefix": "def f", "input_suffix": "return", "n_predict": 2, "stream": True},
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [({"template": "{{ .Prompt }}"}, "`template`"), ({"raw": True, "images": [PNG]}, "`raw`")],
)
def test_generate_what_is_not_supported_is_an_error(value: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError, match=text):
        generate(prompt="hi", **value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5), (0, 0), (-1, float("inf")), (0.5, 0.5), ("5m", 300), ("0", 0), ("-1", float("inf")),
        ("-1m", float("inf")), ("1h30m", 5400), ("0s", 0), ("30s", 30), (None, None), (1e8, 1e8),
        ("24h", 86400), (3600, 3600),
    ],
)  # fmt: skip
def test_keep_alive_is_a_number_or_a_duration(value: Any, seconds: float | None) -> None:
    assert idle_limit_in(msgspec.convert({"keep_alive": value}, ChatBody)) == seconds


@pytest.mark.parametrize("value", ["soon", "", "5 minutes", 1e300, "1" * 40])
def test_keep_alive_of_another_form_is_an_error(value: Any) -> None:
    with pytest.raises(ApiError, match=r"keep_alive is .*expected seconds"):
        idle_limit_in(msgspec.convert({"keep_alive": value}, ChatBody))


def test_name_may_be_called_name() -> None:
    """Older clients send `name`; none is an error."""
    assert name_in(ChatBody(name="a")) == name_in(ChatBody(model="a", name="b")) == "a"
    with pytest.raises(ApiError, match="model is required"):
        name_in(ChatBody())


def test_embed_input_and_dimensions_are_passed_on() -> None:
    found = translation.embed(EmbedBody(input=["a", "b"], dimensions=8))

    assert (found.path, found.body) == ("/v1/embeddings", {"input": ["a", "b"], "dimensions": 8})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)  # fmt: skip
FIELDS = st.sampled_from(
    ["model", "messages", "prompt", "stream", "options", "format", "think", "tools", "images",
     "keep_alive", "suffix", "raw", "role", "content", "tool_calls", "temperature"]
)  # fmt: skip


@settings(max_examples=40)
@given(st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON), max_size=2)))
def test_any_body_is_translated_or_refused(value: dict[str, Any]) -> None:
    """Whatever a client sends, it is a request or an error with a status of its own."""
    body = msgspec.json.encode(value)
    with suppress(msgspec.ValidationError, ApiError):
        found = translation.chat(msgspec.json.decode(body, type=ChatBody)).body
        assert msgspec.json.decode(msgspec.json.encode(found)) == found
    with suppress(msgspec.ValidationError, ApiError):
        found = translation.generate(msgspec.json.decode(body, type=GenerateBody)).body
        assert msgspec.json.decode(msgspec.json.encode(found)) == found
