"""Driver of Ollama's Python library."""

from __future__ import annotations

from typing import Any

from driver import RESULT, TOOL, messages, run
from ollama import Client


def make(base: str, key: str) -> Any:
    """Return what the library does."""
    client: Any = Client(host=f"{base}/ollama", headers={"Authorization": f"Bearer {key}"})

    def chat(model: str, text: str) -> dict[str, Any]:
        return {"text": client.chat(model=model, messages=messages(text)).message.content}

    def stream(model: str, text: str) -> dict[str, Any]:
        parts = client.chat(model=model, messages=messages(text), stream=True)
        pieces = [part.message.content for part in parts]
        return {"pieces": [piece for piece in pieces if piece]}

    def tools(model: str, text: str) -> dict[str, Any]:
        tool = {"type": "function", "function": {"name": "pick", "parameters": TOOL}}
        asked = messages(text)
        message = client.chat(model=model, messages=asked, tools=[tool]).message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_name": "pick", "content": RESULT}
        last = client.chat(model=model, messages=[*asked, message, result], tools=[tool])
        return {"arguments": dict(call.function.arguments), "text": last.message.content}

    def embeddings(model: str, text: str) -> dict[str, Any]:
        return {"size": len(client.embed(model=model, input=text).embeddings[0])}

    def listed(model: str, text: str) -> dict[str, Any]:
        return {"models": [each.model.removesuffix(":latest") for each in client.list().models]}

    return {
        "chat": chat, "stream": stream, "tools": tools, "embeddings": embeddings, "listed": listed,
    }  # fmt: skip


run(make)
