"""Tool calls of the demo server, read by the libraries of OpenAI and Anthropic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tools.children import Child, demo_server
from tools.clients import claude_client, openai_client

pytestmark = pytest.mark.slow

ARGUMENTS = {"color": "red", "note": "two  words, ä"}
ASKED = f"please call pick with {json.dumps(ARGUMENTS)} now"
SCHEMA: Any = {"type": "object", "properties": {name: {"type": "string"} for name in ARGUMENTS}}
FUNCTION: Any = {"name": "pick", "parameters": SCHEMA}
TALK: Any = [{"role": "user", "content": ASKED}]
SAID = "This is parrot. The tool returned: a red one"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with demo_server(cwd=tmp_path_factory.mktemp("demo"), model="parrot") as child:
        yield child.wait_healthy()


@pytest.fixture
def oai(server: Child) -> Iterator[openai.OpenAI]:
    with openai_client(server.port, "none") as client:
        yield client


@pytest.fixture
def claude(server: Child) -> Iterator[anthropic.Anthropic]:
    with claude_client(server.port, "none") as client:
        yield client


@pytest.mark.parametrize("is_stream", [False, True])
def test_chat_calls_a_tool_and_quotes_its_result(oai: openai.OpenAI, is_stream: bool) -> None:
    tools: Any = [{"type": "function", "function": FUNCTION}]
    if is_stream:
        with oai.chat.completions.stream(model="x", messages=TALK, tools=tools) as stream:
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = oai.chat.completions.create(model="x", messages=TALK, tools=tools).choices[0]
    (call,) = choice.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "a red one"}
    messages = [*TALK, {"role": "assistant", "tool_calls": [call.to_dict()]}, result]
    last = oai.chat.completions.create(model="x", messages=messages, tools=tools).choices[0]

    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    assert (call.type, call.function.name) == ("function", "pick")
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert (last.finish_reason, last.message.content) == ("stop", SAID)


@pytest.mark.parametrize("is_stream", [False, True])
def test_messages_call_a_tool_and_quote_its_result(
    claude: anthropic.Anthropic, is_stream: bool
) -> None:
    more: Any = {"max_tokens": 99, "tools": [{"name": "pick", "input_schema": SCHEMA}]}
    if is_stream:
        with claude.messages.stream(model="x", messages=TALK, **more) as stream:
            message: Any = stream.get_final_message()
    else:
        message = claude.messages.create(model="x", messages=TALK, **more)
    (block,) = message.content
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "a red one"}
    reminder = {"type": "text", "text": "a program's own words after it"}
    turns: Any = [
        {"role": "assistant", "content": [block.to_dict()]},
        {"role": "user", "content": [result, reminder]},
    ]
    last: Any = claude.messages.create(model="x", messages=[*TALK, *turns], **more)

    assert message.stop_reason == "tool_use"
    assert (block.type, block.name, block.input) == ("tool_use", "pick", ARGUMENTS)
    assert (last.stop_reason, last.content[0].text) == ("end_turn", SAID)


@pytest.mark.parametrize("is_stream", [False, True])
def test_responses_call_a_tool_and_quote_its_result(oai: openai.OpenAI, is_stream: bool) -> None:
    tools: Any = [{"type": "function", "strict": False, **FUNCTION}]
    if is_stream:
        with oai.responses.stream(model="x", input=TALK, tools=tools) as stream:
            kinds = [event.type for event in stream]
            response: Any = stream.get_final_response()
        assert "response.function_call_arguments.done" in kinds
    else:
        response = oai.responses.create(model="x", input=TALK, tools=tools)
    (call,) = response.output
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "a red one"}
    last = oai.responses.create(model="x", input=[*TALK, call.to_dict(), result], tools=tools)

    assert (call.type, call.name, call.status) == ("function_call", "pick", "completed")
    assert json.loads(call.arguments) == ARGUMENTS
    assert last.output_text == SAID


@pytest.mark.parametrize(
    "text",
    ["call pick", "call pick with red", "call pick with [1]", 'call other with {"a": 1}', "pick"],
)
def test_text_that_asks_for_no_call_gets_a_reply(oai: openai.OpenAI, text: str) -> None:
    messages: Any = [{"role": "user", "content": text}]
    tools: Any = [{"type": "function", "function": FUNCTION}]
    choice = oai.chat.completions.create(model="x", messages=messages, tools=tools).choices[0]

    assert choice.message.content == f"This is parrot. You asked: {' '.join(text.split())}"


def test_turn_after_a_result_and_its_reply_is_a_new_one(oai: openai.OpenAI) -> None:
    """Neither the call nor the result of an earlier turn comes back."""
    call: Any = {"id": "1", "type": "function", "function": {"name": "pick", "arguments": "{}"}}
    messages: Any = [
        *TALK,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a red one"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "thanks"},
    ]
    tools: Any = [{"type": "function", "function": FUNCTION}]
    choice = oai.chat.completions.create(model="x", messages=messages, tools=tools).choices[0]

    assert choice.message.content == "This is parrot. You asked: thanks"
