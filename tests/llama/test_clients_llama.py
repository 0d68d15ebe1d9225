"""The clients that people use, unchanged, and real llama-servers behind the proxy."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from tools import raw
from tools.clients import TALK, claude_client, curl, openai_client
from tools.llama import LlamaServer, only_program
from tools.swapchart_process import Proxies, SwapchartProcess

pytestmark = [pytest.mark.llama, pytest.mark.slow]

KEY = "sk-real-clients"
STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 15
TOO_LONG: Any = [{"role": "user", "content": "the river " * 5000}]
PICK: Any = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
}
# As those of Qwen and Hermes: the shortest that llama-server recognises as knowing tools.
TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions. Signatures within <tools></tools>:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
For each call return json within <tool_call></tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


#: ./dev test-all takes both: what differs between servers is tested with other models too.
SERVERS = ["hypercorn", "uvicorn"][: 2 if os.environ.get("SWAPCHART_LONG") == "1" else 1]


@pytest.fixture(scope="module", params=SERVERS)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    real_llama: LlamaServer, tiny_gguf: Path,
) -> Iterator[SwapchartProcess]:  # fmt: skip
    only_program(real_llama)
    folder = tmp_path_factory.mktemp("clients")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)

    def model(path: Path, *extra: str, **keys: Any) -> dict[str, Any]:
        argv = real_llama.argv(path, 0, extra=extra)
        argv[argv.index("--port") + 1] = "${PORT}"
        env = [f"{name}={value}" for name, value in real_llama.env.items()]
        return {"cmd": argv, "env": env, "proxy": "http://127.0.0.1:${PORT}", **keys}

    tools = ("--jinja", "--chat-template-file", str(template))
    kept = ("--slot-save-path", str(folder / "slots"))
    models = {
        "ada": model(
            tiny_gguf, *tools, *kept, kv="keep", aliases=["gpt-4o", "claude-like"]
        ),
        "eve": model(tiny_gguf),
        # It loads in milliseconds: a hook makes it one of those that are waited for.
        "slow": model(tiny_gguf, sendLoadingState=True, beforeStart={"run": "sleep 1.2"}),
        "embedder": model(tiny_gguf, "--embeddings", "--pooling", "mean"),
        "broken": model(folder / "missing.gguf"),
    }  # fmt: skip
    proxies = Proxies(folder)
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


def call(proxy: SwapchartProcess, method: str, target: str) -> raw.Answer:
    return proxy.call(method, target, headers={"authorization": f"Bearer {KEY}"})


def unload(proxy: SwapchartProcess) -> None:
    assert call(proxy, "POST", "/api/models/unload").status == 200


# ---- openai
def test_openai_client_chat_works(oai: openai.OpenAI) -> None:
    """By another name too; all of the answer is llama-server's own."""
    assert [model.id for model in oai.models.list()] == ["ada", "broken", "embedder", "eve", "slow"]
    answer = oai.chat.completions.create(model="gpt-4o", messages=TALK, max_tokens=4)

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.model_extra is not None
    assert answer.model_extra["timings"]["predicted_n"] == 4


