"""The clients that people use, unchanged: the openai and anthropic packages, and curl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tools.clients import TALK, claude_client, curl, openai_client
from tools.swapchart_process import Proxies, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

KEY = "sk-real-clients"


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SwapchartProcess]:
    proxies = Proxies(tmp_path_factory.mktemp("clients"))
    slow = ["--load-seconds", "1.2"]
    models = {
        "a": demo_model("a", aliases=["gpt-4o", "claude-like"]),
        "b": demo_model("b", *slow, sendLoadingState=True),
        "c": demo_model("c", *slow, sendLoadingState=True),
        "broken": demo_model(
            "broken", "--load-seconds", "0.5", "--fail-load", sendLoadingState=True
        ),
    }
    try:
        yield proxies.serve(models, server=request.param, config={"apiKeys": [KEY]})
        proxies.end()
    finally:
        proxies.close()


@pytest.fixture
def oai(proxy: SwapchartProcess) -> Iterator[openai.OpenAI]:
    with openai_client(proxy.port, KEY) as client:
        yield client


@pytest.fixture
def claude(proxy: SwapchartProcess) -> Iterator[anthropic.Anthropic]:
    with claude_client(proxy.port, KEY) as client:
        yield client


# ---- openai
def test_openai_client_lists_models(oai: openai.OpenAI) -> None:
    assert [model.id for model in oai.models.list()] == ["a", "b", "broken", "c"]


def test_openai_client_chat_works(oai: openai.OpenAI) -> None:
    answer = oai.chat.completions.create(model="gpt-4o", messages=TALK, max_tokens=4)

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_openai_client_passes_tools(oai: openai.OpenAI) -> None:
    tools: Any = [
        {
            "type": "function",
            "function": {
                "name": "pick",
                "parameters": {"type": "object", "properties": {"model": {"type": "string"}}},
            },
        }
    ]
    answer = oai.chat.completions.create(model="a", messages=TALK, tools=tools, max_tokens=2)

    assert answer.choices[0].finish_reason


def test_openai_client_stream_works(oai: openai.OpenAI) -> None:
    stream = oai.chat.completions.create(
        model="a", messages=TALK, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("model", ["b", "c"])
def test_openai_client_reads_the_loading_state(oai: openai.OpenAI, model: str) -> None:
    """Its chunks parse, the load is told as reasoning, and the answer has no word of it."""
    reasoning, content = "", ""
    for chunk in oai.chat.completions.create(model=model, messages=TALK, max_tokens=3, stream=True):
        delta = chunk.choices[0].delta
        reasoning += getattr(delta, "reasoning_content", None) or ""
        content += delta.content or ""

    assert f"Loading {model}" in reasoning
    assert "Ready after" in reasoning
    assert content
    assert "Loading" not in content


def test_openai_client_completes_while_loading(oai: openai.OpenAI) -> None:
    """Comments are no content: a completion's text is the model's alone."""
    oai.chat.completions.create(model="a", messages=TALK, max_tokens=1)
    text = "".join(
        chunk.choices[0].text
        for chunk in oai.completions.create(model="b", prompt="hello", max_tokens=3, stream=True)
    )

    assert text
    assert "Loading" not in text


def test_openai_client_gets_an_error_for_a_failed_load(oai: openai.OpenAI) -> None:
    """A load that fails after the stream began is an error, as its clients expect."""
    stream = oai.chat.completions.create(model="broken", messages=TALK, stream=True)
    with pytest.raises(openai.APIError, match="broken failed"):
        list(stream)


def test_openai_client_embeddings_work(oai: openai.OpenAI) -> None:
    answer = oai.embeddings.create(model="a", input=["one", "two"], encoding_format="float")

    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) == 64


def test_openai_client_transcription_works(oai: openai.OpenAI) -> None:
    answer = oai.audio.transcriptions.create(
        model="gpt-4o", file=("a.wav", b"RIFF" + bytes(300_000), "audio/wav")
    )

    assert answer.text is not None


def test_openai_client_responses_work(oai: openai.OpenAI) -> None:
    stream = oai.responses.create(model="b", input="hello", max_output_tokens=4, stream=True)
    kinds = [event.type for event in stream]
    with oai.responses.stream(model="b", input="hello", max_output_tokens=4) as helper:
        final = helper.get_final_response()

    assert "response.completed" in kinds
    assert final.output_text
    assert final.usage is not None
    assert final.usage.output_tokens == 4


def test_openai_client_errors_have_their_type(oai: openai.OpenAI, proxy: SwapchartProcess) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        oai.chat.completions.create(model="nobody", messages=TALK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        oai.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.InternalServerError) as failed:
        oai.chat.completions.create(model="broken", messages=TALK)
    assert failed.value.status_code in (502, 503)


# ---- anthropic
def test_anthropic_client_message_works(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="claude-like", messages=TALK, max_tokens=4)

    assert answer.usage.output_tokens == 4
    counted = claude.messages.count_tokens(model="a", messages=TALK)
    assert counted.input_tokens > 0


@pytest.mark.parametrize("model", ["a", "c"])
def test_anthropic_client_stream_works(claude: anthropic.Anthropic, model: str) -> None:
    """Streams parse, those that begin while the model loads too."""
    with claude.messages.stream(model=model, messages=TALK, max_tokens=4) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text
    assert final.usage.output_tokens == 4


def test_anthropic_client_errors_have_their_type(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model not found") as missing:
        claude.messages.create(model="nobody", messages=TALK, max_tokens=1)
    assert missing.value.type == "not_found_error"
    assert missing.value.request_id
    assert missing.value.response.json()["request_id"] == missing.value.request_id
    assert missing.value.response.headers["x-request-id"] == missing.value.request_id
    with pytest.raises(anthropic.NotFoundError) as uncounted:
        claude.messages.count_tokens(model="nobody", messages=TALK)
    assert uncounted.value.type == "not_found_error"
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        claude.with_options(api_key="wrong").messages.create(model="a", messages=TALK, max_tokens=1)
    assert unknown.value.type == "authentication_error"
    with (
        pytest.raises(anthropic.APIStatusError, match="broken failed"),
        claude.messages.stream(model="broken", messages=TALK, max_tokens=1) as stream,
    ):
        list(stream.text_stream)


# ---- curl
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_requests_work(proxy: SwapchartProcess) -> None:
    """Curl's plain -d, its -F and its -u all work."""
    url = f"http://127.0.0.1:{proxy.port}"
    body = json.dumps({"model": "a", "messages": TALK, "max_tokens": 2})
    chat = curl("-u", f":{KEY}", "-d", body, f"{url}/v1/chat/completions")
    assert json.loads(chat)["choices"]
    form = curl(
        "-H", f"x-api-key: {KEY}", "-F", "file=@-;filename=a.wav", "-F", "model=a",
        f"{url}/v1/audio/transcriptions",
    )  # fmt: skip
    assert "error" not in json.loads(form)
    assert curl("-o", "-", "-w", "%{http_code}", f"{url}/running").endswith("401")
    assert curl("-I", f"{url}/health").startswith("HTTP/1.1 200")
    streaming = body.replace('"max', '"stream":true,"max')
    stream = curl(
        "-N", "-H", f"Authorization: Bearer {KEY}", "-d", streaming,
        f"{url}/v1/chat/completions",
    )  # fmt: skip
    assert stream.rstrip().endswith("data: [DONE]")
