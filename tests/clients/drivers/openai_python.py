"""Driver of OpenAI's Python library."""

from __future__ import annotations

import json
from typing import Any

from driver import RESULT, TOOL, messages, run
from openai import OpenAI


def make(base: str, key: str) -> Any:
    """Return what the library does, with its default of retries."""
    client: Any = OpenAI(base_url=f"{base}/v1", api_key=key)

    def chat(model: str, text: str) -> dict[str, Any]:
        answer = client.chat.completions.create(model=model, messages=messages(text))
        return {"text": answer.choices[0].message.content}

    def stream(model: str, text: str) -> dict[str, Any]:
        chunks = client.chat.completions.create(model=model, messages=messages(text), stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        return {"pieces": [piece for piece in pieces if piece]}

    def tools(model: str, text: str) -> dict[str, Any]:
        function = {"name": "pick", "parameters": TOOL}
        more = {"model": model, "tools": [{"type": "function", "function": function}]}
        asked = messages(text)
        message = client.chat.completions.create(messages=asked, **more).choices[0].message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
        turns = [*asked, message.to_dict(), result]
        answer = client.chat.completions.create(messages=turns, **more)
        arguments = json.loads(call.function.arguments)
        return {"arguments": arguments, "text": answer.choices[0].message.content}

    def embeddings(model: str, text: str) -> dict[str, Any]:
        return {"size": len(client.embeddings.create(model=model, input=text).data[0].embedding)}

    def listed(model: str, text: str) -> dict[str, Any]:
        return {"models": [each.id for each in client.models.list()]}

    def responses(model: str, text: str) -> dict[str, Any]:
        return {"text": client.responses.create(model=model, input=text).output_text}

    return {
        "chat": chat, "stream": stream, "tools": tools, "embeddings": embeddings,
        "listed": listed, "responses": responses,
    }  # fmt: skip


run(make)