def test_openai_client_stream_equals_the_plain_response(oai: openai.OpenAI) -> None:
    plain = oai.chat.completions.create(model="ada", messages=TALK, max_tokens=12, temperature=0)
    chunks = list(
        oai.chat.completions.create(
            model="ada", messages=TALK, max_tokens=12, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert text == plain.choices[0].message.content != ""
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_openai_client_completions_and_responses_work(oai: openai.OpenAI) -> None:
    text = oai.completions.create(model="ada", prompt="the river", max_tokens=3).choices[0].text
    stream = oai.responses.create(model="ada", input="hello", max_output_tokens=4, stream=True)
    kinds = [event.type for event in stream]

    assert text
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"


def test_openai_client_passes_tools_and_results(oai: openai.OpenAI) -> None:
    """What is asked for reaches its template: the prompt has their names and the answers."""
    tools: Any = [{"type": "function", "function": {"name": "pick", "parameters": PICK}}]
    turn: Any = [
        *TALK,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call-1", "type": "function",
                    "function": {"name": "pick", "arguments": '{"colour": "red"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "a red stone by the river"},
    ]  # fmt: skip

    def prompt_tokens(messages: Any, **more: Any) -> int:
        answer = oai.chat.completions.create(
            model="ada", messages=messages, max_tokens=2, temperature=0, **more
        )
        assert answer.usage is not None
        return int(answer.usage.prompt_tokens)

    plain, with_tools = prompt_tokens(TALK), prompt_tokens(TALK, tools=tools)

    assert with_tools > plain + 150
    assert prompt_tokens(turn, tools=tools, tool_choice="required") > with_tools + 30


def test_openai_client_gets_json_of_a_schema(oai: openai.OpenAI) -> None:
    """A grammar holds even a model of random weights to it."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "pick", "schema": PICK}}
    answer = oai.chat.completions.create(
        model="ada", messages=TALK, max_tokens=60, response_format=wanted
    )

    assert json.loads(answer.choices[0].message.content or "")["colour"] in ("red", "blue")


def test_openai_client_embeddings_work(oai: openai.OpenAI) -> None:
    """As it asks by itself, in base64, and as numbers."""
    asked = ["one stone", "two rivers"]
    packed = oai.embeddings.create(model="embedder", input=asked)
    plain = oai.embeddings.create(model="embedder", input=asked, encoding_format="float")

    assert len(packed.data) == len(plain.data) == 2
    assert len(plain.data[0].embedding) == 64
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-5)
    assert packed.data[0].embedding != packed.data[1].embedding


def test_openai_client_reads_the_loading_state(oai: openai.OpenAI, proxy: SwapchartProcess) -> None:
    unload(proxy)
    reasoning, content = "", ""
    stream = oai.chat.completions.create(model="slow", messages=TALK, max_tokens=3, stream=True)
    for chunk in stream:
        if chunk.choices:
            delta = chunk.choices[0].delta
            reasoning += getattr(delta, "reasoning_content", None) or ""
            content += delta.content or ""

    assert "Loading slow" in reasoning
    assert content
    assert "Loading" not in content


def test_openai_client_errors_have_their_type(oai: openai.OpenAI) -> None:
    """Ours and llama-server's own, each with its status, type and text."""
    with pytest.raises(openai.NotFoundError) as missing:
        oai.chat.completions.create(model="nobody", messages=TALK)
    with pytest.raises(openai.BadRequestError, match="exceeds the available context") as long:
        oai.chat.completions.create(model="ada", messages=TOO_LONG)
    with pytest.raises(openai.BadRequestError, match="exceeds the available context"):
        oai.chat.completions.create(model="ada", messages=TOO_LONG, stream=True)
    with pytest.raises(openai.InternalServerError, match="--embeddings") as unable:
        oai.embeddings.create(model="ada", input="hello")
    with pytest.raises(openai.InternalServerError, match="too large to process"):
        oai.embeddings.create(model="embedder", input="the river " * 2000)
    with pytest.raises(openai.AuthenticationError):
        oai.with_options(api_key="wrong").models.list()

    assert missing.value.code == "model_not_found"
    assert long.value.type == "exceed_context_size_error"
    assert long.value.body["n_ctx"] == 4096  # type: ignore[index]
    assert unable.value.status_code == 501


def test_error_after_the_loading_state_is_an_error(
    oai: openai.OpenAI, claude: anthropic.Anthropic, proxy: SwapchartProcess
) -> None:
    """The stream has begun with 200 when llama-server refuses: both clients raise all the same."""
    unload(proxy)
    with pytest.raises(openai.APIError, match="exceeds the available context"):
        list(oai.chat.completions.create(model="slow", messages=TOO_LONG, stream=True))
    unload(proxy)
    with (
        pytest.raises(anthropic.APIStatusError, match="exceeds the available context"),
        claude.messages.stream(model="slow", messages=TOO_LONG, max_tokens=1) as stream,
    ):
        list(stream.text_stream)


def test_openai_client_gets_an_error_for_a_failed_load(
    oai: openai.OpenAI, proxy: SwapchartProcess
) -> None:
    """Its file is missing; the proxy tells, and what serves is served."""
    proxy.may_log = "broken"
    with pytest.raises(openai.InternalServerError, match="broken") as failed:
        oai.chat.completions.create(model="broken", messages=TALK)
    answer = oai.chat.completions.create(model="ada", messages=TALK, max_tokens=1)

    assert failed.value.status_code in (502, 503)
    assert "missing.gguf" in json.dumps(failed.value.body)
    assert answer.choices


def test_client_that_leaves_frees_its_slot(oai: openai.OpenAI, proxy: SwapchartProcess) -> None:
    """It has one slot only, and the next request gets it."""
    endless: Any = {"ignore_eos": True}
    stream = oai.chat.completions.create(
        model="ada", messages=TALK, max_tokens=100_000, stream=True, extra_body=endless
    )
    next(iter(stream))
    stream.close()
    answer = oai.chat.completions.create(model="ada", messages=TALK, max_tokens=1)

    assert answer.choices


# ---- anthropic
def test_anthropic_client_messages_and_counts_work(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="claude-like", messages=TALK, max_tokens=4)
    counted = claude.messages.count_tokens(model="ada", messages=TALK)
    more = claude.messages.count_tokens(model="ada", messages=TALK, system=STORY)

    assert answer.content[0].type == "text"
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 4
    total = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert total == counted.input_tokens
    assert more.input_tokens > counted.input_tokens + 200


def test_streams_in_sequence_work(oai: openai.OpenAI) -> None:
    """The server ends its connection after each; none of the requests behind is lost."""
    for _ in range(15):
        chunks = list(
            oai.chat.completions.create(model="ada", messages=TALK, max_tokens=2, stream=True)
        )
        assert chunks[-1].choices[0].finish_reason


@pytest.mark.parametrize("model", ["ada", "slow"])
def test_anthropic_client_stream_works(
    claude: anthropic.Anthropic, proxy: SwapchartProcess, model: str
) -> None:
    """Also while the model loads, with and without its being told."""
    unload(proxy)
    with claude.messages.stream(model=model, messages=TALK, max_tokens=6) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text
    assert final.usage.output_tokens == 6


def test_anthropic_client_passes_tools(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "pick", "description": "a colour", "input_schema": PICK}]
    plain = claude.messages.count_tokens(model="ada", messages=TALK)
    counted = claude.messages.count_tokens(model="ada", messages=TALK, tools=tools)
    answer = claude.messages.create(model="ada", messages=TALK, max_tokens=3, tools=tools)

    assert counted.input_tokens > plain.input_tokens + 100
    assert answer.usage.output_tokens == 3


def test_anthropic_client_errors_have_their_type(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model not found"):
        claude.messages.create(model="nobody", messages=TALK, max_tokens=1)
    with pytest.raises(anthropic.BadRequestError, match="exceeds the available context"):
        claude.messages.create(model="ada", messages=TOO_LONG, max_tokens=1)
    with (
        pytest.raises(anthropic.BadRequestError, match="exceeds the available context"),
        claude.messages.stream(model="ada", messages=TOO_LONG, max_tokens=1) as stream,
    ):
        list(stream.text_stream)
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="wrong").messages.create(
            model="ada", messages=TALK, max_tokens=1
        )


# ---- a swap in the middle
def test_conversation_continues_after_a_swap(
    oai: openai.OpenAI, claude: anthropic.Anthropic, proxy: SwapchartProcess
) -> None:
    """One client talks to one model, another takes its place, and the first goes on, unread."""
    talk: Any = [{"role": "user", "content": STORY}]
    first = oai.chat.completions.create(model="ada", messages=talk, max_tokens=8, temperature=0)
    assert claude.messages.create(model="eve", messages=TALK, max_tokens=2).content
    assert [*running(proxy)] == ["eve"]
    talk += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "and then?"},
    ]
    then = oai.chat.completions.create(model="ada", messages=talk, max_tokens=8, temperature=0)

    assert first.usage is not None
    assert then.usage is not None
    assert then.usage.prompt_tokens_details is not None
    assert (then.usage.prompt_tokens_details.cached_tokens or 0) >= first.usage.prompt_tokens - 1
    assert running(proxy)["ada"]["kv"]["verdict"] == "works"


