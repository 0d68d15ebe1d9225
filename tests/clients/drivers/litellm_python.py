"""Driver of LiteLLM's library."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it is fetched from elsewhere otherwise

import litellm
from driver import RESULT, TOOL, messages, run

litellm.telemetry = False
litellm.suppress_debug_info = True


def make(base: str, key: str) -> Any:
    """Return what the library does, with its default of retries."""
    place = {"api_base": f"{base}/v1", "api_key": key}

    def chat(model: str, text: str) -> dict[str, Any]:
        answer = litellm.completion(model=f"openai/{model}", messages=messages(text), **place)
        return {"text": answer.choices[0].message.content}

    def stream(model: str, text: str) -> dict[str, Any]:
        more = {"model": f"openai/{model}", "messages": messages(text), "stream": True}
        pieces = [chunk.choices[0].delta.content for chunk in litellm.completion(**more, **place)]
        return {"pieces": [piece for piece in pieces if piece]}

    def tools(model: str, text: str) -> dict[str, Any]:
        function = {"type": "function", "function": {"name": "pick", "parameters": TOOL}}
        more = {"model": f"openai/{model}", "tools": [function], **place}
        asked = messages(text)
        message = litellm.completion(messages=asked, **more).choices[0].message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
        answer = litellm.completion(messages=[*asked, message.model_dump(), result], **more)
        arguments = json.loads(call.function.arguments)
        return {"arguments": arguments, "text": answer.choices[0].message.content}

    def embeddings(model: str, text: str) -> dict[str, Any]:
        answer = litellm.embedding(model=f"openai/{model}", input=[text], **place)
        return {"size": len(answer.data[0]["embedding"])}

    def listed(model: str, text: str) -> dict[str, Any]:
        found = litellm.get_valid_models(
            check_provider_endpoint=True, custom_llm_provider="openai",
            api_key=key, api_base=f"{base}/v1",
        )  # fmt: skip
        return {"models": [name.removeprefix("openai/") for name in found]}

    return {
        "chat": chat, "stream": stream, "tools": tools, "embeddings": embeddings, "listed": listed,
    }  # fmt: skip


run(make)
