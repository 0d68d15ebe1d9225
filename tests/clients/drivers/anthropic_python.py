"""Driver of Anthropic's Python library."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic
from driver import RESULT, TOOL, messages, run


def make(base: str, key: str) -> Any:
    """Return what the library does, with its default of retries."""
    client: Any = Anthropic(base_url=base, api_key=key)

    def chat(model: str, text: str) -> dict[str, Any]:
        answer = client.messages.create(model=model, messages=messages(text), max_tokens=50)
        return {"text": answer.content[0].text}

    def stream(model: str, text: str) -> dict[str, Any]:
        more = {"model": model, "messages": messages(text), "max_tokens": 50}
        with client.messages.stream(**more) as opened:
            return {"pieces": list(opened.text_stream)}

    def tools(model: str, text: str) -> dict[str, Any]:
        tool = {"name": "pick", "input_schema": TOOL}
        more = {"model": model, "max_tokens": 50, "tools": [tool]}
        asked = messages(text)
        answer = client.messages.create(messages=asked, **more)
        (block,) = answer.content
        result = {"type": "tool_result", "tool_use_id": block.id, "content": RESULT}
        turns = [
            *asked,
            {"role": "assistant", "content": [block.to_dict()]},
            {"role": "user", "content": [result]},
        ]
        last = client.messages.create(messages=turns, **more)
        return {"arguments": block.input, "text": last.content[0].text}

    def listed(model: str, text: str) -> dict[str, Any]:
        return {"models": [each.id for each in client.models.list()]}

    return {"chat": chat, "stream": stream, "tools": tools, "listed": listed}


run(make)