def test_swap_waits_for_the_stream_and_both_end_well(
    oai: openai.OpenAI, claude: anthropic.Anthropic, proxy: SwapchartProcess
) -> None:
    """The other model is requested in the middle of it, without effect on the client."""
    body: Any = {"ignore_eos": True}
    stream = oai.chat.completions.create(
        model="ada", messages=TALK, max_tokens=1500, stream=True, extra_body=body,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = iter(stream)
    next(chunks)
    answers: list[anthropic.types.Message] = []
    other = threading.Thread(
        target=lambda: answers.append(
            claude.messages.create(model="eve", messages=TALK, max_tokens=2)
        )
    )
    other.start()
    rest = list(chunks)
    other.join(30.0)

    assert rest[-1].usage is not None
    assert rest[-1].usage.completion_tokens == 1500
    assert answers[0].usage.output_tokens == 2
    assert [*running(proxy)] == ["eve"]


def running(proxy: SwapchartProcess) -> dict[str, Any]:
    return {row["model"]: row for row in call(proxy, "GET", "/running").json()["running"]}


# ---- curl
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_requests_work(proxy: SwapchartProcess) -> None:
    """A chat, a stream, a swap, and llama-server's own routes behind it."""
    url, key = f"http://127.0.0.1:{proxy.port}", ("-H", f"Authorization: Bearer {KEY}")
    found = {}
    for model in ("ada", "eve", "ada"):
        body = json.dumps({"model": model, "messages": TALK, "max_tokens": 2})
        chat = curl("-u", f":{KEY}", "-d", body, f"{url}/v1/chat/completions")
        found[model] = json.loads(chat)["usage"]["completion_tokens"]
    body = json.dumps({"model": "ada", "messages": TALK, "max_tokens": 3, "stream": True})
    stream = curl("-N", *key, "-d", body, f"{url}/v1/chat/completions")
    tokens = curl(*key, "-d", '{"content": "the river"}', f"{url}/upstream/ada/tokenize")
    status = curl(*key, "-o", "-", "-w", "%{http_code}", "-d", "{}", f"{url}/v1/chat/completions")

    assert found == {"ada": 2, "eve": 2}
    assert stream.startswith("data: ")
    assert stream.rstrip().endswith("data: [DONE]")
    assert json.loads(tokens)["tokens"]
    assert json.loads(curl(*key, f"{url}/upstream/ada/props"))["total_slots"] == 1
    assert status.endswith("400")
